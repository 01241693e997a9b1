package tagwatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrSlow: a turn took so long, while others waited, that it was taken away.
var ErrSlow = errors.New("it took too long while others waited for a connection")

// Turns is one budget that many watchers share: of connections, or of memory. Whoever was due first is next, unless
// its host has its share already; so a host that is slow or silent holds up no other. Safe for concurrent use.
type Turns struct {
	total, each int
	patience    time.Duration

	mu      sync.Mutex
	held    []*turn   // the longest held first
	waiting []*waiter // the first due first
}

type turn struct {
	host   string
	since  time.Time
	cancel context.CancelCauseFunc
}

type waiter struct {
	host  string
	due   time.Time
	ready chan *turn // of room one: nobody waits to grant
}

// NewTurns gives at most total turns at once, and at most each of them to one host. Where all are held and somebody
// waits, the one that is held longest is cancelled with ErrSlow once it has been held for patience; 0: none is.
func NewTurns(total, each int, patience time.Duration) *Turns {
	return &Turns{total: total, each: each, patience: patience}
}

// Take waits for a turn. due decides who is next; the empty host is nobody's share. The work is to be done with the
// context that is returned, and done called when it is over. On an error there is no turn.
func (t *Turns) Take(ctx context.Context, host string, due time.Time) (work context.Context, done func(), err error) {
	w := &waiter{host: host, due: due, ready: make(chan *turn, 1)}
	t.mu.Lock()
	at, _ := slices.BinarySearchFunc(t.waiting, w, func(a, b *waiter) int { return cmp.Or(a.due.Compare(b.due), -1) }) // behind whoever is due at the same time
	t.waiting = slices.Insert(t.waiting, at, w)
	t.grantLocked()
	t.mu.Unlock()
	for {
		timer := time.NewTimer(t.press(w))
		select {
		case got := <-w.ready:
			timer.Stop()
			work, cancel := context.WithCancelCause(ctx)
			t.mu.Lock()
			got.cancel = cancel
			t.mu.Unlock()
			return work, func() { t.release(got); cancel(nil) }, nil
		case <-ctx.Done():
			timer.Stop()
			t.leave(w)
			return nil, nil, fmt.Errorf("waiting for a turn: %w", ctx.Err())
		case <-timer.C:
		}
	}
}

// grantLocked hands out what is free.
func (t *Turns) grantLocked() {
	for i := 0; i < len(t.waiting) && len(t.held) < t.total; {
		w := t.waiting[i]
		if t.fullLocked(w.host) {
			i++
			continue
		}
		got := &turn{host: w.host, since: time.Now()}
		t.held = append(t.held, got)
		t.waiting = slices.Delete(t.waiting, i, i+1)
		w.ready <- got
	}
}

// fullLocked: the host has its share.
func (t *Turns) fullLocked(host string) bool {
	if host == "" {
		return false
	}
	n := 0
	for _, h := range t.held {
		if h.host == host {
			n++
		}
	}
	return n >= t.each
}

const noPressure = time.Hour // until a waiter looks again

// press takes the longest held turn away where it stands in a waiter's way for too long, and says when to look again.
func (t *Turns) press(w *waiter) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.patience == 0 || len(t.held) < t.total || t.fullLocked(w.host) || !slices.Contains(t.waiting, w) {
		return min(noPressure, cmp.Or(t.patience, noPressure))
	}
	for _, h := range t.held {
		if h.cancel == nil {
			continue // it has just begun, or was taken away
		}
		if left := t.patience - time.Since(h.since); left > 0 {
			return left
		}
		h.cancel(ErrSlow)
		h.cancel = nil
		break // one for each who waits
	}
	return t.patience
}

func (t *Turns) release(got *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = slices.DeleteFunc(t.held, func(h *turn) bool { return h == got })
	t.grantLocked()
}

// leave gives up waiting, and gives back what was granted meanwhile.
func (t *Turns) leave(w *waiter) {
	t.mu.Lock()
	t.waiting = slices.DeleteFunc(t.waiting, func(o *waiter) bool { return o == w })
	t.mu.Unlock()
	select {
	case got := <-w.ready:
		t.release(got)
	default:
	}
}
