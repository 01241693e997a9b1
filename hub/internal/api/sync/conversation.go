package syncapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// queue is how many messages of a spoke may wait; it bounds what a fast one costs in memory. They are stored in one go.
const queue = 32

// Connect is a spoke's stream: Hello, Welcome, then events and heartbeats up, desired state,
// acknowledgements and heartbeats down. It ends with its context, which the server ends when it stops.
func (s *Service) Connect(stream syncv1.SyncService_ConnectServer) error {
	c, err := s.Converse(stream)
	for err == nil {
		m := new(syncv1.ConnectRequest)
		if err = c.stream.RecvMsg(m); err == nil { // Recv is the same, and has two frames more on each stack
			err = c.follows(m)
		}
	}
	return c.result(err)
}

// Conversation is one stream of one spoke. Nobody waits for its next message, heartbeat or news but who brings them:
// there are thousands, and they have nothing to say most of the time. One goroutine at a time works on what was
// brought, and ends when there is nothing left. What goes wrong ends the stream's context, with the answer.
type Conversation struct {
	*Service
	who    caller.Caller
	stream syncv1.SyncService_ConnectServer

	mu       sync.Mutex
	changed  sync.Cond // with what is below
	brought  brought
	working  bool
	finished bool // the spoke says nothing more
	closed   bool // nothing more is done

	// Theirs who works.
	timer    *time.Timer       // until the Hello; then the next heartbeat
	session  *presence.Session // nil until the Hello
	rotation <-chan struct{}   // closed when the authority changes
	heard    time.Time         // when the spoke said something last
	turn     time.Time         // when its part of the hub is used up
	journal  string            // of the last Hello
	wants    []string          // distributions, by the last Hello
	has      uint64            // the revision that the spoke has, or was sent
	handed   time.Time         // when the re-home that was sent had come in
}

// brought is what is to be worked on.
type brought struct {
	messages []*syncv1.ConnectRequest
	woken    bool // there may be something new for the spoke
	beat     bool // a heartbeat is due
}

// Converse begins to serve a spoke on its stream, whose context can be ended. Close has to be called at its end.
func (s *Service) Converse(stream syncv1.SyncService_ConnectServer) (*Conversation, error) {
	who, err := spoke(stream.Context())
	if err != nil {
		return nil, err
	}
	c := &Conversation{Service: s, who: who, stream: stream}
	c.changed.L = &c.mu
	c.timer = time.AfterFunc(helloTimeout, func() {
		ending.End(stream.Context(), status.Errorf(codes.DeadlineExceeded, "no Hello within %v", helloTimeout))
	})
	return c, nil
}

// follows is Hear, and waits until another may be brought.
func (c *Conversation) follows(m *syncv1.ConnectRequest) error {
	if err := c.Hear(m); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.brought.messages) == queue && !c.closed {
		c.changed.Wait()
	}
	return nil
}

// result closes a conversation whose stream ended with err, io.EOF where the spoke said all, and is what it is told.
func (c *Conversation) result(err error) error {
	if c == nil {
		return err
	}
	if errors.Is(err, io.EOF) {
		c.Finish()
		err = nil
	}
	c.Close()
	if answer, ended := ending.Answer(c.stream.Context()); ended {
		return answer
	}
	return err
}

// Hear takes a message of the spoke's and does not wait; codes.ResourceExhausted where more than one that keeps to the
// protocol has on its way wait already.
func (c *Conversation) Hear(m *syncv1.ConnectRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.brought.messages) == queue {
		return status.Errorf(codes.ResourceExhausted, "%d messages of %s wait already, which is as many as may", queue, c.who.Cluster)
	}
	c.brought.messages = append(c.brought.messages, m)
	c.workLocked()
	return nil
}

// Finish says that the spoke says nothing more: when all was worked on, its stream is done.
func (c *Conversation) Finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
	c.workLocked()
}

// Woken implements presence.Listener.
func (c *Conversation) Woken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.brought.woken = true
	c.workLocked()
}

// Over implements presence.Listener.
func (c *Conversation) Over(why error) {
	err := ended(c.who.Cluster)
	if errors.Is(why, presence.ErrSuperseded) {
		err = status.Errorf(codes.Aborted, "a newer session of %s took over", c.who.Cluster)
	}
	ending.End(c.stream.Context(), err)
}

func (c *Conversation) due() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.brought.beat = true
	c.workLocked()
}

// Close ends the session, when nobody works on it any more. What a spoke said before it finished is still worked on.
func (c *Conversation) Close() {
	c.mu.Lock()
	c.closed = c.closed || !c.finished || c.stream.Context().Err() != nil
	c.changed.Broadcast()
	for c.working {
		c.changed.Wait()
	}
	c.closed = true
	c.mu.Unlock()
	c.timer.Stop()
	if c.session == nil {
		return
	}
	c.session.Close()
	reason := "the spoke left"
	if cause := context.Cause(c.stream.Context()); cause != nil {
		reason = status.Convert(cause).Message()
		if answer, ended := ending.Answer(c.stream.Context()); ended && answer != nil {
			reason = status.Convert(answer).Message()
		}
	}
	c.cfg.Log.Info("spoke disconnected", slog.String(logging.Cluster, string(c.who.Cluster)), slog.String(logging.Reason, reason))
}

// workLocked has somebody work on what was brought.
func (c *Conversation) workLocked() {
	if !c.working && !c.closed {
		c.working = true
		go c.work()
	}
}

func (c *Conversation) work() {
	for {
		b, some := c.next()
		if !some {
			return
		}
		if err := c.attend(b); err != nil {
			if _, coded := status.FromError(err); !coded && c.stream.Context().Err() == nil {
				err = c.failure("serve "+string(c.who.Cluster), err)
			}
			ending.End(c.stream.Context(), err)
			c.rest()
			return
		}
	}
}

// next is what to work on, all of it; without any, who works is done.
func (c *Conversation) next() (b brought, some bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, c.brought = c.brought, brought{}
	if some = len(b.messages) > 0 || b.woken || b.beat; some && !c.closed {
		c.changed.Broadcast()
		return b, true
	}
	if c.finished && !c.closed {
		c.closed = true
		ending.End(c.stream.Context(), nil)
	}
	c.working = false
	c.changed.Broadcast()
	return b, false
}

// rest is after what ends the stream.
func (c *Conversation) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.working, c.brought = true, false, brought{}
	c.changed.Broadcast()
}

// attend works on what was brought. Its error is the stream's end.
func (c *Conversation) attend(b brought) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.cfg.Log.Error("serving a spoke panicked", slog.String(logging.Cluster, string(c.who.Cluster)), slog.Any(logging.Error, p), slog.String("stack", string(debug.Stack())))
			err = status.Error(codes.Internal, "the hub has a fault here; its log has the details")
		}
	}()
	if len(b.messages) > 0 {
		if err := c.take(b.messages); err != nil {
			return err
		}
	}
	if b.woken {
		if err := c.tell(); err != nil { // the server asks the record for each message
			return err
		}
	}
	if b.beat {
		return c.beat()
	}
	return nil
}
