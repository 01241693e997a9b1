package server

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// meter is the CPU that a test says was used.
type meter struct{ used time.Duration }

func newTestAdmission(most int64) (*admission, *meter) {
	a, m := newAdmission(time.Now(), most), &meter{}
	a.cores, a.cpu, a.used = 2, func() time.Duration { return m.used }, 0
	return a, m
}

// In a storm the first come in at once, the next wait for their turn, and who would wait for too long is turned away.
func TestAStormWaitsInAQueueThatIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newTestAdmission(1 << 20)
		a.cpu = func() time.Duration { return time.Duration(a.admitted.Load()) * firstCost }
		start := time.Now()
		const storm = 5000
		in, busy := make(chan time.Duration, storm), make(chan struct{}, storm)
		for range storm {
			go func() {
				shaken, gone, _, err := a.connection(t.Context())
				switch {
				case errors.Is(err, errBusy):
					busy <- struct{}{}
				case err != nil:
					t.Error(err)
				default:
					in <- time.Since(start)
					shaken(true)
					gone()
				}
			}()
		}
		synctest.Wait()
		if n := len(in); n < burst || n > burst+1 {
			t.Errorf("%d came in at once, want %d", n, burst)
		}
		if n := a.waiting.Load(); n < 1000 || n > 1600 {
			t.Errorf("%d wait, want what comes in within %v", n, patience)
		}
		if len(in)+len(busy)+int(a.waiting.Load()) != storm {
			t.Error("some are left hanging")
		}
		time.Sleep(patience + time.Second)
		synctest.Wait()
		if len(in)+len(busy) != storm || a.waiting.Load() != 0 || a.open.Load() != 0 {
			t.Errorf("%d in, %d turned away, %d wait, %d open", len(in), len(busy), a.waiting.Load(), a.open.Load())
		}
		if int(a.busy.Load()) != len(busy) || int(a.admitted.Load()) != len(in) {
			t.Error("they were not counted")
		}
		perSecond := make([]int, 5)
		for len(in) > 0 {
			perSecond[int((<-in).Seconds())]++
		}
		// 2 ms each, of half of two processors.
		if n := perSecond[1]; n < 490 || n > 510 {
			t.Errorf("%v came in by the second, want 500", perSecond)
		}
	})
}

// The rate follows from what connections are measured to cost, and other work cannot close the door.
func TestTheRateIsThatOfTheMeasuredCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, m := newTestAdmission(1 << 20)
		storm := func(cost time.Duration) {
			for range 100 {
				for range measureOf + 8 {
					if a.turn(t.Context(), 1) == nil {
						m.used += cost
					}
				}
				time.Sleep(measureEvery)
			}
		}
		if w := a.window(10_000); w != 37500*time.Millisecond {
			t.Errorf("10,000 spokes are told to come back within %v, want twice what they take at first, but for those who may wait", w)
		}
		if w := a.window(1000); w != 1500*time.Millisecond {
			t.Errorf("1,000 spokes are told to come back within %v, most of whom may wait", w)
		}
		storm(time.Millisecond / 2)
		if w := a.window(10_000).Round(100 * time.Millisecond); w != 7500*time.Millisecond {
			t.Errorf("of 0.5 ms each they are told %v, want 7.5s", w)
		}
		storm(time.Second)
		if a.pace.cost.Round(100*time.Microsecond) != mostCost {
			t.Errorf("other work made a connection cost %v, want at most %v", a.pace.cost, mostCost)
		}
		a.pace.rate = leastRate // on a machine that is busy now
		if w := a.window(10_000).Round(500 * time.Millisecond); w != 97500*time.Millisecond {
			t.Errorf("of %v each they are told %v on a busy machine, want 97.5s", mostCost, w)
		}
		if w := a.window(3); w != leastWindow {
			t.Errorf("three spokes are told %v", w)
		}
		if w := a.window(1 << 30); w != mostWindow {
			t.Errorf("too many spokes are told %v", w)
		}
		before := a.pace.cost
		come := func() {
			if err := a.turn(t.Context(), 1); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Hour)
		m.used += time.Hour
		for range measureOf {
			come()
		}
		time.Sleep(measureEvery)
		m.used += time.Duration(measureOf) * before
		come()
		if a.pace.cost.Round(time.Millisecond) != before.Round(time.Millisecond) {
			t.Errorf("an hour of rest made a connection cost %v, want %v", a.pace.cost, before)
		}
	})
}

// Clients that never end their handshake hold no more than the places that there are.
func TestHandshakesAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newTestAdmission(1 << 20)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2*atHand)
		for range 2 * atHand {
			go func() {
				_, _, _, err := a.connection(ctx)
				results <- err
			}()
		}
		time.Sleep(2 * patience)
		synctest.Wait()
		in, busy := 0, 0
		for len(results) > 0 {
			if err := <-results; err == nil {
				in++
			} else if errors.Is(err, errBusy) {
				busy++
			}
		}
		cancel()
		if in != atHand || busy != atHand {
			t.Errorf("%d shake hands and %d were turned away, want %d of each", in, busy, atHand)
		}
	})
}

func TestAQuarterOfTheFilesIsKeptFromConnections(t *testing.T) {
	for files, want := range map[int64]int64{1024: 768, 100: 75, 20_000: 20_000 - reservedFiles} {
		if got := connectionsOf(files); got != want {
			t.Errorf("of %d files %d may be connections, want %d", files, got, want)
		}
	}
	a, _ := newTestAdmission(2)
	var ends []func()
	for range 2 {
		shaken, gone, _, err := a.connection(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		shaken(true)
		ends = append(ends, gone)
	}
	if _, _, _, err := a.connection(t.Context()); !errors.Is(err, errFiles) {
		t.Errorf("got %v, want %v", err, errFiles)
	}
	ends[0]()
	ends[0]() // closing twice frees one place
	if _, _, _, err := a.connection(t.Context()); err != nil {
		t.Error(err)
	}
	if _, _, _, err := a.connection(t.Context()); !errors.Is(err, errFiles) {
		t.Errorf("got %v, want %v", err, errFiles)
	}
}

func TestThePaceFollowsWhatGetsDone(t *testing.T) {
	const second = time.Second
	usual := pace{cost: 2 * time.Millisecond, rate: 400} // of two cores, which may have 500 of these in a second
	for _, c := range []struct {
		name  string
		from  pace
		seen  tally
		rate  float64
		cost  time.Duration
		eased bool
	}{
		{"nothing happens", usual, tally{past: second}, 460, 2 * time.Millisecond, false},
		{"up to what the processors may spend", pace{2 * time.Millisecond, 490}, tally{past: second, done: 100, ended: 100, brisk: 100}, 500, 2 * time.Millisecond, false},
		{"most are slow", usual, tally{past: second, done: 300, ended: 300, late: 200}, 270, 2 * time.Millisecond, true},
		{"more end than came in", usual, tally{past: second, done: 900, ended: 900, late: 900}, 360, 2 * time.Millisecond, true},
		{"most are slow, and many under way", usual, tally{past: second, done: 100, ended: 100, late: 90, under: 168}, 70, 2 * time.Millisecond, true},
		{"most are slow, and very many under way", usual, tally{past: second, done: 90, ended: 90, late: 90, under: atHand}, 30, 2 * time.Millisecond, true},
		{"again and again", pace{2 * time.Millisecond, 7}, tally{past: second, done: 3, ended: 3, late: 3}, leastRate, 2 * time.Millisecond, true},
		{"half of them are slow", usual, tally{past: second, done: 300, ended: 300, brisk: 150, late: 150}, 408, 2 * time.Millisecond, false},
		{"most are neither slow nor brisk", usual, tally{past: second, done: 300, ended: 300, brisk: 100}, 408, 2 * time.Millisecond, false},
		{"all hang", usual, tally{past: second, under: atHand}, 400, 2 * time.Millisecond, false},
		{"some hang, the others do not", usual, tally{past: second, done: 10, ended: 10, brisk: 9, under: atHand}, 460, 2 * time.Millisecond, false},
		{"what was let in before is slow", usual, tally{past: second, done: 100, under: 50}, 400, 2 * time.Millisecond, false},
		{"they cost less", usual, tally{past: second / 2, used: 100 * time.Millisecond, begun: 100}, 460, 3 * time.Millisecond / 2, false},
		{"they cost more, or there is other work", usual, tally{past: second / 2, used: second / 2, begun: 100}, 457.14, 2*time.Millisecond + 3*time.Millisecond/16, false},
		{"too few to tell", usual, tally{past: second / 2, used: second / 2, begun: measureOf - 1}, 460, 2 * time.Millisecond, false},
		{"too long ago to tell", usual, tally{past: time.Hour, used: time.Hour, begun: 1000}, 460, 2 * time.Millisecond, false},
	} {
		got, eased := c.from.next(c.seen, 2)
		if math.Abs(got.rate-c.rate) > 0.01 || got.cost != c.cost || eased != c.eased {
			t.Errorf("%s: %.2f a second of %v each, eased %v; want %.2f of %v, %v", c.name, got.rate, got.cost, eased, c.rate, c.cost, c.eased)
		}
	}
}

// However much of the machine is left for handshakes, most of it goes to those whose clients have not given up, and a
// client that gets in has not waited for as long as it is ready to.
func TestAStormOnABusyMachineGetsIn(t *testing.T) {
	const (
		storm    = 1000 // that come in a second
		lasts    = 80 * time.Second
		step     = 10 * time.Millisecond
		gives    = 5 * time.Second // up
		learning = 20 * time.Second
	)
	type shake struct {
		*waiter
		begins time.Time
		left   float64 // of it, which is 1
	}
	for _, able := range []float64{6, 10, 40, 150, 400, 5000} { // handshakes that the machine does in a second
		a, m := newTestAdmission(1 << 20)
		start := time.Unix(1_000_000, 0)
		a.measured = start
		var waiting, under []*shake
		in, given, worst := 0, 0, time.Duration(0)
		for now := start; now.Before(start.Add(lasts)); now = now.Add(step) {
			for range storm * int(step/time.Millisecond) / 1000 {
				w := &waiter{came: now, weight: 1, turn: make(chan error, 1)}
				a.joinLocked(w)
				waiting = append(waiting, &shake{waiter: w, left: 1})
			}
			a.advanceLocked(now)
			waiting = slices.DeleteFunc(waiting, func(s *shake) bool {
				if s.begins.IsZero() {
					select {
					case err := <-s.turn:
						if err != nil {
							return true
						}
						s.begins = now
					default:
						return false
					}
				}
				if len(under) < atHand {
					under = append(under, s)
					a.slots <- struct{}{}
					return true
				}
				return now.Sub(s.came) > patience
			})
			each := able * step.Seconds() / float64(max(1, len(under)))
			under = slices.DeleteFunc(under, func(s *shake) bool {
				took := now.Sub(s.came)
				well := took < gives
				if s.left -= each; s.left > 0 && well {
					return false
				}
				<-a.slots
				m.used += 3 * time.Millisecond / 2
				a.ended(s.begins, now, well)
				if now.Before(start.Add(learning)) {
					return true
				}
				if well {
					in, worst = in+1, max(worst, took)
				} else {
					given++
				}
				return true
			})
		}
		most := min(able, ceiling(3*time.Millisecond/2, 2)) * (lasts - learning).Seconds()
		t.Logf("%v a second: %d came in of at most %.0f, after %v at most; %d had given up", able, in, most, worst.Round(step), given)
		if float64(in) < 0.6*most || given > in/20 {
			t.Errorf("of a machine that does %v a second %d came in of at most %.0f, and %d had given up", able, in, most, given)
		}
	}
}
