package relay

import (
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
)

const (
	// openWait is how long a spoke may be silent before it opens a channel.
	openWait = 10 * time.Second
	// maxTicket and maxNonce bound what is passed up before the hub has looked at it, in bytes.
	maxTicket = 512
	maxNonce  = 64
)

// channels implements ChannelService.
type channels struct {
	channelv1.UnimplementedChannelServiceServer
	hub *upstream
	log *slog.Logger
}

// Connect carries one channel. What it ends with is the relay's own word.
func (s *channels) Connect(stream channelv1.ChannelService_ConnectServer) error {
	hangUp := func() {}
	address := "an unknown address"
	if p, ok := peer.FromContext(stream.Context()); ok {
		address = p.Addr.String()
		if f, ok := p.Addr.(from); ok {
			hangUp = func() { _ = f.conn.Close() }
		}
	}
	patience := time.AfterFunc(openWait, hangUp)
	m, err := stream.Recv()
	patience.Stop()
	if err != nil {
		return err
	}
	open := m.GetOpen()
	if open == nil || len(open.GetTicket()) > maxTicket || len(open.GetNonce()) > maxNonce {
		return status.Error(codes.InvalidArgument, "the first frame must open the channel; is this a spoke of another version?")
	}
	ch, err := s.hub.open(open, hangUp)
	if err != nil {
		return err
	}
	defer s.hub.leave(ch)
	s.log.Debug("channel opened", slog.String(logging.Address, address), slog.Uint64("channel", ch.number))
	left := make(chan error, 1)
	go func() { left <- s.up(stream, ch) }()
	err = s.down(stream, ch, left)
	s.log.Debug("channel ended", slog.String(logging.Address, address), slog.Uint64("channel", ch.number), slog.String(logging.Reason, status.Convert(err).Message()))
	return err
}

// up passes on what the spoke says, until it leaves.
func (s *channels) up(stream channelv1.ChannelService_ConnectServer, ch *channel) error {
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if m.GetSealed() == nil {
			return status.Error(codes.InvalidArgument, "a frame that is neither the first nor sealed")
		}
		select {
		case <-ch.done:
			return nil
		default:
		}
		s.hub.send(ch.number, &relayv1.CarryRequest{Channel: ch.number, Frame: &relayv1.CarryRequest_Sealed{Sealed: m.GetSealed()}})
	}
}

// down passes on what the hub says, to its last word.
func (s *channels) down(stream channelv1.ChannelService_ConnectServer, ch *channel, left <-chan error) error {
	for {
		select {
		case m := <-ch.frames:
			if err := stream.Send(m); err != nil {
				return err
			}
			continue
		case err := <-left:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-ch.done:
		}
		for {
			select {
			case m := <-ch.frames:
				if err := stream.Send(m); err != nil {
					return err
				}
				continue
			default:
			}
			return ch.err
		}
	}
}
