package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

const (
	// ageSpread is by how much of its age a stream may be older or younger when it is ended, so that a fleet that
	// came at once does not go at once.
	ageSpread = 0.1
	// sweeps is in how many steps a send's patience is measured.
	sweeps = 4
	// stage is the time between two parts of a fleet that are told that the hub stops.
	stage = 50 * time.Millisecond
)

// comeBack is a status that says when to try again, exactly: who makes it has spread the fleet.
func comeBack(code codes.Code, text string, after time.Duration) error {
	st := status.New(code, text)
	if with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil { // it fails for codes.OK only
		st = with
	}
	return st.Err()
}

// stopping is what streams that never end are told when the hub stops, and those that come then: after is how long
// it takes yet, and the fleet comes back spread over within.
func stopping(after, within time.Duration) error {
	return comeBack(codes.Unavailable, errStopping.Error()+"; try again in a moment", after+rand.N(within))
}

// errStopping is what a call is told that ends because the hub does.
var errStopping = errors.New("the hub is stopping")

// aged is how old a stream gets that never ends; 0: as old as it likes.
func aged(age time.Duration) time.Duration {
	if age == 0 {
		return 0
	}
	return time.Duration(float64(age) * (1 + ageSpread*(2*rand.Float64()-1)))
}

// sweep ends, until ctx does, the streams of those who do not read what they are sent, and streams that are old.
func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(s.reading / sweeps)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.sweepOnce(now)
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) sweepOnce(now time.Time) {
	n := s.sweeps.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.streams {
		switch since := c.sending.Load(); {
		case since != 0 && n-since > sweeps && !c.slow:
			c.slow = true
			s.slow.Add(1)
			err := status.Errorf(codes.ResourceExhausted, "nothing that was sent was read for %v; read faster, or come back with a better connection", s.reading)
			s.log.Warn("a stream was cut: its caller does not read what it is sent", slog.String(logging.Method, c.method), slog.String("caller", c.who.String()),
				slog.Duration(logging.Duration, s.reading))
			ending.End(c.ctx, err)
			if c.conn != nil { // what says so waits behind what is not read
				time.AfterFunc(farewell, func() { _ = c.conn.Close() })
			}
		case !c.until.IsZero() && now.After(c.until):
			ending.End(c.ctx, comeBack(codes.Unavailable, "this stream is old; open the next one", 0))
		}
	}
}

// drain ends the streams that would never end: a part of them at a time, over as long as their coming back takes and
// at most half of the grace period.
func (s *Server) drain() {
	s.mu.Lock()
	s.stopped = true
	endless := maps.Clone(s.streams)
	s.mu.Unlock()
	maps.DeleteFunc(endless, func(c *call, _ struct{}) bool { return !s.access[c.method].Endless })
	within := s.ReconnectWithin()
	takes := s.grace / 2
	if len(endless) < burst {
		takes = 0
	} else {
		takes = min(takes, within)
	}
	order := slices.Collect(maps.Keys(endless)) // in the map's, which is anybody's guess
	steps := max(1, int(takes/stage))
	for n := range steps {
		left := takes - time.Duration(n)*stage
		for _, c := range order[n*len(order)/steps : (n+1)*len(order)/steps] {
			ending.End(c.ctx, stopping(left, within))
		}
		if n+1 < steps {
			time.Sleep(stage)
		}
	}
}
