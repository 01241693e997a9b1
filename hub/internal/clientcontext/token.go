package clientcontext

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	// commandTime is how long a program may take to print a token: a person may have to log in meanwhile.
	commandTime = 5 * time.Minute
	// early is how long before its end a token is not sent any more.
	early    = 10 * time.Second
	maxToken = 64 << 10 // bytes of what a program prints
)

func (c Context) byToken() bool { return c.TokenFile != "" || len(c.TokenCommand) > 0 }

// tokenOnly refuses a context that has two ways to say who one is: the hub does too.
func (c Context) tokenOnly() error {
	switch {
	case c.Certificate != "" || c.Key != "":
		return errors.New("a certificate and a token; want one of them")
	case c.TokenFile != "" && len(c.TokenCommand) > 0:
		return errors.New("tokenFile and tokenCommand; want one of them")
	}
	return nil
}

// bearer gives each call its token, and gets another when that ends. It is one of grpc's PerRPCCredentials.
type bearer struct {
	context Context

	mu    sync.Mutex
	token string
	until time.Time // zero: the token does not say
}

// GetRequestMetadata is for grpc.
func (b *bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.token == "" || !b.until.IsZero() && time.Now().Add(early).After(b.until) {
		token, err := b.context.fetchToken(ctx)
		if err != nil {
			return nil, err
		}
		b.token, b.until = token, ends(token)
	}
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity is for grpc: a token is sent to nobody who has not shown who they are.
func (b *bearer) RequireTransportSecurity() bool { return true }

// fetchToken reads the file or runs the program. What either holds is in no error.
func (c Context) fetchToken(ctx context.Context) (string, error) {
	if c.TokenFile != "" {
		text, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		return oneToken(text, c.TokenFile)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.TokenCommand[0], c.TokenCommand[1:]...)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr // it may ask a person
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("get a token from %s: %w", c.TokenCommand[0], err)
	}
	return oneToken(text, c.TokenCommand[0])
}

// oneToken takes a token alone, or kubectl's ExecCredential with one in it.
func oneToken(text []byte, from string) (string, error) {
	token := string(bytes.TrimSpace(text))
	if strings.HasPrefix(token, "{") {
		var e struct {
			Kind   string `json:"kind"`
			Status struct {
				Token string `json:"token"`
			} `json:"status"`
		}
		if err := json.Unmarshal(text, &e); err != nil || e.Kind != "ExecCredential" {
			return "", fmt.Errorf("%s gave JSON that is no ExecCredential; want a token, or that", from)
		}
		token = e.Status.Token
	}
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s gave no token", from)
	}
	return token, nil
}

// ends is when a token says that it does; the zero time where it does not say. It is not checked: that is the hub's.
func ends(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct {
		Expires float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(text, &c) != nil || c.Expires <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(c.Expires), 0)
}
