package simfleet

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// spoke is one of them. Its goroutine is the only writer; mu is for those who look.
type spoke struct {
	fleet   *Fleet
	n       int
	name    string
	journal string
	tls     *tls.Config

	mu         sync.Mutex
	connected  bool
	running    string
	acked, seq uint64
	skew       time.Duration // of its clock

	offers   *syncv1.DistributionOffers
	revision uint64
	target   string
	phase    fleet.Phase
	reason   string
	failed   map[string]bool
	pending  []*syncv1.Event // not acknowledged
	sent     uint64
}

// session is one stream.
type session struct {
	stream grpc.BidiStreamingClient[syncv1.ConnectRequest, syncv1.ConnectResponse]
	in     chan *syncv1.ConnectResponse
}

// retry is the longest wait before a new stream; the real spoke waits longer.
const retry = 500 * time.Millisecond

func (s *spoke) run(ctx context.Context) {
	s.failed = map[string]bool{}
	for ctx.Err() == nil {
		s.talk(ctx)
		s.set(func() { s.connected = false })
		select {
		case <-time.After(rand.N(retry)):
		case <-ctx.Done():
		}
	}
}

func (s *spoke) set(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	s.fleet.changed()
}

func (s *spoke) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.skew)
}

// talk holds one stream until it ends.
func (s *spoke) talk(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := transport.Dial(s.fleet.addr, s.tls)
	if err != nil {
		return
	}
	defer conn.Close()
	stream, err := syncv1.NewSyncServiceClient(conn).Connect(ctx)
	if err != nil {
		return
	}
	hello := &syncv1.Hello{SpokeVersion: "simulated", KubernetesVersion: "simulated", JournalId: s.journal, Revision: s.revision,
		Subscriptions: []*syncv1.SubscriptionStatus{s.status()}}
	if err := stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: hello}}); err != nil {
		return
	}
	t := &session{stream: stream, in: make(chan *syncv1.ConnectResponse, 8)}
	go func() {
		defer close(t.in)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case t.in <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	s.converse(ctx, t)
}

// converse answers the hub, and works on the release that it wants.
func (s *spoke) converse(ctx context.Context, t *session) {
	beat := time.NewTicker(time.Hour) // until the welcome says
	defer beat.Stop()
	var done <-chan time.Time // the end of what is under way
	if s.phase == fleet.Promoting {
		done = time.After(s.fleet.cfg.Takes)
	}
	for {
		var err error
		select {
		case m, ok := <-t.in:
			if !ok {
				return
			}
			switch body := m.GetBody().(type) {
			case *syncv1.ConnectResponse_Welcome:
				beat.Reset(time.Duration(max(1, body.Welcome.GetHeartbeatSeconds())) * time.Second)
				s.sent = body.Welcome.GetAckedSeq()
				s.ack(body.Welcome.GetAckedSeq())
				s.set(func() { s.connected = true })
				err = s.flush(t)
			case *syncv1.ConnectResponse_Ack:
				s.ack(body.Ack.GetSeq())
			case *syncv1.ConnectResponse_Desired:
				if s.take(body.Desired) {
					done = time.After(s.fleet.cfg.Takes)
				}
				err = s.flush(t)
			}
		case <-done:
			done = nil
			s.finish()
			err = s.flush(t)
		case <-beat.C:
			err = t.stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Heartbeat{Heartbeat: &syncv1.Heartbeat{At: wire.Time(s.clock())}}})
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// take reads what is offered, and begins what is wanted of it.
func (s *spoke) take(d *syncv1.DesiredState) (begun bool) {
	s.revision = d.GetRevision()
	for _, o := range d.GetDistributions() {
		if o.GetDistribution() == s.fleet.cfg.Distribution {
			s.offers = o
		}
	}
	want := s.wants()
	if want == "" || want == s.running || s.phase == fleet.Promoting && s.target == want {
		return false
	}
	s.target, s.phase, s.reason = want, fleet.Promoting, ""
	s.say()
	return true
}

// wants is the highest release on offer that has not failed here; where what runs was withdrawn, the one
// that the hub names.
func (s *spoke) wants() string {
	for _, w := range s.offers.GetWithdrawals() {
		if w.GetVersion() == s.running && w.GetTo() != "" {
			return w.GetTo()
		}
	}
	best := s.running
	for _, o := range s.offers.GetOffers() {
		if v := o.GetVersion(); !o.GetPreflight() && !s.failed[v] && (best == "" || fleet.CompareTags(v, best) > 0) {
			best = v
		}
	}
	return best
}

func (s *spoke) finish() {
	if s.fleet.failing(s.target, s.n) {
		s.failed[s.target] = true
		s.phase, s.reason = fleet.RolledBack, "told to fail"
	} else {
		s.phase, s.reason = fleet.Succeeded, ""
		s.set(func() { s.running = s.target })
	}
	s.say()
}

// say puts an event with the present state into the journal.
func (s *spoke) say() {
	s.set(func() { s.seq++ })
	s.pending = append(s.pending, &syncv1.Event{Seq: s.seq, At: wire.Time(time.Now()), Kind: syncv1.EventKind_EVENT_KIND_PHASE,
		Distribution: s.fleet.cfg.Distribution, Version: s.target, Message: string(s.phase), Status: s.status()})
}

func (s *spoke) status() *syncv1.SubscriptionStatus {
	health := fleet.HealthUnknown
	if s.running != "" {
		health = fleet.Healthy
	}
	wants := ""
	if s.offers != nil {
		wants = s.wants()
	}
	return wire.Installation(fleet.Installation{Distribution: s.fleet.cfg.Distribution, Variant: "app", Namespace: "app", Running: s.running,
		Phase: s.phase, Target: s.target, Reason: s.reason, PhaseSince: time.Now(), Health: health, Objects: 10, Ready: 10, ObservedAt: time.Now(), Wants: wants})
}

// flush sends what was not sent on this stream.
func (s *spoke) flush(t *session) error {
	for _, e := range s.pending {
		if e.GetSeq() <= s.sent {
			continue
		}
		if err := t.stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: e}}); err != nil {
			return err
		}
		s.sent = e.GetSeq()
	}
	return nil
}

func (s *spoke) ack(seq uint64) {
	s.pending = slices.DeleteFunc(s.pending, func(e *syncv1.Event) bool { return e.GetSeq() <= seq })
	s.set(func() { s.acked = max(s.acked, seq) })
}
