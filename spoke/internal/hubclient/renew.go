package hubclient

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const (
	renewWait = 30 * time.Second
	// calm is how long after a renewal the hub may have the next: one that asks without end gets no more of them.
	calm = time.Minute
)

// renewAt is when a certificate is renewed: at half its life, and up to a twentieth later, so that
// spokes that joined together do not renew together. jitter is in [0,1).
func renewAt(notBefore, notAfter time.Time, jitter float64) time.Time {
	life := notAfter.Sub(notBefore)
	return notBefore.Add(life/2 + time.Duration(jitter*float64(life)/20))
}

// renew replaces the identity in time and then ends the session, so that the next one uses the new one.
func (s *session) renew(ctx context.Context) error {
	at := renewAt(s.id.NotBefore, s.id.NotAfter, rand.Float64())
	for attempt := 0; ; attempt++ {
		select {
		case <-ctx.Done():
			return nil
		case within := <-s.early:
			at = s.c.asked(time.Now(), at, within, rand.Float64())
			attempt--
			continue
		case <-time.After(time.Until(at)):
		}
		id, err := s.nextIdentity(ctx)
		if err == nil {
			if err = s.saveIdentity(id); err == nil {
				s.c.renewed = time.Now()
				s.c.log.Info("the certificate was renewed", logging.Cluster, id.Cluster, "not_after", id.NotAfter)
				return errRenewed
			}
		}
		switch {
		case errors.Is(err, errRehello):
			return err
		case ctx.Err() != nil:
			return nil
		}
		s.c.log.Warn("the certificate was not renewed: trying again", "not_after", s.id.NotAfter, logging.Error, err)
		at = time.Now().Add(max(time.Second, Backoff(attempt, 1)))
	}
}

// asked is when to renew once the hub has asked for it within a time; otherwise it would be at at. jitter is in [0,1).
func (c *Client) asked(now, at time.Time, within time.Duration, jitter float64) time.Time {
	soon := now.Add(time.Duration(jitter * float64(within)))
	if least := c.renewed.Add(calm); soon.Before(least) {
		soon = least
	}
	if !soon.Before(at) {
		return at
	}
	return soon
}

func (s *session) nextIdentity(ctx context.Context) (Identity, error) {
	if s.id.Via == "" {
		return s.id.next(ctx, s.conn)
	}
	hub, err := s.id.dial() // for a moment: the session's ends at the relay
	if err != nil {
		return Identity{}, err
	}
	defer hub.Close()
	return s.id.next(ctx, hub)
}

// next asks for the certificate after this one, of a new key.
func (id Identity) next(ctx context.Context, conn *grpc.ClientConn) (Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	key, csr, err := newKey()
	if err != nil {
		return Identity{}, err
	}
	r, err := syncv1.NewSyncServiceClient(conn).Renew(ctx, &syncv1.RenewRequest{Csr: csr})
	if err != nil {
		return Identity{}, fmt.Errorf("ask for the next certificate: %w", err)
	}
	next, err := newIdentity(id.Cluster, id.Addr, key, r.GetCertificate(), r.GetAuthorities(), id.fresh)
	next.Via = id.Via
	return next, err
}

// comeBack renews a certificate that expired while the spoke was away. The hub lets it do that, and nothing
// else, for a while; what it says is told with ErrExpired where it does not.
func (c *Client) comeBack(ctx context.Context, id Identity) error {
	expired := fmt.Errorf("%w: %s of %s, on %s", ErrExpired, c.cfg.Dir, id.Cluster, id.NotAfter.Format(time.RFC3339))
	conn, err := id.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	next, err := id.next(ctx, conn)
	if err != nil {
		return fmt.Errorf("%w; %w", expired, wireError{id.Addr, err})
	}
	if err := replaceIdentity(c.cfg.Dir, id, next); err != nil {
		return err
	}
	c.log.Info("the certificate had expired and was renewed", logging.Cluster, id.Cluster, "expired", id.NotAfter, "not_after", next.NotAfter)
	return errRenewed
}

// saveIdentity replaces the file unless somebody joined again in the meantime.
func (s *session) saveIdentity(id Identity) error {
	return replaceIdentity(s.c.cfg.Dir, s.id, id)
}

func replaceIdentity(dir string, old, next Identity) error {
	return locked(dir, func() error {
		now, err := loadIdentity(dir, cmp.Or(old.file, IdentityFile))
		if err != nil {
			return err
		}
		if !bytes.Equal(now.certificate, old.certificate) {
			return errRehello // with the identity that is there now
		}
		next.instance, next.session, next.file, next.Via = now.instance, now.session, now.file, now.Via
		return next.save(dir)
	})
}
