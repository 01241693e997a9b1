package relay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/relayed"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
)

const (
	// queue is how many frames may wait for a spoke that does not read.
	queue       = 64
	welcomeWait = 15 * time.Second
	stable      = time.Minute
	maxBundle   = 512 << 20 // bytes, compressed
)

// errAway: there is no stream to the hub now.
var errAway = errors.New("the hub cannot be reached")

// upstream is the one connection to the hub.
type upstream struct {
	identity *holder
	counts   *counts
	log      *slog.Logger
	stale    chan struct{} // the certificates are to be renewed

	mu       sync.Mutex
	conn     *grpc.ClientConn
	stream   relayv1.RelayService_CarryClient // nil: away
	away     string                           // why
	channels map[uint64]*channel
	last     uint64

	sending sync.Mutex
	said    string // what was said about the present outage; run's
}

// channel is one spoke's.
type channel struct {
	number uint64
	frames chan *channelv1.ConnectResponse
	done   chan struct{} // closed when the hub's end is over; what is in frames still counts
	once   sync.Once
	err    error // why; before done
	hangUp func()
}

func (ch *channel) end(err error) {
	ch.once.Do(func() {
		ch.err = err
		close(ch.done)
	})
}

func newUpstream(h *holder, counts *counts, log *slog.Logger) *upstream {
	return &upstream{identity: h, counts: counts, log: log, stale: make(chan struct{}, 1), away: "the relay has just been started"}
}

func (u *upstream) connected() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stream != nil
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.channels)
}

func (u *upstream) renewSoon() {
	select {
	case u.stale <- struct{}{}:
	default:
	}
}

// run keeps the stream until ctx ends: full jitter below a ceiling that doubles from half a second to half a minute.
func (u *upstream) run(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		started := time.Now()
		err := u.session(ctx)
		if ctx.Err() != nil {
			u.lost(status.Error(codes.Unavailable, "the relay is stopping; try again in a moment"))
			return nil
		}
		reason := status.Convert(err).Message()
		u.lost(status.Errorf(codes.Unavailable, "%v: %s; what runs stays as it is", errAway, reason))
		u.tell(err, reason)
		if time.Since(started) >= stable {
			attempt = 0
		}
		ceiling := 30 * time.Second
		if attempt < 6 {
			ceiling = 500 * time.Millisecond << attempt
		}
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(ceiling)):
		}
	}
}

// tell says once per outage and cause that the hub is away.
func (u *upstream) tell(err error, reason string) {
	level, next := slog.LevelWarn, "nothing here; at the hub, check that `hub serve` runs and is reachable"
	kind := "away"
	if code := status.Code(err); code == codes.Unauthenticated || code == codes.PermissionDenied {
		kind, level, next = "refused", slog.LevelError, "`hub relay invite "+u.identity.now.Load().Name+" --host …` for the hub, then `hub relay join … --force` here"
	}
	if kind == u.said {
		u.log.Debug("the hub is still away", slog.Any(logging.Error, err))
		return
	}
	u.said = kind
	u.log.Log(context.Background(), level, "no connection to the hub: spokes are told so, bundles that are here are served", slog.String(logging.Reason, reason), slog.String("next", next))
}

// lost ends every channel.
func (u *upstream) lost(err error) {
	u.mu.Lock()
	u.stream, u.conn, u.away = nil, nil, status.Convert(err).Message()
	all := u.channels
	u.channels = nil
	u.mu.Unlock()
	for _, ch := range all {
		ch.end(err)
	}
}

func (u *upstream) session(ctx context.Context) error {
	id := u.identity.now.Load()
	conn, err := transport.Dial(id.Hub, id.hubTLS())
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := relayv1.NewRelayServiceClient(conn).Carry(ctx)
	if err != nil {
		return err
	}
	patience := time.AfterFunc(welcomeWait, func() { cancel(fmt.Errorf("no word from the hub within %v", welcomeWait)) })
	m, err := stream.Recv()
	if !patience.Stop() && err != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if m.GetAuthorities() == nil {
		return fmt.Errorf("the hub's first message is no list of authorities but %T; is it of another version?", m.GetFrame())
	}
	if err := u.take(m, nil); err != nil {
		return err
	}
	u.mu.Lock()
	u.conn, u.stream, u.channels, u.last = conn, stream, map[uint64]*channel{}, 0
	u.mu.Unlock()
	u.said = ""
	u.log.Info("connected to the hub", slog.String(logging.Address, id.Hub))
	var bodies relayed.Bodies
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the hub ended the stream")
		}
		if err != nil {
			return err
		}
		if err := u.take(m, &bodies); err != nil {
			return err
		}
	}
}

// take hands a frame to its channel. It never waits for a spoke.
func (u *upstream) take(m *relayv1.CarryResponse, bodies *relayed.Bodies) error {
	switch f := m.GetFrame().(type) {
	case *relayv1.CarryResponse_Authorities:
		stale, err := u.identity.trust(f.Authorities)
		if stale {
			u.renewSoon()
		}
		return err
	case *relayv1.CarryResponse_Body:
		bodies.Sent(sha256.Sum256(f.Body.GetContent()), len(f.Body.GetContent()), f.Body.GetContent())
	case *relayv1.CarryResponse_Referred:
		if len(f.Referred.GetDigest()) != sha256.Size {
			return errors.New("the hub refers to a body by no digest")
		}
		body, found := bodies.Find([sha256.Size]byte(f.Referred.GetDigest()))
		if !found {
			return errors.New("the hub refers to a body that is not here any more")
		}
		u.deliver(m.GetChannel(), &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Sealed{Sealed: &channelv1.Sealed{Body: body, Tag: f.Referred.GetTag()}}})
	case *relayv1.CarryResponse_Challenge:
		u.deliver(m.GetChannel(), &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Challenge{Challenge: f.Challenge}})
	case *relayv1.CarryResponse_Sealed:
		u.deliver(m.GetChannel(), &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Sealed{Sealed: f.Sealed}})
	case *relayv1.CarryResponse_Refused:
		u.deliver(m.GetChannel(), &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Refused{Refused: f.Refused}})
		u.over(m.GetChannel())
	case *relayv1.CarryResponse_Gone:
		u.over(m.GetChannel())
	}
	return nil
}

// over: the hub has ended a channel, and said sealed why.
func (u *upstream) over(number uint64) {
	if ch := u.remove(number); ch != nil {
		ch.end(status.Error(codes.Unavailable, "the hub ended the channel"))
	}
}

func (u *upstream) remove(number uint64) *channel {
	u.mu.Lock()
	defer u.mu.Unlock()
	ch := u.channels[number]
	delete(u.channels, number)
	return ch
}

func (u *upstream) deliver(number uint64, m *channelv1.ConnectResponse) {
	u.mu.Lock()
	ch := u.channels[number]
	u.mu.Unlock()
	if ch == nil {
		return // its spoke has just left
	}
	select {
	case ch.frames <- m:
	default:
		u.counts.slow.Add(1)
		u.remove(number)
		ch.end(status.Errorf(codes.Unavailable, "this spoke does not read: %d messages wait", queue))
		ch.hangUp()
		go u.send(number, &relayv1.CarryRequest{Channel: number, Frame: &relayv1.CarryRequest_Gone{Gone: &relayv1.Gone{}}}) // not here: it may wait for the hub, which may wait for us
	}
}

// open begins a channel for a spoke; hangUp ends its connection.
func (u *upstream) open(open *channelv1.Open, hangUp func()) (*channel, error) {
	// Numbers count up on the wire too.
	u.sending.Lock()
	defer u.sending.Unlock()
	u.mu.Lock()
	stream := u.stream
	if stream == nil {
		defer u.mu.Unlock()
		return nil, status.Error(codes.Unavailable, u.away)
	}
	u.last++
	ch := &channel{number: u.last, frames: make(chan *channelv1.ConnectResponse, queue), done: make(chan struct{}), hangUp: hangUp}
	u.channels[ch.number] = ch
	u.mu.Unlock()
	if err := stream.Send(&relayv1.CarryRequest{Channel: ch.number, Frame: &relayv1.CarryRequest_Open{Open: open}}); err != nil {
		u.remove(ch.number)
		return nil, status.Errorf(codes.Unavailable, "%v", errAway)
	}
	return ch, nil
}

// send passes a frame up; one of a channel that is not there any more is dropped.
func (u *upstream) send(number uint64, m *relayv1.CarryRequest) {
	u.sending.Lock()
	defer u.sending.Unlock()
	u.mu.Lock()
	stream := u.stream
	u.mu.Unlock()
	if stream != nil && number > 0 {
		_ = stream.Send(m) // the receiver knows why, and ends everything
	}
}

// leave: the spoke is gone.
func (u *upstream) leave(ch *channel) {
	if u.remove(ch.number) == ch {
		u.send(ch.number, &relayv1.CarryRequest{Channel: ch.number, Frame: &relayv1.CarryRequest_Gone{Gone: &relayv1.Gone{}}})
	}
}

// connection is the one to the hub; errAway.
func (u *upstream) connection() (*grpc.ClientConn, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn == nil {
		return nil, status.Error(codes.Unavailable, u.away)
	}
	return u.conn, nil
}

// fetch brings a bundle from the hub, compressed.
func (u *upstream) fetch(ctx context.Context, digest fleet.Digest) ([]byte, error) {
	conn, err := u.connection()
	if err != nil {
		return nil, err
	}
	stream, err := relayv1.NewRelayServiceClient(conn).FetchBundle(ctx, &relayv1.FetchBundleRequest{Digest: string(digest)})
	if err != nil {
		return nil, err
	}
	var z []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return z, nil
		}
		if err != nil {
			return nil, err
		}
		if len(z)+len(m.GetData()) > maxBundle {
			return nil, fmt.Errorf("the bundle has over %d bytes", maxBundle)
		}
		z = append(z, m.GetData()...)
	}
}
