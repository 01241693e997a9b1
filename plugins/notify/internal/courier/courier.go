// Package courier carries a body to one HTTP server: again and again until it is taken, refused or the
// deadline is near. It knows no kind of message. An address may itself be a secret, as Slack's are, so
// that its errors name the host alone and nothing that it was told to keep.
package courier

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxAnswer = 1 << 20
	maxHeader = 64 << 10
	maxPause  = 10 * time.Second
	// without a deadline nobody says when to stop
	defaultDeadline = time.Minute
)

// Config of one courier.
type Config struct {
	CA        []byte            // PEM; empty: the system's
	PlainHTTP bool              // http is taken too; without it only https is
	Secrets   []string          // never in an error
	Attempt   time.Duration     // how long one may take; 0: ten seconds
	Backoff   time.Duration     // the first pause; 0: half a second. Each further one is twice as long.
	Transport http.RoundTripper // nil: a real one
}

// Courier is safe for several goroutines.
type Courier struct {
	config Config
	client *http.Client
}

// Parcel is what is to be carried. It may arrive twice.
type Parcel struct {
	Method string // empty: POST
	URL    string
	Header http.Header
	Body   []byte
	// Stamp adds the headers of one attempt, such as a signature with its time.
	Stamp func(at time.Time, h http.Header)
}

// Refusal is an answer that another attempt would not change.
type Refusal struct {
	Status int
	Text   string
	Body   []byte
}

func (r *Refusal) Error() string { return r.Text }

// New checks the configuration.
func New(c Config) (*Courier, error) {
	if c.Attempt <= 0 {
		c.Attempt = 10 * time.Second
	}
	if c.Backoff <= 0 {
		c.Backoff = 500 * time.Millisecond
	}
	if c.Transport == nil {
		security := &tls.Config{MinVersion: tls.VersionTLS12}
		if len(c.CA) > 0 {
			security.RootCAs = x509.NewCertPool()
			if !security.RootCAs.AppendCertsFromPEM(c.CA) {
				return nil, errors.New("the file of authorities has no certificate in PEM")
			}
		}
		c.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: security, ForceAttemptHTTP2: true,
			MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: maxHeader}
	}
	return &Courier{config: c, client: &http.Client{Transport: c.Transport, CheckRedirect: sameHost}}, nil
}

// sameHost lets a server move within itself and keeps the parcel whole.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case r.URL.Host != first.URL.Host || r.URL.Scheme != first.URL.Scheme:
		return &Refusal{Text: fmt.Sprintf("%s redirects elsewhere, to %s://%s: give the address that it moved to", first.URL.Host, r.URL.Scheme, r.URL.Host)}
	case r.Method != first.Method:
		return &Refusal{Text: fmt.Sprintf("%s redirects in a way that loses the message: give the address that it moved to", first.URL.Host)}
	case len(via) > 3:
		return &Refusal{Text: first.URL.Host + " redirects without end"}
	}
	return nil
}

// CheckURL says what is wrong with an address, without saying it.
func (c *Courier) CheckURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("it is not an https URL")
	case u.Scheme == "http" && !c.config.PlainHTTP:
		return errors.New("it is http, which anybody on the way reads: give https, or --plain-http")
	}
	return nil
}

// Carry returns the body of the answer that took it. Network errors, 408, 429, 5xx, and whatever asks to
// be tried later, are tried again after a pause, the server's own where it names one.
func (c *Courier) Carry(ctx context.Context, p Parcel) ([]byte, error) {
	if err := c.CheckURL(p.URL); err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(defaultDeadline)
	}
	var before error // of the attempt before
	for attempt := 1; ; attempt++ {
		answer, asked, err := c.attempt(ctx, p)
		if err == nil {
			return answer, nil
		}
		if refused, ok := errors.AsType[*Refusal](err); ok {
			return nil, refused
		}
		if ctx.Err() != nil && before != nil { // what was answered says more than that this one was cut off
			return nil, fmt.Errorf("%w (attempt %d; then %w)", before, attempt-1, ctx.Err())
		}
		before = err
		wait := max(pause(attempt, c.config.Backoff, rand.Float64()), asked)
		if left := time.Until(deadline); wait >= left {
			return nil, fmt.Errorf("%w (attempt %d; the next would be in %s, past the deadline)", err, attempt, wait.Round(time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w (attempt %d; then %w)", err, attempt, ctx.Err())
		}
	}
}

// pause before the next attempt: doubled each time, and spread by random in [0,1) over its upper half so
// that those who failed together do not come back together.
func pause(attempt int, first time.Duration, random float64) time.Duration {
	full := maxPause
	if attempt < 16 {
		full = min(first<<(attempt-1), maxPause)
	}
	return full/2 + time.Duration(random*float64(full/2))
}

// attempt sends once. asked is how long the server wants to be left alone.
func (c *Courier) attempt(ctx context.Context, p Parcel) (answer []byte, asked time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.config.Attempt, fmt.Errorf("no answer within %s", c.config.Attempt))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, either(p.Method, http.MethodPost), p.URL, bytes.NewReader(p.Body))
	if err != nil {
		return nil, 0, &Refusal{Text: "the address cannot be asked"}
	}
	for name, values := range p.Header {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", "wheelwright-notify")
	if p.Stamp != nil {
		p.Stamp(time.Now(), r.Header)
	}
	response, err := c.client.Do(r)
	if err != nil {
		return nil, 0, c.unsent(ctx, r.URL.Host, err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, 0, c.unsent(ctx, r.URL.Host, err)
	}
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return answer, 0, nil
	}
	text := c.redact(fmt.Sprintf("%s answers %d %s", r.URL.Host, response.StatusCode, oneLine(answer)))
	text = strings.TrimSpace(text)
	asked = retryAfter(response.Header.Get("Retry-After"), time.Now())
	switch code := response.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500 && code != http.StatusNotImplemented, asked > 0:
		return nil, asked, errors.New(text)
	}
	return nil, 0, &Refusal{Status: response.StatusCode, Text: text, Body: answer}
}

// unsent leaves the address out of the error, but for the host.
func (c *Courier) unsent(ctx context.Context, host string, err error) error {
	if refused, ok := errors.AsType[*Refusal](err); ok {
		return refused
	}
	if distrust, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &Refusal{Text: c.redact(host + ": " + distrust.Error())}
	}
	switch cause := context.Cause(ctx); cause {
	case nil:
	case context.DeadlineExceeded: // the caller's, before an attempt's own
		err = errors.New("no answer before the deadline")
	default:
		err = cause
	}
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	return errors.New(c.redact(host + ": " + oneLine([]byte(err.Error()))))
}

func (c *Courier) redact(s string) string {
	for _, secret := range c.config.Secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}

// retryAfter reads seconds or a date; what is neither asks for nothing.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(header, 10, 32); err == nil {
		return time.Duration(max(seconds, 0)) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// oneLine is the beginning of a foreign text.
func oneLine(text []byte) string {
	s := strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(text), "?"))), " ")
	if runes := []rune(s); len(runes) > 200 {
		return string(runes[:199]) + "…"
	}
	return s
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
