package server

import (
	"context"
	"errors"
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
		start := time.Now()
		const storm = 5000
		in, busy := make(chan time.Duration, storm), make(chan struct{}, storm)
		for range storm {
			go func() {
				shaken, gone, err := a.connection(t.Context())
				switch {
				case errors.Is(err, errBusy):
					busy <- struct{}{}
				case err != nil:
					t.Error(err)
				default:
					in <- time.Since(start)
					shaken()
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
		come := func(cost time.Duration) {
			for range 40 {
				for range measureOf + 8 {
					if _, ok := a.reserve(time.Now(), 1); ok {
						m.used += cost
					}
				}
				time.Sleep(measureEvery)
			}
		}
		if w := a.window(10_000); w != 40*time.Second {
			t.Errorf("10,000 spokes are told to come back within %v, want twice what they take at first", w)
		}
		come(time.Millisecond / 2)
		if w := a.window(10_000).Round(time.Second); w != 10*time.Second {
			t.Errorf("of 0.5 ms each they are told %v, want 10s", w)
		}
		come(time.Second)
		if a.cost.Round(100*time.Microsecond) != mostCost {
			t.Errorf("other work made a connection cost %v, want at most %v", a.cost, mostCost)
		}
		if w := a.window(3); w != leastWindow {
			t.Errorf("three spokes are told %v", w)
		}
		if w := a.window(1 << 30); w != mostWindow {
			t.Errorf("too many spokes are told %v", w)
		}
		before := a.cost
		time.Sleep(time.Hour)
		m.used += time.Hour
		for range measureOf {
			a.reserve(time.Now(), 1)
		}
		time.Sleep(measureEvery)
		m.used += time.Duration(measureOf) * before
		a.reserve(time.Now(), 1)
		if a.cost.Round(time.Millisecond) != before.Round(time.Millisecond) {
			t.Errorf("an hour of rest made a connection cost %v, want %v", a.cost, before)
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
				_, _, err := a.connection(ctx)
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
		shaken, gone, err := a.connection(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		shaken()
		ends = append(ends, gone)
	}
	if _, _, err := a.connection(t.Context()); !errors.Is(err, errFiles) {
		t.Errorf("got %v, want %v", err, errFiles)
	}
	ends[0]()
	ends[0]() // closing twice frees one place
	if _, _, err := a.connection(t.Context()); err != nil {
		t.Error(err)
	}
	if _, _, err := a.connection(t.Context()); !errors.Is(err, errFiles) {
		t.Errorf("got %v, want %v", err, errFiles)
	}
}
