package syncapi

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
)

// aliveEvery is how often somebody who waits is told so; spokes give up after 30 s of silence.
const aliveEvery = 10 * time.Second

// gate bounds what goes out at once, whoever asks: first come, first served.
type gate struct {
	turns   *semaphore.Weighted // nil: no bound
	bytes   *rate.Limiter       // nil: no bound
	waiting atomic.Int64
}

func newGate(bytesPerSecond, fetches int64) *gate {
	g := &gate{}
	if fetches > 0 {
		g.turns = semaphore.NewWeighted(fetches)
	}
	if bytesPerSecond > 0 {
		g.bytes = rate.NewLimiter(rate.Limit(bytesPerSecond), int(max(transport.ChunkSize, bytesPerSecond/10)))
	}
	return g
}

// enter waits for a turn, which leave gives back. It calls alive now and then, whose error ends the waiting.
func (g *gate) enter(ctx context.Context, alive func() error) error {
	if g.turns == nil || g.turns.TryAcquire(1) {
		return nil
	}
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	turn := make(chan error, 1)
	go func() { turn <- g.turns.Acquire(ctx, 1) }()
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-turn:
			return err
		case <-tick.C:
			if err := alive(); err != nil {
				cancel()
				if <-turn == nil {
					g.leave()
				}
				return err
			}
		}
	}
}

func (g *gate) leave() {
	if g.turns != nil {
		g.turns.Release(1)
	}
}

// pay waits until n bytes may be sent; n is at most transport.ChunkSize.
func (g *gate) pay(ctx context.Context, n int, alive func() error) error {
	if g.bytes == nil {
		return nil
	}
	r := g.bytes.ReserveN(time.Now(), n)
	due := time.NewTimer(r.Delay())
	defer due.Stop()
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-due.C:
			return nil
		case <-tick.C:
			if err := alive(); err != nil {
				r.Cancel()
				return err
			}
		case <-ctx.Done():
			r.Cancel()
			return ctx.Err()
		}
	}
}
