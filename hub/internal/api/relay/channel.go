package relayapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/sealed"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// queue is how many messages of a spoke may wait: more than one that keeps to the protocol has on its way.
const queue = 32

// channel is one spoke's stream, made of a relay's frames. It is the stream that the spoke is served on.
type channel struct {
	grpc.ServerStream // nil: headers and trailers are not carried
	carrier           *carrier
	number            uint64
	ticket            identity.RelayTicket
	ctx               context.Context
	cancel            context.CancelCauseFunc
	down              sealed.Direction // the spoke's goroutine's

	// The receiver's, but for proven, which is under the carrier's mu.
	up       sealed.Direction
	proven   bool
	closed   bool
	messages chan *syncv1.ConnectRequest
	silence  *time.Timer // until it is proven
}

// cut is the cause of a context that ends because the spoke lost the right to speak, or did what it may not: the answer
// to it.
type cut struct{ error }

func (c cut) Unwrap() error { return c.error }

// newChannel looks at a ticket. The error is for the relay, and the spoke asks the hub itself.
func (c *carrier) newChannel(number uint64, open *channelv1.Open) (*channel, []byte, error) {
	if len(open.GetTicket()) > maxTicket {
		return nil, nil, identity.ErrTicket
	}
	ticket, err := c.cfg.Authority.OpenTicket(open.GetTicket(), time.Now())
	if err != nil {
		return nil, nil, err
	}
	who, err := c.cfg.Judge(ticket.Certificate, ticket.Key)
	if err != nil {
		return nil, nil, err
	}
	nonce := make([]byte, sealed.NonceSize)
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	ch := &channel{carrier: c, number: number, ticket: ticket}
	if ch.up, ch.down, err = sealed.Channel(ticket.Secret[:], open.GetTicket(), open.GetNonce(), nonce); err != nil {
		return nil, nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ch.ctx, ch.cancel = context.WithCancelCause(caller.With(c.ctx, who))
	return ch, nonce, nil
}

// await gives the spoke a while for its first message.
func (ch *channel) await() {
	ch.silence = time.AfterFunc(helloTimeout, func() { ch.abandon("no word of the spoke's came") })
}

// abandon ends a channel that was never proven: there is nobody to tell.
func (ch *channel) abandon(why string) {
	ch.carrier.mu.Lock()
	proven := ch.proven
	ch.carrier.mu.Unlock()
	if proven {
		return
	}
	ch.cancel(nil)
	if ch.carrier.drop(ch) {
		ch.carrier.log.Info("channel dropped", slog.String(logging.Reason, why))
	}
}

// take is a frame that the relay says the spoke sent.
func (ch *channel) take(m *channelv1.Sealed) {
	if ch.closed {
		return
	}
	if err := ch.up.Open(m.GetBody(), m.GetTag(), m.GetEnd()); err != nil {
		ch.carrier.log.Error("a relay brought what its spoke did not say", slog.String(logging.Cluster, ch.cluster()), slog.Any(logging.Error, err))
		ch.fail(status.Errorf(codes.DataLoss, "what the relay brought is not this spoke's: %v", err))
		return
	}
	if !ch.proven {
		ch.begin()
	}
	if m.GetEnd() {
		ch.close()
		return
	}
	if _, err := ch.carrier.cfg.Judge(ch.ticket.Certificate, ch.ticket.Key); err != nil {
		ch.fail(err)
		return
	}
	said := &syncv1.ConnectRequest{}
	if err := proto.Unmarshal(m.GetBody(), said); err != nil {
		ch.fail(status.Errorf(codes.InvalidArgument, "a message that this hub cannot read: %v; is this a spoke of another version?", err))
		return
	}
	select {
	case ch.messages <- said:
	default:
		ch.carrier.log.Warn("a spoke says more than it waits to be answered", slog.String(logging.Cluster, ch.cluster()))
		ch.fail(status.Errorf(codes.ResourceExhausted, "%d messages of this spoke wait already, which is as many as may", queue))
	}
}

// begin has the spoke served: by now it is the spoke.
func (ch *channel) begin() {
	ch.silence.Stop()
	ch.messages = make(chan *syncv1.ConnectRequest, queue)
	c := ch.carrier
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch.proven = true; !c.over {
		c.served.Go(ch.serve)
	}
}

// fail ends the channel with an answer.
func (ch *channel) fail(err error) {
	ch.cancel(cut{err})
	if ch.close(); !ch.proven {
		ch.silence.Stop()
		ch.abandon(status.Convert(err).Message())
	}
}

// close says that nothing more comes.
func (ch *channel) close() {
	if ch.closed = true; ch.messages != nil {
		close(ch.messages)
	}
}

// gone: the relay says that the spoke left.
func (ch *channel) gone() {
	if ch.closed {
		return
	}
	if ch.cancel(cut{status.Error(codes.Canceled, "the spoke left, or the relay says so")}); !ch.proven {
		ch.silence.Stop()
	}
	ch.close()
	ch.abandon("the spoke left")
}

// stop is for a carrier that ends.
func (ch *channel) stop(err error) {
	ch.silence.Stop()
	ch.cancel(err)
}

func (ch *channel) cluster() string {
	who, _ := caller.From(ch.ctx)
	return string(who.Cluster)
}

// serve is the one goroutine of a spoke. The last word is sealed too: a relay cannot tell a spoke that it was removed.
func (ch *channel) serve() {
	err := ch.result(ch.serveSafely())
	if body, encodeErr := proto.Marshal(status.Convert(err).Proto()); encodeErr == nil {
		sum := sha256.Sum256(body)
		if tag, sealErr := ch.down.Seal(sum, true); sealErr == nil {
			_ = ch.carrier.say(ch.number, body, sum, tag, true) // who is gone is not told
		}
	}
	ch.cancel(nil)
	ch.carrier.drop(ch)
}

func (ch *channel) serveSafely() (err error) {
	defer func() {
		if p := recover(); p != nil {
			ch.carrier.log.Error("serving a spoke panicked", slog.String(logging.Cluster, ch.cluster()), slog.Any(logging.Error, p))
			err = status.Error(codes.Internal, "the hub has a fault here; its log has the details")
		}
	}()
	return ch.carrier.cfg.Spokes.Relayed(ch, ch.messages)
}

// result is what the spoke is told at the end.
func (ch *channel) result(err error) error {
	var ended cut
	cause := context.Cause(ch.ctx)
	if errors.As(cause, &ended) {
		return ended.error
	}
	if err == nil {
		return nil
	}
	_, coded := status.FromError(err)
	switch {
	case cause != nil: // the relay's stream ends
		return status.Error(codes.Unavailable, status.Convert(cause).Message()+"; try again in a moment")
	case coded:
		return err
	}
	ch.carrier.log.Error("a spoke's channel ended with the hub's own trouble", slog.String(logging.Cluster, ch.cluster()), slog.Any(logging.Error, err))
	return status.Error(codes.Internal, "the hub is in trouble; its log has the cause")
}

// Context ends with the channel, and carries the spoke as its caller.
func (ch *channel) Context() context.Context { return ch.ctx }

// Recv is for who does not read the messages by themselves.
func (ch *channel) Recv() (*syncv1.ConnectRequest, error) {
	select {
	case m, ok := <-ch.messages:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-ch.ctx.Done():
		return nil, ch.ctx.Err()
	}
}

// Send seals a message for the spoke, if it may still be told.
func (ch *channel) Send(m *syncv1.ConnectResponse) error {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	return ch.say(body)
}

func (ch *channel) say(body []byte) error {
	if _, err := ch.carrier.cfg.Judge(ch.ticket.Certificate, ch.ticket.Key); err != nil {
		return err
	}
	if err := ch.ctx.Err(); err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	tag, err := ch.down.Seal(sum, false)
	if err != nil {
		return err
	}
	return ch.carrier.say(ch.number, body, sum, tag, false)
}

// SendMsg is Send, also of what was encoded before.
func (ch *channel) SendMsg(m any) error {
	switch m := m.(type) {
	case *syncv1.ConnectResponse:
		return ch.Send(m)
	case mem.BufferSlice:
		return ch.say(m.Materialize())
	}
	return status.Errorf(codes.Internal, "%T is no message to a spoke", m)
}

// RecvMsg is Recv.
func (ch *channel) RecvMsg(m any) error {
	into, ok := m.(*syncv1.ConnectRequest)
	if !ok {
		return status.Errorf(codes.Internal, "%T is no message of a spoke", m)
	}
	said, err := ch.Recv()
	if err == nil {
		proto.Merge(into, said)
	}
	return err
}
