package store

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// maxGroup bounds how many changes share a transaction, and with it how long one waits for the others.
const maxGroup = 16_384

// buckets is what a record is read from: a transaction that writes, or one that does not.
type buckets interface {
	Bucket(name []byte) *bolt.Bucket
}

// txn is a transaction that writes, with what becomes of memory once it is on disk. There is one at a time.
type txn struct {
	*bolt.Tx
	heads    *heads            // of the chains of events that it made longer
	appended int               // events
	acks     map[string]uint64 // of events that it does not write
	then     []func()          // once it is on disk and in memory
}

// OnCommit has do called once the transaction is on disk and memory has followed. It hides bbolt's, which
// comes before the latter.
func (tx *txn) OnCommit(do func()) { tx.then = append(tx.then, do) }

// untouched is said by a change that wrote nothing, with why it was refused, or nil: the others of its group
// need not be done again.
type untouched struct{ error }

func (u untouched) Error() string {
	if u.error == nil {
		return "nothing to write"
	}
	return u.error.Error()
}

func (u untouched) Unwrap() error { return u.error }

// mutation is a change that waits for the disk.
type mutation struct {
	change func(*txn) error
	of     string // what it changes most of: a key
	shares bool   // a transaction with others, and may be run more than once
	answer chan struct{}
	err    error
	panic  any
}

// committer makes one transaction, with its two syncs of the disk, of all the changes that wait: what has gathered
// while the group before was written. Its goroutine lives while there is something to write, so that the thousands who
// call need not have stacks for that. Each caller waits for its answer, so that what is waiting is bounded by who calls.
//
// bbolt's Batch does the like, but waits for company by the clock, and gives each group a goroutine that stands
// in line for the write lock: under ten thousand callers that is many small groups.
type committer struct {
	mu      sync.Mutex
	waiting []*mutation
	led     bool
	heads   *heads // of the transaction under way
	closed  bool
	idle    chan struct{} // closed when nobody leads, after closed

	writes, changes, failures atomic.Uint64
	trouble                   atomic.Pointer[Trouble]
}

// Trouble is why nothing can be written.
type Trouble struct {
	Since time.Time
	Err   error
}

// Stats counts since the store was opened.
type Stats struct {
	Writes   uint64   // transactions that were committed; each syncs the disk twice
	Changes  uint64   // that they were made of
	Failures uint64   // transactions that could not be committed
	Trouble  *Trouble // nil: the last one could
	Size     int64    // of the file, in bytes
	Free     int64    // of them, in pages that are free
}

// Stats is safe to call at any time.
func (s *Store) Stats() Stats {
	c, db := &s.commits, s.db.Stats()
	st := Stats{Writes: c.writes.Load(), Changes: c.changes.Load(), Failures: c.failures.Load(), Trouble: c.trouble.Load()}
	st.Free = int64(db.FreePageN+db.PendingPageN) * int64(s.db.Info().PageSize)
	_ = s.db.View(func(tx *bolt.Tx) error { // an error: the store is closed, and has no size
		st.Size = tx.Size()
		return nil
	})
	return st
}

// update makes a change in a transaction of its own, once.
func (s *Store) update(change func(*txn) error) error {
	return s.submit(&mutation{change: change})
}

// share makes a change in a transaction that it shares with others. change may be run more than once, and of
// what it says only the last counts.
func (s *Store) share(change func(*txn) error) error {
	return s.submit(&mutation{change: change, shares: true})
}

// shareOf is share for what changes mostly records whose keys begin so.
func (s *Store) shareOf(key string, change func(*txn) error) error {
	return s.submit(&mutation{change: change, of: key, shares: true})
}

func (s *Store) submit(m *mutation) error {
	m.answer = make(chan struct{}, 1)
	c := &s.commits
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.waiting = append(c.waiting, m)
	leads := !c.led
	c.led = true
	c.mu.Unlock()
	if leads {
		go s.lead()
	}
	<-m.answer
	if m.panic != nil {
		panic(m.panic)
	}
	return m.err
}

// lead commits what waits, until nothing does.
func (s *Store) lead() {
	for {
		// Those whom the last group answered are about to come again: a look at them first makes one group of
		// what would be two.
		runtime.Gosched()
		group := s.commits.take()
		if len(group) == 0 {
			return
		}
		s.commit(group)
	}
}

// take are those that are committed next, the oldest first; none: who leads does not any more.
func (c *committer) take() []*mutation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		if c.led = false; c.closed {
			close(c.idle)
		}
		return nil
	}
	n := 1
	if c.waiting[0].shares {
		for n < len(c.waiting) && n < maxGroup && c.waiting[n].shares {
			n++
		}
	}
	group := c.waiting[:n:n]
	if c.waiting = c.waiting[n:]; len(c.waiting) == 0 {
		c.waiting = nil // lets go of the array
	}
	return group
}

// close waits until nothing is under way, and refuses what comes then.
func (c *committer) close() {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	if first && !c.led {
		close(c.idle)
	}
	c.mu.Unlock()
	<-c.idle
}

// commit brings a group to disk and answers it. One that fails after it has written something takes the whole
// transaction with it: the others are done again without it, and then it alone, so that what it is told came
// of what is on disk.
func (s *Store) commit(group []*mutation) {
	const patience = 4 // then each alone: many that fail must not have the others done again and again
	// Keys in their order are found where the one before was.
	slices.SortStableFunc(group, func(a, b *mutation) int { return strings.Compare(a.of, b.of) })
	var alone []*mutation
	for len(group) > 0 {
		failed := s.try(group)
		if failed < 0 {
			break
		}
		alone = append(alone, group[failed])
		rest := append(append([]*mutation(nil), group[:failed]...), group[failed+1:]...)
		if group = rest; len(alone) == patience {
			alone, group = append(alone, group...), nil
		}
	}
	for _, m := range alone {
		s.try([]*mutation{m})
	}
}

// try is one transaction. It answers the group, or returns which of several has to be left out.
func (s *Store) try(group []*mutation) (failed int) {
	tx, err := s.begin()
	if err != nil {
		return finish(group, err)
	}
	done := 0
	for i, m := range group {
		m.err, m.panic = nil, nil
		if run(m, tx); m.err == nil && m.panic == nil {
			done++
			continue
		}
		if _, clean := m.err.(untouched); clean && m.panic == nil {
			continue
		}
		s.abandon(tx)
		if len(group) > 1 {
			return i
		}
		return finish(group, nil)
	}
	if done == 0 { // nothing was written
		s.abandon(tx)
		for _, do := range tx.then {
			do()
		}
		return finish(group, nil)
	}
	if err := s.end(tx); err != nil {
		s.failed(err)
		return finish(group, fmt.Errorf("write store %s: %w", s.db.Path(), err))
	}
	s.worked(done)
	return finish(group, nil)
}

func run(m *mutation, tx *txn) {
	defer func() { m.panic = recover() }()
	m.err = m.change(tx)
}

// finish answers all; err, where there is one, is everybody's.
func finish(group []*mutation, err error) int {
	for _, m := range group {
		if err != nil {
			m.err = err
		}
		if u, ok := m.err.(untouched); ok {
			m.err = u.error
		}
		m.answer <- struct{}{}
	}
	return -1
}

func (s *Store) begin() (*txn, error) {
	tx, err := s.db.Begin(true)
	if err != nil {
		return nil, err
	}
	s.commits.heads.forget()
	return &txn{Tx: tx, heads: s.commits.heads}, nil
}

// abandon forgets a transaction.
func (s *Store) abandon(tx *txn) {
	s.memory.forget()
	_ = tx.Rollback() // fails only where it is over
}

// end brings a transaction to disk, and then memory after it.
func (s *Store) end(tx *txn) error {
	err := s.settleEvents(tx)
	if err == nil {
		err = tx.Commit() // rolls back where it fails
	}
	if err != nil {
		s.abandon(tx)
		return err
	}
	s.memory.commit()
	tx.heads.commit()
	for _, do := range tx.then {
		do()
	}
	return nil
}

// failed tells of the first of a series: each caller has the error too.
func (s *Store) failed(err error) {
	c := &s.commits
	c.failures.Add(1)
	now := time.Now()
	if before := c.trouble.Load(); before != nil {
		now = before.Since
	} else {
		s.log.Error("store: nothing can be written", slog.String(logging.Path, s.db.Path()), slog.Any(logging.Error, err), slog.String(logging.Reason, remedy(err, s.db.Path())))
	}
	c.trouble.Store(&Trouble{Since: now, Err: err})
}

func (s *Store) worked(changes int) {
	c := &s.commits
	c.writes.Add(1)
	c.changes.Add(uint64(changes))
	if t := c.trouble.Swap(nil); t != nil {
		s.log.Info("store: can be written again", slog.String(logging.Path, s.db.Path()), slog.Duration(logging.Duration, time.Since(t.Since)))
	}
}

// remedy is what a person does about it. What is on disk is whole, whatever it is.
func remedy(err error, path string) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fmt.Sprintf("make room: `df -h %s` and `du -sh` of what is beside it; the hub goes on by itself", path)
	}
	return fmt.Sprintf("look at the disk of %s; the hub goes on by itself once it can write", path)
}

// Trouble is why nothing can be written now, since when, and what to do; empty: it can, as far as is known.
func (s *Store) Trouble() string {
	t := s.commits.trouble.Load()
	if t == nil {
		return ""
	}
	return fmt.Sprintf("nothing can be stored since %s, and nothing is acknowledged: %v; %s", t.Since.UTC().Format(time.RFC3339), t.Err, remedy(t.Err, s.db.Path()))
}
