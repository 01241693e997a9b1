package server

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What a fleet costs that comes back all at once is bounded by what the hub has measured that one connection costs.
const (
	// share of the machine's CPU goes to new connections at most; the rest is for who is there already.
	share = 0.5
	// burst is how many connections come in at once before any has to wait.
	burst = 64
	// atHand is how many handshakes are under way at once; each waits for its client too.
	atHand = 256
	// patience bounds the queue: who would wait longer is turned away, before its own patience is over.
	patience = 3 * time.Second
	// streamWeight is what one more stream of a connection costs, in connections.
	streamWeight = 0.25
	// slack is by how much the time within which a fleet is told to come back is more than it needs.
	slack = 2

	firstCost = 2 * time.Millisecond // until it is measured
	leastCost = 200 * time.Microsecond
	// mostCost keeps other work, which the measure cannot tell from that of connections, from closing the door.
	mostCost = 5 * time.Millisecond

	measureEvery = 250 * time.Millisecond
	measureOf    = 32 // connections, at least

	leastWindow = time.Second
	mostWindow  = 5 * time.Minute
)

var (
	errBusy  = errors.New("more connections come in than this hub's processors take")
	errFiles = errors.New("this process may open no more files")
)

// admission decides when a connection may begin its handshake: a token bucket with a bounded queue, in which each
// waits for its turn. Its rate follows from what connections have cost so far, handshake, first stream and all.
type admission struct {
	cores int
	cpu   func() time.Duration // that this process has used so far
	slots chan struct{}        // one for each handshake under way
	most  int64                // connections, by the files that this process may open

	open, admitted, waiting, busy, files atomic.Int64

	mu       sync.Mutex
	cost     time.Duration // CPU of one connection
	next     time.Time     // when the bucket has a token again
	measured time.Time
	used     time.Duration // CPU, when it was measured last
	since    int           // connections that came in after that
}

func newAdmission(now time.Time, most int64) *admission {
	return &admission{cores: runtime.GOMAXPROCS(0), cpu: processCPU, slots: make(chan struct{}, atHand), most: most,
		cost: firstCost, measured: now, used: processCPU()}
}

// processCPU is what this process has used of the processors.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // not on a system that the hub runs on
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// connection lets one connection begin its handshake; shaken is called at the handshake's end. The connection counts
// as open until gone is called.
func (a *admission) connection(ctx context.Context) (shaken, gone func(), err error) {
	if a.open.Add(1) > a.most {
		a.open.Add(-1)
		a.files.Add(1)
		return nil, nil, errFiles
	}
	gone = sync.OnceFunc(func() { a.open.Add(-1) })
	if err := a.turn(ctx, 1); err != nil {
		gone()
		return nil, nil, err
	}
	select {
	case a.slots <- struct{}{}:
	default: // clients that take their time have all of them
		late := time.NewTimer(patience)
		defer late.Stop()
		select {
		case a.slots <- struct{}{}:
		case <-late.C:
			gone()
			a.busy.Add(1)
			return nil, nil, errBusy
		case <-ctx.Done():
			gone()
			return nil, nil, context.Cause(ctx)
		}
	}
	a.admitted.Add(1)
	return func() { <-a.slots }, gone, nil
}

// stream lets a connection have one more stream that never ends.
func (a *admission) stream(ctx context.Context) error { return a.turn(ctx, streamWeight) }

func (a *admission) turn(ctx context.Context, weight float64) error {
	wait, ok := a.reserve(time.Now(), weight)
	if !ok {
		a.busy.Add(1)
		return errBusy
	}
	if wait <= 0 {
		return nil
	}
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reserve takes a place in the queue, and says how long the wait is; false where the queue is full.
func (a *admission) reserve(now time.Time, weight float64) (wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.measureLocked(now)
	each := a.eachLocked()
	next := a.next
	if full := now.Add(-burst * each); next.Before(full) {
		next = full
	}
	if wait = next.Sub(now); wait > patience {
		return 0, false
	}
	a.next = next.Add(time.Duration(weight * float64(each)))
	a.since++
	return wait, true
}

// eachLocked is the time that one connection takes at the rate of the bucket.
func (a *admission) eachLocked() time.Duration {
	return time.Duration(float64(a.cost) / (share * float64(a.cores)))
}

// measureLocked learns from a storm what a connection costs. What the hub does beside it counts as theirs: the
// error leaves more for that.
func (a *admission) measureLocked(now time.Time) {
	past := now.Sub(a.measured)
	if past < measureEvery {
		return
	}
	used := a.cpu()
	if a.since >= measureOf && past < 4*measureEvery {
		cost := min(max((used-a.used)/time.Duration(a.since), leastCost), mostCost)
		a.cost = (7*a.cost + 3*cost) / 10
	}
	a.measured, a.used, a.since = now, used, 0
}

// window is the time within which so many spokes come back at a rate that the hub takes without a queue.
func (a *admission) window(spokes int) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return min(max(time.Duration(spokes)*slack*a.eachLocked(), leastWindow), mostWindow)
}
