package syncapi

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// ticketLife is how long channels may be opened without another handshake with the hub. It outlasts a relay's and a
// hub's restart, and is shorter than what the key that tickets are sealed under lasts for.
const ticketLife = 8 * time.Hour

// OpenRelayed gives the calling spoke a key, and a ticket that says so, for channels through a relay.
func (s *Service) OpenRelayed(ctx context.Context, _ *syncv1.OpenRelayedRequest) (*syncv1.OpenRelayedResponse, error) {
	who, err := spoke(ctx)
	if err != nil {
		return nil, err
	}
	t, now := identity.RelayTicket{Certificate: who.Fingerprint, Key: who.Key}, time.Now()
	_, _ = rand.Read(t.Secret[:]) // never fails: crypto/rand ends the process instead
	until := now.Add(ticketLife)
	if until.After(who.NotAfter) {
		until = who.NotAfter
	}
	ticket, err := s.cfg.Tickets.SealTicket(t, now, until)
	if err != nil {
		return nil, s.failure("make a ticket for "+string(who.Cluster), err)
	}
	return &syncv1.OpenRelayedResponse{Ticket: ticket, Key: t.Secret[:], Until: wire.Time(until)}, nil
}
