package relayapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/sealed"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// channel is one spoke's stream, made of a relay's frames. It is the stream that the spoke is served on.
type channel struct {
	grpc.ServerStream // nil: headers and trailers are not carried
	carrier           *carrier
	number            uint64
	ticket            identity.RelayTicket
	ctx               context.Context  // can be ended
	down              sealed.Direction // theirs who say something on the stream, one at a time

	// The receiver's, but for proven, which is under the carrier's mu.
	up      sealed.Direction
	proven  bool
	closed  bool
	spoke   Conversation // nil until it is proven
	silence *time.Timer  // until then
}

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
	ch.ctx = ending.With(caller.With(c.ctx, who))
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
	ending.End(ch.ctx, nil)
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
		if err := ch.begin(); err != nil {
			ch.fail(err)
			return
		}
	}
	if m.GetEnd() {
		ch.closed = true
		ch.spoke.Finish()
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
	if err := ch.spoke.Hear(said); err != nil {
		ch.carrier.log.Warn("a spoke says more than it waits to be answered", slog.String(logging.Cluster, ch.cluster()))
		ch.fail(err)
	}
}

// begin has the spoke served: by now it is the spoke. The end of its context has the last word said.
func (ch *channel) begin() (err error) {
	ch.silence.Stop()
	c := ch.carrier
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return status.Error(codes.Unavailable, "the relay's stream has ended; try again in a moment")
	}
	if ch.spoke, err = c.cfg.Spokes(ch); err != nil {
		return err
	}
	ch.proven = true
	c.served.Add(1)
	context.AfterFunc(ch.ctx, ch.finish)
	return nil
}

// fail ends the channel with an answer.
func (ch *channel) fail(err error) {
	ending.End(ch.ctx, err)
	if ch.closed = true; !ch.proven {
		ch.silence.Stop()
		ch.abandon(status.Convert(err).Message())
	}
}

// gone: the relay says that the spoke left.
func (ch *channel) gone() {
	if ch.closed {
		return
	}
	ch.closed = true
	ending.End(ch.ctx, status.Error(codes.Canceled, "the spoke left, or the relay says so"))
	if !ch.proven {
		ch.silence.Stop()
	}
	ch.abandon("the spoke left")
}

// stop is for a carrier that ends.
func (ch *channel) stop(err error) {
	ch.silence.Stop()
	ending.End(ch.ctx, away(err))
}

// away is what spokes are told whose relay's stream ends.
func away(cause error) error {
	return status.Error(codes.Unavailable, status.Convert(cause).Message()+"; try again in a moment")
}

func (ch *channel) cluster() string {
	who, _ := caller.From(ch.ctx)
	return string(who.Cluster)
}

// finish has the last word, when nobody else says anything. It is sealed too: a relay cannot tell a spoke that it was
// removed.
func (ch *channel) finish() {
	defer ch.carrier.served.Done()
	ch.spoke.Close()
	if body, err := proto.Marshal(status.Convert(ch.result()).Proto()); err == nil {
		sum := sha256.Sum256(body)
		if tag, sealErr := ch.down.Seal(sum, true); sealErr == nil {
			_ = ch.carrier.say(ch.number, body, sum, tag, true) // who is gone is not told
		}
	}
	ch.carrier.drop(ch)
}

// result is what the spoke is told at the end.
func (ch *channel) result() error {
	if err, ended := ending.Answer(ch.ctx); ended {
		return err
	}
	return away(context.Cause(ch.ctx))
}

// Context ends with the channel, and carries the spoke as its caller.
func (ch *channel) Context() context.Context { return ch.ctx }

// Recv is not for who is told what comes by itself.
func (ch *channel) Recv() (*syncv1.ConnectRequest, error) {
	return nil, status.Error(codes.Internal, "a channel's messages are brought, not read")
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
func (ch *channel) RecvMsg(any) error {
	_, err := ch.Recv()
	return err
}
