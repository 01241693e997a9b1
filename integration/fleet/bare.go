package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/fleet/bare"
	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
)

// Bare is a bare server in one process, and its clients in another: what a hub is measured against.
type Bare struct {
	server, clients *process
	listening       bare.Listening
	size            int
}

// StartBare starts both. authorities, in PEM, are those of the clients, of which none is connected yet.
func StartBare(ctx context.Context, program, dir string, authorities []byte) (*Bare, error) {
	server, err := start("bare server", program, dir)
	if err != nil {
		return nil, err
	}
	clients, err := start("bare clients", program, dir)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	b := &Bare{server: server, clients: clients}
	if err := server.call(ctx, "BareServer.Listen", authorities, &b.listening); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Connect opens a stream for each identity and returns when all are answered.
func (b *Bare) Connect(ctx context.Context, identities []spokes.Identity) error {
	o := bare.Opening{Listening: b.listening}
	for _, id := range identities {
		o.Certificates, o.Keys = append(o.Certificates, id.Certificate), append(o.Keys, id.Key)
	}
	b.size = len(identities)
	return b.clients.call(ctx, "BareClients.Open", o, nil)
}

// Send sends so many bytes to each stream in a loop; it returns how long it took until the last client had its last.
func (b *Bare) Send(ctx context.Context, size int, within time.Duration) (time.Duration, error) {
	if err := b.clients.call(ctx, "BareClients.Expect", bare.None{}, nil); err != nil {
		return 0, err
	}
	begin := time.Now()
	var streams int
	if err := b.server.call(ctx, "BareServer.Send", size, &streams); err != nil {
		return 0, err
	}
	if streams != b.size {
		return 0, fmt.Errorf("bare server: it has %d streams, want %d", streams, b.size)
	}
	var at time.Time
	err := b.clients.call(ctx, "BareClients.Await", bare.Wanted{Bytes: int64(size) * int64(streams), Within: within}, &at)
	return at.Sub(begin), err
}

// PID of the server.
func (b *Bare) PID() int { return b.server.PID() }

// Close ends both.
func (b *Bare) Close() error { return errors.Join(b.server.Close(), b.clients.Close()) }
