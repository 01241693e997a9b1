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

// What a fleet costs that comes back all at once is bounded by what the hub has measured that one connection costs, and
// by what the machine is seen to get done: it may have other work, and the fleet itself may be on it.
const (
	// share of the machine's CPU goes to new connections at most; the rest is for who is there already.
	share = 0.5
	// burst is how many connections come in at once before any has to wait.
	burst = 64
	// atHand is how many handshakes are under way at once; each waits for its client too.
	atHand = 256
	// patience bounds the queue: who would wait longer is turned away, before its own patience is over, which is 5 s.
	patience = 2500 * time.Millisecond
	// slow is how long a handshake takes that was let in too fast: with the queue before it, near what its client waits
	// for. brisk is how long one takes where there is room for more.
	slow, brisk = 1200 * time.Millisecond, 300 * time.Millisecond
	// leastRate of connections in a second come in however slow the machine is.
	leastRate = 5
	// easing is what becomes of the rate with a look at it where most handshakes are slow, growth where most are brisk,
	// and care between the two.
	easing, growth, care = 0.9, 1.15, 1.02
	// keptConnections are not for spokes, and at most a sixteenth of all.
	keptConnections = 16
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

// pace is the rate at which connections are let in, and the measure that bounds it.
type pace struct {
	cost time.Duration // CPU of this process for one connection: handshake, first stream and all
	rate float64       // connections in a second
}

// tally is what was seen between two looks at the pace.
type tally struct {
	past  time.Duration
	used  time.Duration // CPU of this process
	begun float64       // connections that were let in; one more stream of one is a part of one
	done  int           // handshakes that ended well
	ended int           // handshakes that ended, of those let in at this pace; none that broke off early
	brisk int           // of those, the ones that were
	late  int           // of those, the ones that took longer than slow, and those whose clients gave up after that
	under int           // handshakes under way at its end
}

// next is the pace after a tally. Where most handshakes are slow, it is eased: it follows what gets done, and lets those
// under way get done first; where they are not, it grows to what the processors may spend. While nothing ends it stays:
// who begins to shake hands and says nothing more must not change it.
func (p pace) next(t tally, cores int) (after pace, eased bool) {
	if t.begun >= measureOf && t.past < 4*measureEvery {
		cost := min(max(time.Duration(float64(t.used)/t.begun), leastCost), mostCost)
		// What the hub does beside it counts as theirs: the least that is measured is nearest to the truth.
		if cost < p.cost {
			p.cost = (p.cost + cost) / 2
		} else {
			p.cost += (cost - p.cost) / 16
		}
	}
	switch {
	case 2*t.late > t.ended:
		eased = true
		done := float64(t.done) / t.past.Seconds()
		most := min(p.rate, done)
		// Those who are too many under way are to end before their clients give up.
		many := max(0, float64(t.under)-done*slow.Seconds()) / (2 * slow).Seconds()
		p.rate = max(easing*most-many, most/3)
	case 2*t.brisk > t.ended, t.ended == 0 && t.under == 0:
		p.rate *= growth
	case t.ended > 0:
		p.rate *= care
	}
	p.rate = min(max(p.rate, leastRate), ceiling(p.cost, cores))
	return p, eased
}

// ceiling is the rate that the processors may spend on connections of this cost.
func ceiling(cost time.Duration, cores int) float64 { return share * float64(cores) / cost.Seconds() }

// admission decides when a connection may begin its handshake: a token bucket with a bounded queue, in which each
// waits for its turn. What its rate is, pace says.
type admission struct {
	cores int
	cpu   func() time.Duration // that this process has used so far
	slots chan struct{}        // one for each handshake under way
	most  int64                // connections, by the files that this process may open
	kept  int64                // of these, from spokes, so that operators and relays come in where there are too many of them

	open, admitted, waiting, busy, files atomic.Int64

	mu       sync.Mutex
	pace     pace
	eased    time.Time   // when the pace was, last: what was let in before says nothing of it
	next     time.Time   // when the bucket has a token again
	queue    []*waiter   // in the order in which they came
	queued   float64     // connections that they are
	timer    *time.Timer // nil: nobody has waited yet
	wakes    time.Time   // when the timer is set for; zero: it is not
	measured time.Time
	used     time.Duration // CPU, when it was measured last
	tally    tally         // of what came after that
}

func newAdmission(now time.Time, most int64) *admission {
	cores := runtime.GOMAXPROCS(0)
	return &admission{cores: cores, cpu: processCPU, slots: make(chan struct{}, atHand), most: most, kept: min(keptConnections, most/16),
		pace: pace{cost: firstCost, rate: ceiling(firstCost, cores)}, measured: now, used: processCPU()}
}

// processCPU is what this process has used of the processors.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // not on a system that the hub runs on
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// connection lets one connection begin its handshake; shaken is called at the handshake's end, with whether it ended
// well. The connection counts as open until gone is called. Last: it is one of those that are not for spokes.
func (a *admission) connection(ctx context.Context) (shaken func(well bool), gone func(), last bool, err error) {
	n := a.open.Add(1)
	if n > a.most {
		a.open.Add(-1)
		a.files.Add(1)
		return nil, nil, false, errFiles
	}
	last = n > a.most-a.kept
	gone = sync.OnceFunc(func() { a.open.Add(-1) })
	came := time.Now()
	if err := a.turn(ctx, 1); err != nil {
		gone()
		return nil, nil, false, err
	}
	begun := time.Now()
	select {
	case a.slots <- struct{}{}:
	default: // clients that take their time have all of them
		late := time.NewTimer(patience - begun.Sub(came))
		defer late.Stop()
		select {
		case a.slots <- struct{}{}:
		case <-late.C:
			gone()
			a.busy.Add(1)
			return nil, nil, false, errBusy
		case <-ctx.Done():
			gone()
			return nil, nil, false, context.Cause(ctx)
		}
	}
	a.admitted.Add(1)
	return func(well bool) {
		<-a.slots
		a.ended(begun, time.Now(), well)
	}, gone, last, nil
}

// ended counts a handshake.
func (a *admission) ended(begun, now time.Time, well bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	took := now.Sub(begun)
	late := took > slow
	if well {
		a.tally.done++
	}
	if !well && !late || begun.Before(a.eased) {
		return
	}
	a.tally.ended++
	switch {
	case late:
		a.tally.late++
	case took < brisk:
		a.tally.brisk++
	}
}

// stream lets a connection have one more stream that never ends.
func (a *admission) stream(ctx context.Context) error { return a.turn(ctx, streamWeight) }

// waiter stands in the queue.
type waiter struct {
	came   time.Time
	weight float64
	turn   chan error // of one: nil, or errBusy
	left   bool       // it has given up
}

func (a *admission) turn(ctx context.Context, weight float64) error {
	now := time.Now()
	w := &waiter{came: now, weight: weight, turn: make(chan error, 1)}
	a.mu.Lock()
	a.joinLocked(w)
	a.wakeLocked(a.advanceLocked(now))
	a.mu.Unlock()
	select {
	case err := <-w.turn:
		return err
	default:
	}
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	select {
	case err := <-w.turn:
		return err
	case <-ctx.Done():
		a.mu.Lock()
		defer a.mu.Unlock()
		w.left = true
		return context.Cause(ctx)
	}
}

// wakeLocked has the queue advance at this time; zero: when somebody comes.
func (a *admission) wakeLocked(at time.Time) {
	switch {
	case at.IsZero(), at.Equal(a.wakes):
		return
	case a.timer == nil:
		a.timer = time.AfterFunc(time.Until(at), func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.wakes = time.Time{}
			a.wakeLocked(a.advanceLocked(time.Now()))
		})
	default:
		a.timer.Reset(time.Until(at))
	}
	a.wakes = at
}

// joinLocked puts somebody at the end of the queue, or turns it away where the queue is full.
func (a *admission) joinLocked(w *waiter) {
	a.lookLocked(w.came)
	each := a.eachLocked()
	if wait := time.Duration(a.queued*float64(each)) + max(0, a.next.Sub(w.came)); wait > patience {
		a.busy.Add(1)
		w.turn <- errBusy
		return
	}
	a.queue = append(a.queue, w)
	a.queued += w.weight
}

// advanceLocked lets in those whose turn it is at the rate of now, turns away those who have waited for too long, and
// returns when it is to be done again; zero: when somebody comes.
func (a *admission) advanceLocked(now time.Time) (again time.Time) {
	a.lookLocked(now)
	each := a.eachLocked()
	for len(a.queue) > 0 {
		w := a.queue[0]
		late := w.came.Add(patience)
		switch {
		case w.left:
		case now.After(late):
			a.busy.Add(1)
			w.turn <- errBusy
		case a.next.After(now):
			if a.next.Before(late) {
				return a.next
			}
			return late.Add(1)
		default:
			if full := now.Add(-burst * each); a.next.Before(full) {
				a.next = full
			}
			a.next = a.next.Add(time.Duration(w.weight * float64(each)))
			a.tally.begun += w.weight
			w.turn <- nil
		}
		a.queue[0] = nil
		a.queue = a.queue[1:]
		a.queued -= w.weight
	}
	a.queue, a.queued = nil, 0
	return time.Time{}
}

// eachLocked is the time that one connection takes at the rate of the bucket.
func (a *admission) eachLocked() time.Duration {
	return time.Duration(float64(time.Second) / a.pace.rate)
}

// lookLocked has the pace follow what was seen since the last look, now and then.
func (a *admission) lookLocked(now time.Time) {
	past := now.Sub(a.measured)
	if past < measureEvery {
		return
	}
	used, eased := a.cpu(), false
	a.tally.past, a.tally.used, a.tally.under = past, used-a.used, len(a.slots)
	if a.pace, eased = a.pace.next(a.tally, a.cores); eased {
		a.eased = now
	}
	a.measured, a.used, a.tally = now, used, tally{}
}

// window is the time within which so many spokes come back at a rate that the hub takes with a short queue. It is for a
// time to come: what the machine does beside it now, by which the pace is eased, is not in it.
func (a *admission) window(spokes int) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lookLocked(time.Now())
	each := float64(time.Second) / ceiling(a.pace.cost, a.cores)
	// As many as wait in the queue for half of what it may last need not be spread: a small fleet is back at once.
	spread := time.Duration(float64(spokes)*each) - patience/2
	return min(max(slack*spread, leastWindow), mostWindow)
}
