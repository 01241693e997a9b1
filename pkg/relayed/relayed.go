// Package relayed is a spoke's end of a channel that a relay carries: it makes of the relay's frames the stream that a
// spoke would have with its hub, and takes nothing for the hub's word that the hub did not seal. What the relay itself
// says is an Interruption, never a status.
package relayed

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/sealed"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

var (
	// ErrRefused: the hub, or so the relay says, takes no channel with this ticket. The hub itself says why when it is
	// asked for another.
	ErrRefused = errors.New("the ticket for the relay was refused")
	// ErrProtocol: the relay does not keep to what was agreed on.
	ErrProtocol = errors.New("the relay broke the protocol")
)

// Interruption is how a channel ended by the relay's word or the network's, about which the hub said nothing.
type Interruption struct{ Reason string }

func (i Interruption) Error() string { return "relay: " + i.Reason }

// Ticket is what channels are opened with, as SyncService.OpenRelayed gave it.
type Ticket struct {
	Sealed []byte
	Key    []byte
	Until  time.Time
}

// Ask gets a ticket from the hub, over a connection that ends at the hub.
func Ask(ctx context.Context, hub grpc.ClientConnInterface) (Ticket, error) {
	r, err := syncv1.NewSyncServiceClient(hub).OpenRelayed(ctx, &syncv1.OpenRelayedRequest{})
	if err != nil {
		return Ticket{}, err
	}
	return Ticket{Sealed: r.GetTicket(), Key: r.GetKey(), Until: r.GetUntil().AsTime()}, nil
}

// Stream is an open channel. One goroutine may send while another receives.
type Stream struct {
	frames   grpc.BidiStreamingClient[channelv1.ConnectRequest, channelv1.ConnectResponse]
	cause    func() error // why the caller ended it; nil: the caller did not
	up, down sealed.Direction
}

// Open opens a channel over a connection to a relay. Errors: ErrRefused, ErrProtocol, Interruption and those of ctx.
func Open(ctx context.Context, relay grpc.ClientConnInterface, t Ticket) (*Stream, error) {
	s := &Stream{cause: func() error { return context.Cause(ctx) }}
	frames, err := channelv1.NewChannelServiceClient(relay).Connect(ctx)
	if err != nil {
		return nil, s.interrupted(err)
	}
	s.frames = frames
	nonce := make([]byte, sealed.NonceSize)
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	open := &channelv1.ConnectRequest{Frame: &channelv1.ConnectRequest_Open{Open: &channelv1.Open{Ticket: t.Sealed, Nonce: nonce}}}
	if err := frames.Send(open); err != nil && err != io.EOF {
		return nil, s.interrupted(err)
	}
	m, err := frames.Recv() // after an io.EOF of Send this says why
	if err != nil {
		return nil, s.interrupted(err)
	}
	switch f := m.GetFrame().(type) {
	case *channelv1.ConnectResponse_Refused:
		return nil, fmt.Errorf("%w: %s", ErrRefused, f.Refused.GetReason())
	case *channelv1.ConnectResponse_Challenge:
		if s.up, s.down, err = sealed.Channel(t.Key, t.Sealed, nonce, f.Challenge.GetNonce()); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		return s, nil
	}
	return nil, fmt.Errorf("%w: a channel was answered with %T", ErrProtocol, m.GetFrame())
}

// Send says something to the hub. io.EOF: the channel is over, and Recv says why.
func (s *Stream) Send(m *syncv1.ConnectRequest) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	tag, err := s.up.Seal(sha256.Sum256(body), false)
	if err != nil {
		return err
	}
	return s.frames.Send(&channelv1.ConnectRequest{Frame: &channelv1.ConnectRequest_Sealed{Sealed: &channelv1.Sealed{Body: body, Tag: tag}}})
}

// Recv is what the hub said next; io.EOF, or the status, with which it ended the channel. Other errors are
// sealed.ErrForged, ErrProtocol, Interruption and those of the context.
func (s *Stream) Recv() (*syncv1.ConnectResponse, error) {
	f, err := s.frames.Recv()
	if err != nil {
		return nil, s.interrupted(err)
	}
	said := f.GetSealed()
	if said == nil {
		return nil, fmt.Errorf("%w: %T in an open channel", ErrProtocol, f.GetFrame())
	}
	if err := s.down.Open(said.GetBody(), said.GetTag(), said.GetEnd()); err != nil {
		return nil, fmt.Errorf("what the relay brought is not the hub's: %w", err)
	}
	if said.GetEnd() {
		return nil, ending(said.GetBody())
	}
	m := &syncv1.ConnectResponse{}
	if err := proto.Unmarshal(said.GetBody(), m); err != nil {
		return nil, fmt.Errorf("decode the hub's message: %w", err)
	}
	return m, nil
}

// ending is the error that the hub ended the channel with.
func ending(body []byte) error {
	end := status.New(0, "").Proto()
	if err := proto.Unmarshal(body, end); err != nil {
		return fmt.Errorf("decode the hub's last message: %w", err)
	}
	if err := status.FromProto(end).Err(); err != nil {
		return err
	}
	return io.EOF
}

// interrupted takes the code and the details off what the relay says: they would pass for the hub's.
func (s *Stream) interrupted(err error) error {
	if cause := s.cause(); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return Interruption{"it ended the channel"}
	}
	return Interruption{status.Convert(err).Message()}
}
