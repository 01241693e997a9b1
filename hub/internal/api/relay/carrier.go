package relayapi

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/relayed"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
)

const (
	// maxChannels of one relay.
	maxChannels = 20_000
	// helloTimeout is how long a channel may be open without a word that its spoke sealed.
	helloTimeout = 15 * time.Second
	// maxTicket bounds what is taken for a ticket, in bytes.
	maxTicket = 512
)

// carrier is one stream of one relay and the channels on it.
type carrier struct {
	*Service
	who    caller.Caller
	stream relayv1.RelayService_CarryServer
	ctx    context.Context
	cancel context.CancelCauseFunc
	log    *slog.Logger
	served sync.WaitGroup // channels

	mu       sync.Mutex
	channels map[uint64]*channel
	last     uint64 // the highest number of a channel
	over     bool

	sending sync.Mutex
	bodies  relayed.Bodies // that the relay has; under sending
}

func newCarrier(s *Service, who caller.Caller, stream relayv1.RelayService_CarryServer) *carrier {
	c := &carrier{Service: s, who: who, stream: stream, channels: map[uint64]*channel{}, log: s.cfg.Log.With(slog.String(logging.Relay, who.Relay))}
	c.ctx, c.cancel = context.WithCancelCause(stream.Context())
	return c
}

func (c *carrier) run() error {
	received := make(chan error, 1)
	changed := c.cfg.Authority.Changed()
	err := c.tellAuthorities()
	if err == nil {
		go func() { received <- c.receive() }()
	}
	for err == nil {
		select {
		case <-changed:
			changed = c.cfg.Authority.Changed()
			err = c.tellAuthorities()
		case err = <-received:
		case <-c.ctx.Done():
			err = context.Cause(c.ctx)
		}
	}
	c.end(err)
	if _, coded := status.FromError(err); !coded && c.ctx.Err() != nil {
		return c.ctx.Err() // why it ended is the server's to say
	}
	return err
}

func (c *carrier) tellAuthorities() error {
	pins := c.cfg.Authority.Pins()
	return c.send(&relayv1.CarryResponse{Frame: &relayv1.CarryResponse_Authorities{Authorities: &relayv1.Authorities{
		Certificates: c.cfg.Authority.Authorities(), Shown: c.cfg.Authority.Pin(), Issues: pins[len(pins)-1]}}})
}

// end ends every channel, and waits until nobody sends any more. Those whose hub stops are told so.
func (c *carrier) end(err error) {
	c.mu.Lock()
	c.over = true
	all := c.channels
	c.channels = map[uint64]*channel{}
	c.mu.Unlock()
	for _, ch := range all {
		ch.stop(err)
	}
	c.served.Wait()
}

func (c *carrier) count() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.channels {
		if ch.proven {
			n++
		}
	}
	return n
}

func (c *carrier) all() (all []*channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.channels {
		all = append(all, ch)
	}
	return all
}

// receive takes the relay's frames, until one of them is no frame. It never waits for a channel.
func (c *carrier) receive() error {
	for {
		m, err := c.stream.Recv()
		if err != nil {
			return err
		}
		switch f := m.GetFrame().(type) {
		case *relayv1.CarryRequest_Open:
			err = c.open(m.GetChannel(), f.Open)
		case *relayv1.CarryRequest_Sealed:
			if ch := c.find(m.GetChannel()); ch != nil { // otherwise it was on its way when the channel ended
				ch.take(f.Sealed)
			}
		case *relayv1.CarryRequest_Gone:
			if ch := c.find(m.GetChannel()); ch != nil {
				ch.gone()
			}
		default:
			err = status.Errorf(codes.InvalidArgument, "a frame that this hub does not know; is relay %s of another version?", c.who.Relay)
		}
		if err != nil {
			return err
		}
	}
}

func (c *carrier) find(number uint64) *channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.channels[number]
}

// open answers an Open: the ticket is the hub's own, and its spoke may speak. That it is the spoke who opens the
// channel shows with its first message.
func (c *carrier) open(number uint64, open *channelv1.Open) error {
	ch, nonce, err := c.newChannel(number, open)
	if err != nil {
		c.log.Info("channel refused", slog.String(logging.Reason, status.Convert(err).Message()))
		return c.send(&relayv1.CarryResponse{Channel: number, Frame: &relayv1.CarryResponse_Refused{Refused: &channelv1.Refused{Reason: status.Convert(err).Message()}}})
	}
	ch.await()
	c.mu.Lock()
	fits := len(c.channels) < maxChannels && !c.over
	fresh := number > c.last
	if fits && fresh {
		c.channels[number], c.last = ch, number
	}
	c.mu.Unlock()
	switch {
	case !fresh:
		ch.stop(nil)
		return status.Errorf(codes.InvalidArgument, "channel %d after channel %d: relay %s has to count up", number, c.last, c.who.Relay)
	case !fits:
		ch.stop(nil)
		return c.send(&relayv1.CarryResponse{Channel: number, Frame: &relayv1.CarryResponse_Refused{Refused: &channelv1.Refused{Reason: "the relay carries as many spokes as one may"}}})
	}
	return c.send(&relayv1.CarryResponse{Channel: number, Frame: &relayv1.CarryResponse_Challenge{Challenge: &channelv1.Challenge{Nonce: nonce}}})
}

// drop forgets a channel and tells the relay; false where that was done before.
func (c *carrier) drop(ch *channel) bool {
	c.mu.Lock()
	there := c.channels[ch.number] == ch
	if there {
		delete(c.channels, ch.number)
	}
	c.mu.Unlock()
	if there {
		_ = c.send(&relayv1.CarryResponse{Channel: ch.number, Frame: &relayv1.CarryResponse_Gone{Gone: &relayv1.Gone{}}}) // the stream's end says it too
	}
	return there
}

// send is the one way down the stream, for one goroutine at a time.
func (c *carrier) send(m *relayv1.CarryResponse) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.stream.Send(m)
}

// say sends what was sealed for a channel. A body that many spokes are told crosses once, as long as the relay has it.
func (c *carrier) say(number uint64, body []byte, sum [sha256.Size]byte, tag []byte, last bool) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	if len(body) < relayed.SharedSize || last {
		return c.stream.Send(&relayv1.CarryResponse{Channel: number, Frame: &relayv1.CarryResponse_Sealed{Sealed: &channelv1.Sealed{Body: body, Tag: tag, End: last}}})
	}
	if _, has := c.bodies.Find(sum); !has {
		if err := c.stream.Send(&relayv1.CarryResponse{Frame: &relayv1.CarryResponse_Body{Body: &relayv1.Body{Content: body}}}); err != nil {
			return err
		}
		c.bodies.Sent(sum, len(body), nil)
	}
	return c.stream.Send(&relayv1.CarryResponse{Channel: number, Frame: &relayv1.CarryResponse_Referred{Referred: &relayv1.Referred{Digest: sum[:], Tag: tag}}})
}
