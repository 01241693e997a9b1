package syncapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// maxBatch is how many messages are stored in one go, when so many wait.
const maxBatch = 256

// queue is how many messages are read ahead; it bounds what a fast spoke costs in memory.
const queue = 16

// Connect is a spoke's stream: Hello, Welcome, then events and heartbeats up, desired state,
// acknowledgements and heartbeats down. It ends with its context, which the server ends when it stops.
func (s *Service) Connect(stream syncv1.SyncService_ConnectServer) error {
	c, err := s.begin(stream)
	if err != nil {
		return err
	}
	return c.run()
}

// begin greets a spoke and opens its session. A stream waits for as long as it lives in Connect and run, and there are
// many: what they hold meanwhile is little.
func (s *Service) begin(stream syncv1.SyncService_ConnectServer) (*conversation, error) {
	who, err := spoke(stream.Context())
	if err != nil {
		return nil, err
	}
	in := newInbox(stream)
	hello, err := s.awaitHello(stream.Context(), in)
	if err != nil {
		return nil, err
	}
	if hello.GetJournalId() == "" || len(hello.GetJournalId()) > maxJournal {
		return nil, status.Error(codes.InvalidArgument, "Hello without a journal id; is this a spoke of another version?")
	}
	// An identity may have ended since the server looked at it: before Register, so that it does not
	// end the session of the spoke that took its place, and after, when ending it would reach this one.
	if err := s.authorise(who); err != nil {
		return nil, err
	}
	if err := s.opened(who, hello); err != nil {
		return nil, err
	}
	session := s.cfg.Presence.Register(who.Cluster)
	if err := s.authorise(who); err != nil {
		session.Close()
		return nil, err
	}
	c := &conversation{Service: s, who: who, stream: stream, in: in, session: session}
	s.cfg.Log.Info("spoke connected", slog.String(logging.Cluster, string(who.Cluster)), slog.String(logging.Version, line(hello.GetSpokeVersion(), maxName)))
	c.rotation, c.heard = c.cfg.Authority.Changed(), time.Now()
	if err = c.welcome(hello); err == nil {
		err = c.follow()
	}
	if err != nil {
		c.ended(err)
		return nil, err
	}
	return c, nil
}

// ended closes the session and says why it ended.
func (c *conversation) ended(err error) {
	c.session.Close()
	reason := status.Convert(err).Message()
	if cause := context.Cause(c.stream.Context()); cause != nil { // says more than that the context ended
		reason = cause.Error()
		if coded := interface{ GRPCStatus() *status.Status }(nil); errors.As(cause, &coded) {
			reason = coded.GRPCStatus().Message()
		}
	}
	c.cfg.Log.Info("spoke disconnected", slog.String(logging.Cluster, string(c.who.Cluster)), slog.String(logging.Reason, reason))
}

// opened looks whether the session is a copy's, before it takes the place of the one that there is.
func (s *Service) opened(who caller.Caller, hello *syncv1.Hello) error {
	if len(hello.GetInstance()) > maxInstance || (hello.GetInstance() == "") != (hello.GetSession() == 0) {
		return status.Error(codes.InvalidArgument, "Hello: want an instance and the number of its session, or neither")
	}
	err := s.cfg.Identities.Session(who.Cluster, hello.GetInstance(), hello.GetSession(), time.Now())
	switch {
	case errors.Is(err, store.ErrLate):
		s.cfg.Log.Warn("a session that is not above the one before", slog.String(logging.Cluster, string(who.Cluster)), slog.Any(logging.Error, err))
		return status.Errorf(codes.Aborted, "a later session of %s was there already; is its data folder in use twice, or is this spoke older than the one before?", who.Cluster)
	case err != nil:
		return s.failure("record the session of "+string(who.Cluster), err)
	}
	return nil
}

// inbox reads a stream ahead, so that one goroutine can wait for messages and for everything else. It
// ends with the stream.
type inbox struct {
	messages chan *syncv1.ConnectRequest // closed at the end
	err      error                       // why it ended; to be read after messages is closed
}

func newInbox(stream syncv1.SyncService_ConnectServer) *inbox {
	in := &inbox{messages: make(chan *syncv1.ConnectRequest, queue)}
	go func() {
		defer close(in.messages)
		for {
			m, err := stream.Recv()
			if err != nil {
				in.err = err
				return
			}
			select {
			case in.messages <- m:
			case <-stream.Context().Done():
				in.err = stream.Context().Err()
				return
			}
		}
	}()
	return in
}

// end is the stream's result once its messages are at an end.
func (in *inbox) end() error {
	if errors.Is(in.err, io.EOF) {
		return nil
	}
	return in.err
}

func (s *Service) awaitHello(ctx context.Context, in *inbox) (*syncv1.Hello, error) {
	timeout := time.NewTimer(helloTimeout)
	defer timeout.Stop()
	select {
	case m, ok := <-in.messages:
		if !ok {
			return nil, in.end()
		}
		if m.GetHello() == nil {
			return nil, status.Error(codes.InvalidArgument, "the first message must be Hello; is this a spoke of another version?")
		}
		return m.GetHello(), nil
	case <-timeout.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no Hello within %v", helloTimeout)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// conversation is one session of one spoke.
type conversation struct {
	*Service
	who     caller.Caller
	stream  syncv1.SyncService_ConnectServer
	in      *inbox
	session *presence.Session

	rotation <-chan struct{} // closed when the authority changes
	heard    time.Time       // when the spoke said something last
	journal  string          // of the last Hello
	wants    []string        // distributions, by the last Hello
	has      uint64          // the revision that the spoke has, or was sent
	handed   time.Time       // when the re-home that was sent had come in
}

func (c *conversation) run() (err error) {
	defer func() { c.ended(err) }()
	beat := time.NewTicker(c.cfg.Heartbeat)
	defer beat.Stop()
	ended := c.stream.Context().Done()
	for err == nil {
		select {
		case m, ok := <-c.in.messages:
			if !ok {
				return c.in.end()
			}
			err = c.take(m)
		case <-c.session.Done():
			return c.over()
		case <-c.session.Wake():
			err = c.tell() // the server asks the record for each message
		case <-c.rotation:
			err = c.askToRenew()
		case <-beat.C:
			err = c.beat()
		case <-ended:
			return c.stream.Context().Err()
		}
	}
	return err
}

// over is the status of a session that was ended from elsewhere.
func (c *conversation) over() error {
	if errors.Is(c.session.Err(), presence.ErrSuperseded) {
		return status.Errorf(codes.Aborted, "a newer session of %s took over", c.who.Cluster)
	}
	return ended(c.who.Cluster)
}

func (c *conversation) send(m *syncv1.ConnectResponse) error { return c.stream.Send(m) }

// welcome answers the first Hello.
func (c *conversation) welcome(hello *syncv1.Hello) error {
	if err := c.hear(hello); err != nil {
		return err
	}
	acked, err := c.cfg.Reports.AckedSeq(c.who.Cluster, c.journal)
	if err != nil {
		return c.failure("look up the acknowledged events of "+string(c.who.Cluster), err)
	}
	err = c.send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Welcome{Welcome: &syncv1.Welcome{
		Cluster: string(c.who.Cluster), Epoch: c.session.Epoch, AckedSeq: acked, HubVersion: c.cfg.Version,
		HeartbeatSeconds: uint32(max(1, c.cfg.Heartbeat/time.Second)), ReconnectWithinSeconds: c.reconnectWithin(),
	}}})
	if err != nil {
		return err
	}
	return c.tell()
}

// pulse is a heartbeat that was encoded for all who have one to get in the same second.
type pulse struct {
	second  int64
	message mem.BufferSlice
}

// beat sends a heartbeat, unless the spoke has sent nothing for too long.
func (c *conversation) beat() error {
	now := time.Now()
	if patience := missedHeartbeats * c.cfg.Heartbeat; now.Sub(c.heard) >= patience {
		return status.Errorf(codes.DeadlineExceeded, "nothing heard from %s for %v", c.who.Cluster, patience)
	}
	if err := c.authorise(c.who); err != nil {
		return err
	}
	p := c.pulse.Load()
	if p == nil || p.second != now.Unix() {
		message, err := wire.Encode(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Heartbeat{Heartbeat: &syncv1.Heartbeat{
			At: wire.Time(now), ReconnectWithinSeconds: c.reconnectWithin()}}})
		if err != nil {
			return err
		}
		p = &pulse{now.Unix(), message}
		c.pulse.Store(p)
	}
	return c.stream.SendMsg(p.message)
}

// reconnectWithin is what spokes are told for the time when they are all cut off.
func (s *Service) reconnectWithin() uint32 {
	if s.cfg.ReconnectWithin == nil {
		return 0
	}
	return uint32((s.cfg.ReconnectWithin() + time.Second - 1) / time.Second)
}

// tell sends what is news to the spoke.
func (c *conversation) tell() error {
	if err := c.offer(); err != nil {
		return err
	}
	return c.reHome()
}

// follow asks for a renewal where the authority is rotated and the spoke's certificate is of the old key.
func (c *conversation) follow() error {
	pins := c.cfg.Authority.Pins()
	if len(pins) == 1 {
		return nil
	}
	id, err := c.cfg.Identities.Identity(c.who.Fingerprint)
	switch {
	case err != nil:
		return c.failure("look up the identity of "+string(c.who.Cluster), err)
	case id.Issuer == pins[len(pins)-1]:
		return nil
	}
	return c.askToRenew()
}

// askToRenew gives a fleet some heartbeats' time, so that it does not come at once.
func (c *conversation) askToRenew() error {
	c.rotation = c.cfg.Authority.Changed()
	const beats = 6
	within := uint32(max(1, beats*c.cfg.Heartbeat/time.Second))
	return c.send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Renewal{Renewal: &syncv1.Renewal{WithinSeconds: within}}})
}

// hear stores what a Hello says.
func (c *conversation) hear(hello *syncv1.Hello) error {
	subs, err := subscriptions(hello.GetSubscriptions())
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "Hello of %s: %v", c.who.Cluster, err)
	}
	err = c.cfg.Reports.Hello(c.who.Cluster, line(hello.GetSpokeVersion(), maxName), line(hello.GetKubernetesVersion(), maxName), subs)
	if err != nil {
		return c.failure("store the subscriptions of "+string(c.who.Cluster), err)
	}
	c.journal, c.has, c.wants = hello.GetJournalId(), hello.GetRevision(), nil
	for _, i := range subs {
		c.wants = append(c.wants, i.Distribution)
	}
	c.cfg.Presence.Changed()
	return nil
}

// offer sends the desired state unless the spoke has it.
func (c *conversation) offer() error {
	state, err := c.cfg.Offers.Offers(c.who.Cluster, c.wants)
	if err != nil {
		return c.failure("work out the offers for "+string(c.who.Cluster), err)
	}
	if state.Revision == c.has {
		return nil
	}
	if err := c.stream.SendMsg(state.Encode()); err != nil {
		return err
	}
	c.has = state.Revision
	c.offersSent.Add(1)
	c.cfg.Log.Debug("sent desired state", slog.String(logging.Cluster, string(c.who.Cluster)), slog.Uint64(logging.Revision, state.Revision))
	return nil
}

// reHome hands over the statement that moves this spoke to another hub, once, while it has no answer.
func (c *conversation) reHome() error {
	r, found, err := c.cfg.Reports.ReHome(c.who.Cluster)
	if err != nil {
		return c.failure("look for a re-home of "+string(c.who.Cluster), err)
	}
	if !found || r.State(time.Now()) != fleet.ReHomeWaiting || r.Sent.Equal(c.handed) {
		return nil
	}
	c.handed = r.Sent
	return c.send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_ReHome{ReHome: &syncv1.SignedReHome{Signed: r.Signed}}})
}

// take handles first and whatever else is already readable, so that a burst of events is one write.
// The server has asked the record about the caller for each message that is read.
func (c *conversation) take(first *syncv1.ConnectRequest) error {
	now := time.Now()
	c.heard = now
	c.cfg.Presence.Seen(c.who.Cluster, now)
	var events []fleet.Event
	for m, n := first, 1; m != nil; n++ {
		switch body := m.GetBody().(type) {
		case *syncv1.ConnectRequest_Event:
			if body.Event.GetSeq() == 0 {
				return status.Error(codes.InvalidArgument, "an event without a number; events count from 1")
			}
			events = append(events, event(c.who.Cluster, body.Event, now))
		case *syncv1.ConnectRequest_Heartbeat:
			if at := body.Heartbeat.GetAt(); at.IsValid() && at.GetSeconds() > 0 {
				c.cfg.Presence.Clock(c.who.Cluster, at.AsTime(), now)
			}
		case *syncv1.ConnectRequest_Hello:
			if err := c.record(events); err != nil { // they belong to the journal before
				return err
			}
			events = nil
			if err := c.again(body.Hello); err != nil {
				return err
			}
		}
		if m = nil; n < maxBatch {
			m = c.readable()
		}
	}
	return c.record(events)
}

// readable is the next message that needs no waiting; nil for none.
func (c *conversation) readable() *syncv1.ConnectRequest {
	select {
	case m := <-c.in.messages: // nil when closed; run sees the end next
		return m
	default:
		return nil
	}
}

// again answers a Hello that is not the first: the subscriptions changed.
func (c *conversation) again(hello *syncv1.Hello) error {
	if hello.GetJournalId() != c.journal {
		return status.Error(codes.InvalidArgument, "a Hello with another journal id; open a new stream")
	}
	if err := c.hear(hello); err != nil {
		return err
	}
	return c.offer()
}

// record stores events and acknowledges them.
func (c *conversation) record(events []fleet.Event) error {
	if len(events) == 0 {
		return nil
	}
	select {
	case <-c.session.Done():
		// Late words of a session that was ended: the newer one sends what is still true.
		return c.over()
	default:
	}
	acked, err := c.cfg.Reports.RecordEvents(c.who.Cluster, c.journal, events)
	if err != nil {
		return c.failure("store the events of "+string(c.who.Cluster), err)
	}
	c.events.Add(uint64(len(events)))
	c.cfg.Presence.Changed()
	return c.send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: acked}}})
}
