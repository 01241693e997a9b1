package spokes

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	wirev1 "github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// spoke is one of them. Its goroutine is the only one that touches it, but for what is the service's mutex's.
type spoke struct {
	service      *Service
	n            int
	name         string
	distribution string
	journal      string
	instance     string
	opened       uint64 // sessions
	tls          *tls.Config

	// Guarded by service.mu.
	ctx       context.Context
	begun     bool
	connected bool
	counts    string // version that it is counted under as running
	skew      time.Duration
	wire      *wire

	running    string
	digests    map[string]string // of the bundles that are here, by version
	acked, seq uint64
	offers     *syncv1.DistributionOffers
	revision   uint64
	target     *syncv1.Offer
	held       bool          // the target's bundle is here
	welcomed   bool          // in the last session
	within     time.Duration // over which the hub wants its spokes to come back; 0: it did not say
	phase      fleet.Phase
	since      time.Time // the phase began
	reason     string
	failed     map[string]bool
	pending    []*syncv1.Event // not acknowledged
	sent       uint64
}

func (s *Service) newSpoke(n int, id Identity) (*spoke, error) {
	cfg, err := s.config(id)
	if err != nil {
		return nil, err
	}
	named := sha256.Sum256([]byte(id.Name))
	return &spoke{service: s, n: n, name: id.Name, distribution: s.opened.Distributions[n%len(s.opened.Distributions)], journal: rand.Text(),
		instance: hex.EncodeToString(named[:8]), opened: uint64(time.Now().Unix()), tls: cfg, target: &syncv1.Offer{}, failed: map[string]bool{}, digests: map[string]string{}}, nil
}

// session is one stream.
type session struct {
	conn    *grpc.ClientConn
	stream  grpc.BidiStreamingClient[syncv1.ConnectRequest, syncv1.ConnectResponse]
	in      chan *syncv1.ConnectResponse // closed at the end
	err     error                        // why it ended; to be read after in is closed
	fetched chan fetchOf
	retries int
}

// As the real spoke's client has them.
const (
	stable      = time.Minute
	welcomeWait = 15 * time.Second
	missedBeats = 3
	mostTold    = 10 * time.Minute
)

// backoff is the wait after the failed attempt number attempt, from 0: full jitter below a ceiling that doubles
// from 0.5 s to 30 s.
func backoff(attempt int) time.Duration {
	const first, most = 500 * time.Millisecond, 30 * time.Second
	ceiling := most
	if attempt < 6 {
		ceiling = min(most, first<<max(attempt, 0))
	}
	return mathrand.N(ceiling)
}

// retryAfter is what the hub says of when to come back, and whether it does.
func retryAfter(err error) (after time.Duration, told bool) {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok && r.GetRetryDelay().IsValid() {
			return min(max(r.GetRetryDelay().AsDuration(), 0), mostTold), true
		}
	}
	return 0, false
}

// pause is the wait after a session: what the hub said counts as it is; one that had welcomed the spoke said over how
// long its spokes spread themselves, which counts once.
func (s *spoke) pause(err error, attempt int) (wait time.Duration) {
	within := s.within
	s.within = 0
	if after, told := retryAfter(err); told && after > 0 {
		wait = after
	} else if wait = backoff(attempt); within > 0 {
		wait = max(wait, mathrand.N(within))
	}
	if most := s.service.opened.Retry; most > 0 {
		wait = min(wait, mathrand.N(most))
	}
	return wait
}

// run keeps the spoke connected until ctx ends.
func (s *spoke) run(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		started := time.Now()
		s.welcomed = false
		err := s.talk(ctx)
		s.lost(err)
		lasted := s.service.opened.Settled && s.welcomed || time.Since(started) >= stable
		if lasted {
			attempt = 0
		}
		if after, told := retryAfter(err); lasted && told && after == 0 && status.Code(err) == codes.Unavailable {
			attempt = -1 // the hub is well, and wants the next stream at once
			continue
		}
		select {
		case <-time.After(s.pause(err, attempt)):
		case <-ctx.Done():
		}
	}
}

func (s *spoke) found() {
	s.service.mu.Lock()
	defer s.service.mu.Unlock()
	if !s.connected {
		s.connected = true
		s.service.count.Connected++
		s.service.changedLocked()
	}
}

func (s *spoke) lost(err error) {
	s.service.mu.Lock()
	defer s.service.mu.Unlock()
	if err != nil {
		s.service.count.Ended = err.Error()
	}
	s.wire = nil
	if s.connected {
		s.connected = false
		s.service.count.Connected--
		s.service.changedLocked()
	}
}

// recount counts the spoke under what it runs, when the hub knows all that it said.
func (s *spoke) recount() {
	counts := ""
	if s.acked == s.seq {
		counts = s.running
	}
	if counts == s.counts {
		return
	}
	s.service.mu.Lock()
	defer s.service.mu.Unlock()
	if s.counts != "" {
		s.service.count.Running[s.counts]--
	}
	if s.counts = counts; counts != "" {
		s.service.count.Running[counts]++
	}
	s.service.changedLocked()
}

func (s *spoke) clock() time.Time {
	s.service.mu.Lock()
	defer s.service.mu.Unlock()
	return time.Now().Add(s.skew)
}

// talk holds one stream until it ends.
func (s *spoke) talk(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	welcome := time.AfterFunc(welcomeWait, func() { cancel(fmt.Errorf("no welcome within %s", welcomeWait)) })
	defer welcome.Stop()
	stream, err := s.greet(ctx, conn, s.revision)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	t := &session{conn: conn, stream: stream, in: make(chan *syncv1.ConnectResponse), fetched: make(chan fetchOf)}
	go func() {
		defer close(t.in)
		for {
			m, err := stream.Recv()
			if err != nil {
				t.err = err
				return
			}
			select {
			case t.in <- m:
			case <-ctx.Done():
				t.err = context.Cause(ctx)
				return
			}
		}
	}()
	return s.converse(ctx, t, welcome)
}

// greet opens a stream and says hello.
func (s *spoke) greet(ctx context.Context, conn *grpc.ClientConn, revision uint64) (grpc.BidiStreamingClient[syncv1.ConnectRequest, syncv1.ConnectResponse], error) {
	stream, err := syncv1.NewSyncServiceClient(conn).Connect(ctx)
	if err != nil {
		return nil, err
	}
	s.opened++
	err = stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: s.hello(revision)}})
	if errors.Is(err, io.EOF) {
		err = nil // the next Recv says why
	}
	return stream, err
}

func (s *spoke) hello(revision uint64) *syncv1.Hello {
	return &syncv1.Hello{SpokeVersion: "simulated", KubernetesVersion: "simulated", JournalId: s.journal, Revision: revision,
		Instance: s.instance, Session: s.opened, Subscriptions: []*syncv1.SubscriptionStatus{s.status()}}
}

// converse answers the hub, and works on the release that it wants.
func (s *spoke) converse(ctx context.Context, t *session, welcome *time.Timer) error {
	beat, silence := time.NewTicker(time.Hour), time.NewTimer(time.Hour) // until the welcome says
	defer beat.Stop()
	defer silence.Stop()
	patience := time.Hour
	var done <-chan time.Time // the end of what is under way
	for {
		var err error
		select {
		case m, ok := <-t.in:
			if !ok {
				return t.err
			}
			silence.Reset(patience)
			switch body := m.GetBody().(type) {
			case *syncv1.ConnectResponse_Welcome:
				welcome.Stop()
				every := time.Duration(max(1, body.Welcome.GetHeartbeatSeconds())) * time.Second
				beat.Reset(every)
				patience = missedBeats * every
				silence.Reset(patience)
				s.told(body.Welcome.GetReconnectWithinSeconds())
				s.sent = body.Welcome.GetAckedSeq()
				s.ack(body.Welcome.GetAckedSeq())
				s.welcomed = true
				s.found()
				if s.phase == fleet.Promoting {
					done = s.begin(ctx, t)
				}
				err = s.flush(t)
			case *syncv1.ConnectResponse_Heartbeat:
				s.told(body.Heartbeat.GetReconnectWithinSeconds())
			case *syncv1.ConnectResponse_Ack:
				s.ack(body.Ack.GetSeq())
			case *syncv1.ConnectResponse_Desired:
				if s.take(body.Desired) {
					done = s.begin(ctx, t)
				}
				err = s.flush(t)
			}
		case f := <-t.fetched:
			done = s.fetched(ctx, t, f)
		case <-done:
			done = nil
			if !s.held { // a pause after a fetch that failed is over
				done = s.begin(ctx, t)
				break
			}
			s.finish()
			err = s.flush(t)
		case <-beat.C:
			err = t.stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Heartbeat{Heartbeat: &syncv1.Heartbeat{At: wirev1.Time(s.clock())}}})
		case <-silence.C:
			return fmt.Errorf("no word from the hub for %s", patience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if errors.Is(err, io.EOF) {
			for range t.in { // until it says why
			}
			return t.err
		}
		if err != nil {
			return err
		}
	}
}

// fetchOf is how the fetch of an offer's bundle ended.
type fetchOf struct {
	offer *syncv1.Offer
	err   error
}

// told keeps over how long the hub wants its spokes to come back.
func (s *spoke) told(seconds uint32) {
	if seconds > 0 {
		s.within = min(time.Duration(seconds)*time.Second, mostTold)
	}
}

// begin works on the target: its bundle is fetched beside the conversation, then it takes its time.
func (s *spoke) begin(ctx context.Context, t *session) (done <-chan time.Time) {
	if s.held {
		return time.After(s.service.opened.Takes)
	}
	target, have := s.target, fleet.Digest(s.digests[s.running])
	go func() {
		err := s.service.fetch(ctx, syncv1.NewSyncServiceClient(t.conn), target, have)
		select {
		case t.fetched <- fetchOf{target, err}:
		case <-ctx.Done():
		}
	}()
	return nil
}

// fetched goes on with a bundle, or tries again after a pause.
func (s *spoke) fetched(ctx context.Context, t *session, f fetchOf) (done <-chan time.Time) {
	switch {
	case f.offer != s.target: // another release is wanted by now, and its own fetch is under way
		return nil
	case f.err != nil:
		s.service.counted(func(c *Counters) { c.Ended = f.err.Error() })
		t.retries++
		return time.After(backoff(t.retries - 1))
	}
	t.retries, s.held = 0, true
	return s.begin(ctx, t)
}

// take reads what is offered, and says whether something of it is to be begun.
func (s *spoke) take(d *syncv1.DesiredState) (begun bool) {
	s.revision = d.GetRevision()
	for _, o := range d.GetDistributions() {
		if o.GetDistribution() == s.distribution {
			s.offers = o
		}
	}
	want := s.wants()
	if want == "" || want == s.running || s.phase == fleet.Promoting && s.target.GetVersion() == want {
		return false
	}
	// What is withdrawn from may be no offer any more: then there is nothing to fetch.
	s.target, s.held = &syncv1.Offer{Version: want, Digest: s.digests[want]}, true
	for _, o := range s.offers.GetOffers() {
		if o.GetVersion() == want {
			s.target, s.held = o, s.digests[want] == o.GetDigest()
		}
	}
	s.enter(fleet.Promoting, "")
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
	if version := s.target.GetVersion(); s.service.failing(version, s.n) {
		s.failed[version] = true
		s.enter(fleet.RolledBack, "told to fail")
	} else {
		s.running, s.digests[version] = version, s.target.GetDigest()
		s.enter(fleet.Succeeded, "")
	}
}

// enter begins a phase and puts an event with the state of then into the journal. As the real spoke does, it keeps when
// that was: a Hello that says it again is no news to the hub.
func (s *spoke) enter(phase fleet.Phase, reason string) {
	s.phase, s.since, s.reason = phase, time.Now(), reason
	s.seq++
	s.recount()
	s.pending = append(s.pending, &syncv1.Event{Seq: s.seq, At: wirev1.Time(s.since), Kind: syncv1.EventKind_EVENT_KIND_PHASE,
		Distribution: s.distribution, Version: s.target.GetVersion(), Message: string(s.phase), Status: s.status()})
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
	return wirev1.Installation(fleet.Installation{Distribution: s.distribution, Variant: "app", Namespace: "app", Running: s.running,
		Bundle: fleet.Digest(s.digests[s.running]), Phase: s.phase, Target: s.target.GetVersion(), Reason: s.reason, PhaseSince: s.since, Health: health, Objects: 10, Ready: 10, ObservedAt: time.Now(), Wants: wants})
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
	s.acked = max(s.acked, seq)
	s.recount()
}
