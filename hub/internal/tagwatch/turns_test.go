package tagwatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// take asks for a turn in the background; what it was granted, or refused, comes over the channel.
type granted struct {
	ctx  context.Context
	done func()
	err  error
}

func take(ctx context.Context, t *Turns, host string, due time.Time) chan granted {
	c := make(chan granted, 1)
	go func() {
		work, done, err := t.Take(ctx, host, due)
		c <- granted{work, done, err}
	}()
	synctest.Wait()
	return c
}

func has(c chan granted) bool { synctest.Wait(); return len(c) > 0 }

func TestAHostHasItsShareAndTheFirstDueIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, now := NewTurns(3, 2, 0), time.Now()
		ctx := t.Context()
		one, two, three := take(ctx, turns, "a", now), take(ctx, turns, "a", now), take(ctx, turns, "a", now)
		other := take(ctx, turns, "b", now.Add(time.Hour))
		if !has(one) || !has(two) || has(three) || !has(other) {
			t.Fatal("a's share is two of three, and b, though due later, has the third")
		}
		late, early := take(ctx, turns, "b", now.Add(2*time.Hour)), take(ctx, turns, "c", now.Add(time.Minute))
		(<-other).done()
		if !has(early) || has(late) || has(three) {
			t.Error("of those who may, the first due is next")
		}
		first := <-one
		first.done()
		if !has(three) || has(late) {
			t.Error("a's third was due before b")
		}
		for _, c := range []chan granted{two, three, early} {
			(<-c).done()
		}
		(<-late).done()
		if len(turns.held)+len(turns.waiting) > 0 {
			t.Errorf("%d held, %d wait", len(turns.held), len(turns.waiting))
		}
	})
}

func TestWhoIsSlowLosesItsTurnToWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(2, 1, time.Minute)
		slow := <-take(t.Context(), turns, "slow", time.Now())
		time.Sleep(30 * time.Second)
		slower := <-take(t.Context(), turns, "slower", time.Now())
		time.Sleep(time.Hour) // nobody waits
		if slow.ctx.Err() != nil || slower.ctx.Err() != nil {
			t.Fatal("a turn was taken away from nobody's way")
		}
		again := take(t.Context(), turns, "slow", time.Now()) // its own share is in its way, and nobody else
		time.Sleep(time.Hour)
		if has(again) || slow.ctx.Err() != nil {
			t.Fatal("a host takes its own turn away")
		}
		good := take(t.Context(), turns, "good", time.Now())
		if !errors.Is(context.Cause(slow.ctx), ErrSlow) || slower.ctx.Err() != nil {
			t.Errorf("%v, %v: want the one that is held longest taken away, and one for each who waits", context.Cause(slow.ctx), slower.ctx.Err())
		}
		if has(good) {
			t.Error("the turn is given on before it is given back")
		}
		slow.done()
		// The host that was slow was due before, and has its share free again: it is next, and the good one after it.
		if !has(again) {
			t.Error("who was due first does not have it")
		}
		time.Sleep(2 * time.Minute)
		if !errors.Is(context.Cause(slower.ctx), ErrSlow) {
			t.Error("the next is not taken away")
		}
		slower.done()
		if !has(good) {
			t.Error("the good one has no turn")
		}
		(<-good).done()
		(<-again).done()
	})
}

func TestWhoLeavesTheQueueKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(1, 1, 0)
		first := <-take(t.Context(), turns, "a", time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		gone := take(ctx, turns, "b", time.Now())
		cancel()
		if got := <-gone; !errors.Is(got.err, context.Canceled) {
			t.Error(got.err)
		}
		first.done()
		if next := take(t.Context(), turns, "c", time.Now()); !has(next) {
			t.Error("the turn is lost")
		} else {
			(<-next).done()
		}
	})
}

// However they come and go: never more than all, never more than a host's share, and everybody has a turn in the end.
func TestTurnsHoldUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total, each = 5, 2
		turns := NewTurns(total, each, 10*time.Second)
		var mu sync.Mutex
		holding, done, slow := map[string]int{}, 0, 0
		var all sync.WaitGroup
		hosts := []string{"a", "b", "c", "d", "silent"}
		for n := range 400 {
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(n), 1))
				time.Sleep(time.Duration(r.IntN(300)) * time.Second)
				host := hosts[n%len(hosts)]
				ctx, over, err := turns.Take(t.Context(), host, time.Now())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				holding[host]++
				sum := 0
				for _, h := range holding {
					sum += h
				}
				if sum > total || holding[host] > each {
					t.Errorf("%d turns, %d of %s", sum, holding[host], host)
				}
				mu.Unlock()
				patience := time.Duration(r.IntN(4000)) * time.Millisecond
				if host == "silent" {
					patience = time.Hour
				}
				select {
				case <-ctx.Done():
				case <-time.After(patience):
				}
				mu.Lock()
				holding[host]--
				done++
				if errors.Is(context.Cause(ctx), ErrSlow) {
					slow++
				}
				mu.Unlock()
				over()
			})
		}
		all.Wait()
		if done != 400 || slow == 0 || len(turns.held)+len(turns.waiting) > 0 {
			t.Errorf("%d done, %d taken away, %d held, %d wait", done, slow, len(turns.held), len(turns.waiting))
		}
	})
}
