package syncapi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// greet answers the first message, which has to be a Hello, and opens the session.
func (c *Conversation) greet(m *syncv1.ConnectRequest) error {
	hello := m.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "the first message must be Hello; is this a spoke of another version?")
	}
	c.timer.Stop()
	if hello.GetJournalId() == "" || len(hello.GetJournalId()) > maxJournal {
		return status.Error(codes.InvalidArgument, "Hello without a journal id; is this a spoke of another version?")
	}
	// An identity may have ended since the server looked at it: before Register, so that it does not
	// end the session of the spoke that took its place, and after, when ending it would reach this one.
	if err := c.authorise(c.who); err != nil {
		return err
	}
	if err := c.opened(c.who, hello); err != nil {
		return err
	}
	c.rotation, c.heard = c.cfg.Authority.Changed(), time.Now()
	c.session = c.cfg.Presence.Register(c.who.Cluster, c)
	if err := c.authorise(c.who); err != nil {
		return err
	}
	c.cfg.Log.Info("spoke connected", slog.String(logging.Cluster, string(c.who.Cluster)), slog.String(logging.Version, line(hello.GetSpokeVersion(), maxName)))
	c.timer = time.AfterFunc(c.cfg.Heartbeat, c.due)
	if err := c.welcome(hello); err != nil {
		return err
	}
	return c.follow()
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

// What a spoke may say: so many messages at once, and then so many a second. One that says more is read later, and so
// kept from sending: nothing is lost, and the rest of the fleet has its part of the hub.
const (
	messageBurst = 4096
	messageRate  = 2000
	// helloWeight is what a Hello counts for, in messages: it may be answered with everything that is offered.
	helloWeight = 256
)

// pace waits where a spoke has said more than its part.
func (c *Conversation) pace(messages int, now time.Time) {
	const each = time.Second / messageRate
	if full := now.Add(-messageBurst * each); c.turn.Before(full) {
		c.turn = full
	}
	c.turn = c.turn.Add(time.Duration(messages) * each)
	wait := c.turn.Sub(now)
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.stream.Context().Done():
	}
}

func (c *Conversation) send(m *syncv1.ConnectResponse) error { return c.stream.Send(m) }

// welcome answers the first Hello.
func (c *Conversation) welcome(hello *syncv1.Hello) error {
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
func (c *Conversation) beat() error {
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
	c.timer.Reset(c.cfg.Heartbeat)
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
func (c *Conversation) tell() error {
	select {
	case <-c.rotation:
		if err := c.askToRenew(); err != nil {
			return err
		}
	default:
	}
	if err := c.offer(); err != nil {
		return err
	}
	return c.reHome()
}

// Run wakes every spoke when the authority changes, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	changed := s.cfg.Authority.Changed()
	for {
		select {
		case <-changed:
			changed = s.cfg.Authority.Changed()
			s.cfg.Presence.WakeAll()
		case <-ctx.Done():
			return nil
		}
	}
}

// follow asks for a renewal where the authority is rotated and the spoke's certificate is of the old key.
func (c *Conversation) follow() error {
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
func (c *Conversation) askToRenew() error {
	c.rotation = c.cfg.Authority.Changed()
	const beats = 6
	within := uint32(max(1, beats*c.cfg.Heartbeat/time.Second))
	return c.send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Renewal{Renewal: &syncv1.Renewal{WithinSeconds: within}}})
}

// hear stores what a Hello says.
func (c *Conversation) hear(hello *syncv1.Hello) error {
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
func (c *Conversation) offer() error {
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
func (c *Conversation) reHome() error {
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

// take handles messages, so that a burst of events is one write.
// The server has asked the record about the caller for each message that is read.
func (c *Conversation) take(messages []*syncv1.ConnectRequest) error {
	now, said := time.Now(), len(messages)
	if c.session == nil {
		if err := c.greet(messages[0]); err != nil {
			return err
		}
		messages = messages[1:]
	}
	c.heard = now
	c.cfg.Presence.Seen(c.who.Cluster, now)
	defer func() { c.pace(said, now) }()
	var events []fleet.Event
	for _, m := range messages {
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
			said += helloWeight
			if err := c.again(body.Hello); err != nil {
				return err
			}
		}
	}
	return c.record(events)
}

// again answers a Hello that is not the first: the subscriptions changed.
func (c *Conversation) again(hello *syncv1.Hello) error {
	if hello.GetJournalId() != c.journal {
		return status.Error(codes.InvalidArgument, "a Hello with another journal id; open a new stream")
	}
	if err := c.hear(hello); err != nil {
		return err
	}
	return c.offer()
}

// record stores events and acknowledges them.
func (c *Conversation) record(events []fleet.Event) error {
	if len(events) == 0 {
		return nil
	}
	if err := c.stream.Context().Err(); err != nil {
		return err // late words of a session that was ended: the newer one sends what is still true
	}
	acked, err := c.cfg.Reports.RecordEvents(c.who.Cluster, c.journal, events)
	if err != nil {
		return c.failure("store the events of "+string(c.who.Cluster), err)
	}
	c.events.Add(uint64(len(events)))
	c.cfg.Presence.Changed()
	return c.send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: acked}}})
}
