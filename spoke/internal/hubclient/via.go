package hubclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/relayed"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// conversation is one with the hub, on a connection to it or through a relay.
type conversation interface {
	Send(*syncv1.ConnectRequest) error
	Recv() (*syncv1.ConnectResponse, error)
}

const (
	// relayedWindow is less than what the hub lets wait of a spoke behind a relay, where nothing holds a sender back.
	relayedWindow = 24
	// ticketMargin is how long before its end a ticket is not used any more.
	ticketMargin = time.Minute
)

func (s *session) window() int {
	if s.id.Via != "" {
		return relayedWindow
	}
	return window
}

// CheckVia checks what a relay is to be dialled by; empty is none.
func CheckVia(via string) error {
	if via == "" {
		return nil
	}
	if host, port, err := net.SplitHostPort(via); err != nil || host == "" || port == "" {
		return fmt.Errorf("relay address %q: want HOST:PORT", via)
	}
	return nil
}

// SetVia has the spoke in dir reach its hub through a relay from now on, also one that runs; empty: directly. Its
// identity stays the same.
func SetVia(dir, via string) (Identity, error) {
	if err := CheckVia(via); err != nil {
		return Identity{}, err
	}
	var id Identity
	err := locked(dir, func() (err error) {
		if id, err = LoadIdentity(dir); err != nil {
			return err
		}
		id.Via = via
		return id.save(dir)
	})
	return id, err
}

// dial prepares a connection that ends at the hub, whatever it goes through.
func (id Identity) dial() (*grpc.ClientConn, error) { return id.dialHub(nil) }

func (id Identity) dialHub(resumed tls.ClientSessionCache) (*grpc.ClientConn, error) {
	cfg, err := id.tls()
	if err != nil {
		return nil, err
	}
	cfg.ClientSessionCache = resumed
	return transport.Dial(id.Addr, cfg, transport.Through(id.Via))
}

// dialNearest prepares a connection to who carries streams and has bundles: the relay, where there is one. resumed: the
// TLS sessions that it may go on with; nil: none.
func (id Identity) dialNearest(resumed tls.ClientSessionCache) (*grpc.ClientConn, error) {
	if id.Via == "" {
		return id.dialHub(resumed)
	}
	cfg, err := id.tls()
	if err != nil {
		return nil, err
	}
	cfg.ClientSessionCache, cfg.NextProtos, cfg.VerifyConnection = resumed, []string{transport.RelayProtocol}, transport.IsRelay
	return transport.Dial(id.Via, cfg)
}

// tickets keeps the one that there is, in memory only.
type tickets struct {
	mu          sync.Mutex
	ticket      relayed.Ticket
	certificate []byte // that it is good for
}

// have is a ticket of this identity, from the hub itself where there is none.
func (t *tickets) have(ctx context.Context, id Identity) (relayed.Ticket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if bytes.Equal(t.certificate, id.certificate) && time.Until(t.ticket.Until) > ticketMargin {
		return t.ticket, nil
	}
	hub, err := id.dial()
	if err != nil {
		return relayed.Ticket{}, err
	}
	defer hub.Close()
	if t.ticket, err = relayed.Ask(ctx, hub); err != nil {
		t.certificate = nil
		return relayed.Ticket{}, err
	}
	t.certificate = id.certificate
	return t.ticket, nil
}

func (t *tickets) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.certificate = nil
}

// open begins the conversation. A ticket that is refused is asked for anew, once: the hub says then what there is to say.
func (s *session) open(ctx context.Context) (conversation, error) {
	if s.id.Via == "" {
		return syncv1.NewSyncServiceClient(s.conn).Connect(ctx)
	}
	for again := false; ; again = true {
		t, err := s.c.tickets.have(ctx, s.id)
		if err != nil {
			return nil, err
		}
		opened, err := relayed.Open(ctx, s.conn, t)
		if err == nil {
			return opened, nil
		}
		if !errors.Is(err, relayed.ErrRefused) {
			return nil, err
		}
		if s.c.tickets.drop(); again {
			return nil, err
		}
	}
}

// moved ends the session when the way to the hub is another one: `spoke via` may be run beside a running spoke.
func (s *session) moved(ctx context.Context) error {
	tick := time.NewTicker(s.beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if id, err := LoadIdentity(s.c.cfg.Dir); err == nil && id.Via != s.id.Via {
			return errRehello
		}
	}
}
