package hubclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/relayed"
	"github.com/wheelwright-dev/wheelwright/pkg/sealed"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const (
	window      = 256 // events sent and not yet acknowledged
	batch       = 64  // events read from the journal at once
	welcomeWait = 15 * time.Second
	missedBeats = 3 // heartbeats of silence after which the hub counts as gone
	minBeat     = time.Second
	maxBeat     = 5 * time.Minute
	usualBeat   = 15 * time.Second
)

// session is one stream, from Hello to its end.
type session struct {
	c        *Client
	id       Identity
	conn     *grpc.ClientConn
	stream   conversation
	beat     time.Duration
	revision uint64 // of the last desired state that was taken; the receiver's
	lastWord atomic.Int64
	acks     chan struct{}      // there is room in the window again
	early    chan time.Duration // the hub asks for a renewal within it

	mu          sync.Mutex
	sent, acked uint64
}

// session runs one stream and says why it ended; never nil.
func (c *Client) session(ctx context.Context) error {
	// Read each time: `spoke join --force` may replace it under a running spoke.
	id, err := LoadIdentity(c.cfg.Dir)
	if err != nil {
		return err
	}
	if time.Now().After(id.NotAfter) {
		return c.comeBack(ctx, id)
	}
	hello, err := c.cfg.Hello()
	if err != nil {
		return errLocal{fmt.Errorf("say hello to the hub: %w", err)}
	}
	if id.fresh { // revisions of another hub, or of another cluster's offers, say nothing here
		hello = proto.CloneOf(hello)
		hello.Revision = 0
	}
	conn, err := id.dialNearest(c.resumed.of(id))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g, ctx := errgroup.WithContext(ctx)
	s := &session{c: c, id: id, conn: conn, acks: make(chan struct{}, 1), early: make(chan time.Duration, 1), revision: hello.GetRevision()}
	welcome := time.AfterFunc(welcomeWait, func() { cancel(fmt.Errorf("no welcome within %s", welcomeWait)) })
	w, err := s.greet(ctx, hello)
	if !welcome.Stop() && err != nil {
		err = context.Cause(ctx)
	}
	if errors.Is(err, errRehello) {
		return err
	}
	if err != nil {
		return wireError{id.Addr, err}
	}
	if s.id.Pending { // not any more
		s.id.Pending = false
		if err := s.saveIdentity(s.id); err != nil {
			return err
		}
	}
	if err := c.cfg.Events.Ack(w.GetAckedSeq()); err != nil {
		return errLocal{err}
	}
	s.sent, s.acked = w.GetAckedSeq(), w.GetAckedSeq()
	if s.beat = time.Duration(w.GetHeartbeatSeconds()) * time.Second; s.beat == 0 {
		s.beat = usualBeat
	}
	s.beat = min(max(s.beat, minBeat), maxBeat)
	s.heard()
	s.within(w.GetReconnectWithinSeconds())
	c.found(id, w)
	c.setConn(conn)
	c.connected.Store(true)
	defer func() {
		c.connected.Store(false)
		c.setConn(nil)
	}()
	for _, run := range []func(context.Context) error{s.receive, s.send, s.watch, s.renew, s.rehello, s.moved} {
		g.Go(func() error { return run(ctx) })
	}
	if err := g.Wait(); err != nil {
		return wireError{id.Addr, err}
	}
	return wireError{id.Addr, context.Cause(ctx)}
}

func (s *session) greet(ctx context.Context, hello *syncv1.Hello) (_ *syncv1.Welcome, err error) {
	if s.stream, err = s.open(ctx); err != nil {
		return nil, err
	}
	if s.id, err = s.id.openSession(s.c.cfg.Dir); err != nil {
		return nil, err
	}
	hello = proto.CloneOf(hello)
	hello.Instance, hello.Session = s.id.instance, s.id.session
	if err := s.say(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: hello}}); err != nil && err != io.EOF {
		return nil, err
	}
	m, err := s.stream.Recv() // after an io.EOF of Send this says why
	if err == io.EOF {
		return nil, errors.New("the hub ended the stream without a welcome")
	}
	if err != nil {
		return nil, err
	}
	if m.GetWelcome() == nil {
		return nil, fmt.Errorf("the hub's first message is no welcome but %T", m.GetBody())
	}
	return m.GetWelcome(), nil
}

func (s *session) heard() {
	s.lastWord.Store(time.Now().UnixNano())
	s.c.heard()
}

// within keeps over how long the hub wants its spokes to come back.
func (s *session) within(seconds uint32) {
	if seconds > 0 {
		s.c.within.Store(int64(min(time.Duration(seconds)*time.Second, mostTold)))
	}
}

func (s *session) receive(ctx context.Context) error {
	for {
		m, err := s.stream.Recv()
		if err == io.EOF {
			return errors.New("the hub ended the stream")
		}
		if err != nil {
			return err
		}
		s.heard()
		switch body := m.GetBody().(type) {
		case *syncv1.ConnectResponse_Desired:
			err = s.desired(body.Desired)
		case *syncv1.ConnectResponse_Heartbeat:
			s.within(body.Heartbeat.GetReconnectWithinSeconds())
		case *syncv1.ConnectResponse_Ack:
			err = s.ack(body.Ack.GetSeq())
		case *syncv1.ConnectResponse_Renewal:
			select {
			case s.early <- time.Duration(body.Renewal.GetWithinSeconds()) * time.Second:
			default: // asked already
			}
		case *syncv1.ConnectResponse_ReHome:
			if take := s.c.cfg.OnReHome; take != nil {
				take(body.ReHome.GetSigned())
			}
		case *syncv1.ConnectResponse_Welcome:
			err = errors.New("the hub sent a second welcome")
		}
		if err != nil {
			return err
		}
	}
}

// desired hands over what the hub offers, if it is news. A lower revision is news too: a hub that was
// restored from a backup counts from lower again, and a stream's messages can't overtake each other.
func (s *session) desired(d *syncv1.DesiredState) error {
	if d.GetRevision() == s.revision && !s.id.fresh {
		return nil
	}
	s.c.setSizes(d)
	if err := s.c.cfg.OnDesired(d); err != nil {
		return fmt.Errorf("take revision %d of what the hub offers: %w", d.GetRevision(), err)
	}
	s.c.log.Debug("the hub's offer was taken", logging.Revision, d.GetRevision())
	s.revision = d.GetRevision()
	if !s.id.fresh {
		return nil
	}
	s.id.fresh = false
	return s.saveIdentity(s.id)
}

func (s *session) ack(seq uint64) error {
	s.mu.Lock()
	if seq > s.sent {
		s.mu.Unlock()
		return fmt.Errorf("the hub acknowledged event %d, %d was the last one sent", seq, s.sent)
	}
	s.acked = max(s.acked, seq)
	s.mu.Unlock()
	if err := s.c.cfg.Events.Ack(seq); err != nil {
		return errLocal{err}
	}
	select {
	case s.acks <- struct{}{}:
	default:
	}
	return nil
}

// send owns the stream's sending side: heartbeats, and events in order.
func (s *session) send(ctx context.Context) error {
	tick := time.NewTicker(s.beat)
	defer tick.Stop()
	for {
		err := s.sendPending()
		for err == nil {
			select {
			case <-ctx.Done():
				return nil
			case at := <-tick.C:
				err = s.say(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Heartbeat{Heartbeat: &syncv1.Heartbeat{At: timestamppb.New(at)}}})
				continue
			case <-s.c.cfg.Events.Notify():
			case <-s.acks:
			}
			break
		}
		if errors.Is(err, io.EOF) {
			<-ctx.Done() // the receiver knows why
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) sendPending() error {
	for {
		s.mu.Lock()
		after, room := s.sent, s.window()-int(s.sent-s.acked)
		s.mu.Unlock()
		if room <= 0 {
			return nil
		}
		pending, err := s.c.cfg.Events.Pending(after, min(room, batch))
		if err != nil {
			return errLocal{err}
		}
		if len(pending) == 0 {
			return nil
		}
		for _, ev := range pending {
			s.mu.Lock()
			if s.sent == s.acked { // numbers below were acknowledged before, whatever this hub remembers
				s.acked = ev.Seq - 1
			}
			s.sent = ev.Seq
			s.mu.Unlock()
			if err := s.say(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: wire.Event(ev)}}); err != nil {
				return err
			}
		}
	}
}

// watch ends the session when the hub falls silent, which a lost network may not show otherwise.
func (s *session) watch(ctx context.Context) error {
	limit := missedBeats * s.beat
	for {
		silent := time.Since(time.Unix(0, s.lastWord.Load()))
		if silent >= limit {
			return fmt.Errorf("no word from the hub for %s", silent.Round(time.Second))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(limit - silent):
		}
	}
}

func (s *session) rehello(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.c.rehello:
		return errRehello
	}
}

// diagnose says of which kind a session's end is, how loudly to say so, and what a person can do.
func diagnose(err error) (kind string, level slog.Level, next string) {
	const rejoin = "run `hub cluster invite PROVIDER/NAME` at the hub and the `spoke join` line that it prints here, with --force"
	code := status.Code(err)
	switch refusalOf(err).GetKind() {
	case syncv1.RefusalKind_REFUSAL_KIND_PENDING:
		return "pending", slog.LevelInfo, "nothing here, but to tell the vendor that fingerprint: the spoke asks again by itself"
	case syncv1.RefusalKind_REFUSAL_KIND_QUARANTINED:
		return "quarantined", slog.LevelError, "find the copy of this data folder and stop it; then " + rejoin
	case syncv1.RefusalKind_REFUSAL_KIND_SUPERSEDED:
		return "copied", slog.LevelError, "this data folder is an older copy of another one, or was put back from a backup: " + rejoin
	}
	switch {
	case errors.Is(err, sealed.ErrForged), errors.Is(err, relayed.ErrProtocol):
		return "forged", slog.LevelError, "look at who runs the relay, and lead this spoke around it: `spoke via HOST:PORT` for another one, `spoke via --direct` for none"
	case errors.Is(err, ErrExpired):
		return "expired", slog.LevelError, rejoin
	case errors.Is(err, ErrNotJoined), errors.Is(err, ErrIdentity):
		return "identity", slog.LevelError, rejoin
	case code == codes.Unauthenticated, code == codes.PermissionDenied:
		return "refused", slog.LevelError, "the hub does not know this identity any more: " + rejoin
	case code == codes.ResourceExhausted:
		return "busy", slog.LevelInfo, "nothing here: more spokes come to the hub than it takes at once, and this one comes back by itself"
	case code == codes.Aborted:
		return "superseded", slog.LevelWarn, "another spoke connected with this identity: stop one of the two"
	}
	return "away", slog.LevelWarn, "nothing here; at the hub, check that `hub serve` runs and is reachable"
}
