package channel

import (
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Seen is a statement as it came to somebody.
type Seen struct {
	Signed
	At time.Time
}

// Log is what one place was told, each statement once, in the order in which it came.
type Log []Seen

// maxLog is how many statements a place remembers.
const maxLog = 500

// Last is the statement that counts: the one with the highest sequence, the first of those with it.
func (l Log) Last() (Seen, bool) {
	var last Seen
	for _, s := range l {
		if s.Sequence > last.Sequence {
			last = s
		}
	}
	return last, last.Sequence > 0
}

// Add is the log with a statement that was verified, and whether it is a new one. What is not kept any more is
// the oldest.
func (l Log) Add(s Signed, at time.Time) (Log, bool) {
	d := s.Digest()
	if slices.ContainsFunc(l, func(o Seen) bool { return o.Digest() == d }) {
		return l, false
	}
	l = append(slices.Clone(l), Seen{s, at})
	return l[max(0, len(l)-maxLog):], true
}

// Fork is a proof: two statements that one chain cannot hold.
type Fork struct{ A, B Seen }

func (f Fork) String() string {
	if f.A.Sequence == f.B.Sequence {
		return fmt.Sprintf("two statements with the sequence %d: one says that %s is the latest, the other %s", f.A.Sequence, f.A.Latest, f.B.Latest)
	}
	return fmt.Sprintf("statement %d does not follow statement %d", f.B.Sequence, f.A.Sequence)
}

// Forks are all that logs hold of it together, one of them alone too.
func Forks(logs ...Log) []Fork {
	var all []Fork
	known := map[fleet.Digest]bool{}
	bySequence := map[uint64][]Seen{}
	var each []Seen
	for _, s := range slices.Concat(logs...) {
		d := s.Digest()
		if known[d] {
			continue
		}
		known[d] = true
		for _, other := range bySequence[s.Sequence] {
			all = append(all, Fork{other, s})
		}
		each, bySequence[s.Sequence] = append(each, s), append(bySequence[s.Sequence], s)
	}
	for _, s := range each {
		for _, before := range bySequence[s.Sequence-1] {
			if s.Previous != before.Digest() {
				all = append(all, Fork{before, s})
			}
		}
	}
	return all
}
