package spokes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	wirev1 "github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Manner is how a spoke misbehaves whose identity is good.
type Manner int

const (
	Deaf    Manner = iota // says hello, and never reads again from its connection, which fills
	Hoarder               // asks for the newest bundle again and again, and reads none of them
	Flood                 // reports health as fast as the connection takes it
	Liar                  // has another revision, and runs another bundle, each time that it is asked; and says so with each heartbeat
)

func (m Manner) String() string { return [...]string{"deaf", "hoarder", "flood", "liar"}[m] }

// hoard is how many streams a hoarder opens: one short of what a connection may have.
const hoard = 63

// Attackers are spokes that misbehave.
type Attackers struct {
	Range
	Manner Manner
}

// Attack has spokes misbehave until Disconnect; where the hub cuts one off, it comes back.
func (s *Service) Attack(a Attackers, _ *None) error {
	return s.begin(a.Range, func(ctx context.Context, one *spoke) {
		for ctx.Err() == nil {
			err := one.attack(ctx, a.Manner)
			s.counted(func(c *Counters) { c.Repelled, c.Repulse = c.Repelled+1, fmt.Sprint(err) })
			select {
			case <-time.After(rand.N(time.Second)): // no patience, but one process has thousands of them
			case <-ctx.Done():
			}
		}
	})
}

func (s *spoke) attack(ctx context.Context, m Manner) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := s.greet(ctx, conn, rand.Uint64())
	if err != nil {
		return err
	}
	welcome, err := stream.Recv()
	if err != nil {
		return err
	}
	s.seq = welcome.GetWelcome().GetAckedSeq()
	switch m {
	case Deaf:
		return s.deaf(ctx, stream)
	case Hoarder:
		return s.hoard(ctx, conn, stream)
	case Flood:
		return s.flood(ctx, stream)
	}
	return s.lie(ctx, stream)
}

type stream = grpc.BidiStreamingClient[syncv1.ConnectRequest, syncv1.ConnectResponse]

// deaf sends heartbeats, so that it does not count as silent.
func (s *spoke) deaf(ctx context.Context, stream stream) error {
	s.service.mu.Lock()
	w := s.wire
	s.service.mu.Unlock()
	w.goDeaf()
	return s.beat(ctx, stream, time.Second)
}

func (s *spoke) beat(ctx context.Context, stream stream, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Heartbeat{Heartbeat: &syncv1.Heartbeat{At: wirev1.Time(time.Now())}}}); err != nil {
			return err
		}
		s.service.counted(func(c *Counters) { c.Written++ })
	}
}

// hoard reads the conversation, and none of the bundles.
func (s *spoke) hoard(ctx context.Context, conn *grpc.ClientConn, stream stream) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		var newest *syncv1.Offer
		for _, d := range m.GetDesired().GetDistributions() {
			for _, o := range d.GetOffers() {
				newest = o
			}
		}
		if newest == nil {
			continue
		}
		for range hoard {
			if _, err := syncv1.NewSyncServiceClient(conn).FetchBundle(ctx, &syncv1.FetchBundleRequest{Digest: newest.GetDigest()}); err != nil {
				return err
			}
			s.service.counted(func(c *Counters) { c.Written++ })
		}
		return s.beat(ctx, stream, time.Second)
	}
}

// flood reports events that are all news, in order, and reads what comes.
func (s *spoke) flood(ctx context.Context, stream stream) error {
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	for ctx.Err() == nil {
		s.seq++
		s.reason = fmt.Sprintf("flood %d", s.seq)
		status := s.status()
		status.Health, status.HealthMessage = string(fleet.Degraded), s.reason
		err := stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: &syncv1.Event{Seq: s.seq, At: wirev1.Time(time.Now()),
			Kind: syncv1.EventKind_EVENT_KIND_HEALTH, Distribution: s.distribution, Message: s.reason, Status: status}}})
		if err != nil {
			return <-ended // it says why
		}
		s.service.counted(func(c *Counters) { c.Written++ })
	}
	return ctx.Err()
}

// lie claims what is not so, and takes what it is answered with.
func (s *spoke) lie(ctx context.Context, stream stream) error {
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		hello := s.hello(rand.Uint64())
		of := hello.GetSubscriptions()[0]
		of.RunningVersion, of.BundleDigest = fmt.Sprintf("9.%d.0", rand.N(1000)), fmt.Sprintf("sha256:%064x", rand.Uint64())
		if err := stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: hello}}); err != nil {
			return <-ended
		}
		s.service.counted(func(c *Counters) { c.Written++ })
		select {
		case <-tick.C:
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
