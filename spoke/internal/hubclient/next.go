package hubclient

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// NextFile is the file in the data folder that holds the identity at the hub that the spoke moves to, until that one
// has let it in.
const NextFile = "identity.next.json"

var (
	// ErrPending: the new hub's vendor has not accepted the spoke yet.
	ErrPending = errors.New("it waits to be accepted")
	// ErrTurnedAway: the new hub does not take this identity, and will not.
	ErrTurnedAway = errors.New("the new hub has turned this spoke away")
	// ErrOtherCluster: the token is of another cluster.
	ErrOtherCluster = errors.New("the token is not of this cluster")
	// ErrOtherHub: the spoke does not belong to the hub that it was to leave.
	ErrOtherHub = errors.New("this spoke belongs to another hub by now")
)

// Pins are of the authorities of this identity's hub.
func (id Identity) Pins() (all []string) {
	for _, der := range id.authorities {
		if ca, err := x509.ParseCertificate(der); err == nil {
			all = append(all, pinOf(ca))
		}
	}
	return all
}

// Pause is the wait after a failed attempt, from 0, to reach the new hub.
func Pause(err error, attempt int) time.Duration { return pause(err, attempt, 0, rand.Float64()) }

// LoadNext reads the identity for the hub that the spoke in dir moves to. Errors as of LoadIdentity.
func LoadNext(dir string) (Identity, error) { return loadIdentity(dir, NextFile) }

// DropNext forgets it, where there is one.
func DropNext(dir string) error {
	if err := os.Remove(filepath.Join(dir, NextFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the identity for another hub: %w", err)
	}
	return nil
}

// JoinNext redeems a token at another hub and keeps the new identity beside the present one. Errors: ErrTokenRefused,
// ErrOtherCluster, ErrWrongAuthority, ErrUnreachable and others.
func (c *Client) JoinNext(ctx context.Context, addr string, t token.Token, cluster fleet.Cluster) (Identity, error) {
	id, err := enroll(ctx, addr, "", t)
	if err != nil {
		return Identity{}, fmt.Errorf("join %s: %w", addr, err)
	}
	if id.Cluster != string(cluster) {
		return Identity{}, fmt.Errorf("join %s: %w: %s there", addr, ErrOtherCluster, id.Cluster)
	}
	id.file = NextFile
	if err := locked(c.cfg.Dir, func() error { return id.save(c.cfg.Dir) }); err != nil {
		return Identity{}, fmt.Errorf("join %s: %w", addr, err)
	}
	return id, nil
}

// GreetNext opens a session with the new hub and ends it; nil: it has let the spoke in. Errors: ErrPending,
// ErrTurnedAway and others, of which none is for ever.
func (c *Client) GreetNext(ctx context.Context) error {
	id, err := LoadNext(c.cfg.Dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, welcomeWait, fmt.Errorf("no welcome within %s", welcomeWait))
	defer cancel()
	if err = c.greetAs(ctx, id); err == nil {
		return nil
	}
	if context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	kind, code := refusalOf(err).GetKind(), status.Code(err)
	err = wireError{id.Addr, err}
	switch {
	case kind == syncv1.RefusalKind_REFUSAL_KIND_PENDING:
		return fmt.Errorf("%w: %w", ErrPending, err)
	case kind == syncv1.RefusalKind_REFUSAL_KIND_UNSPECIFIED && (code == codes.Unauthenticated || code == codes.PermissionDenied):
		return fmt.Errorf("%w: %w", ErrTurnedAway, err)
	}
	return err
}

func (c *Client) greetAs(ctx context.Context, id Identity) error {
	if time.Now().After(id.NotAfter) { // it waited for long
		return c.comeBack(ctx, id)
	}
	hello, err := c.cfg.Hello()
	if err != nil {
		return err
	}
	hello = proto.CloneOf(hello)
	hello.Revision = 0 // of another hub
	conn, err := id.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &session{c: c, id: id, conn: conn}
	_, err = s.greet(ctx, hello)
	return err
}

// TakeNext puts the new identity in the place of the present one, in one step, and opens the next session with it.
// ErrOtherHub where the present one is not of the hub whose authority has this pin.
func (c *Client) TakeNext(from string) error {
	err := locked(c.cfg.Dir, func() error {
		now, err := LoadIdentity(c.cfg.Dir)
		if err != nil {
			return err
		}
		if !slices.Contains(now.Pins(), from) {
			return fmt.Errorf("%w: %s", ErrOtherHub, now.Addr)
		}
		if _, err := LoadNext(c.cfg.Dir); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(c.cfg.Dir, NextFile), filepath.Join(c.cfg.Dir, IdentityFile)); err != nil {
			return fmt.Errorf("replace identity: %w", err)
		}
		return wholefile.SyncFolder(c.cfg.Dir)
	})
	if err == nil {
		c.Rehello()
	}
	return err
}
