package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Words that a cluster counts as for a release, beside the phases of its delivery.
const (
	CountWaiting  = "Waiting"  // its turn in the rollout has not come, or another release has to run first
	CountOffered  = "Offered"  // it may take the release and has not begun
	CountPinned   = "Pinned"   // its provider, or somebody at the hub, holds it back
	CountDeclined = "Declined" // its provider said no
	CountSilent   = "Silent"   // it would take the release, and nothing is heard of it
)

// Tally is how many clusters stand where with one release: by a phase or one of the words above. Clusters
// that the release does not concern are not in it.
type Tally map[string]uint32

// Add counts one cluster more.
func (t Tally) Add(word string) { t[word]++ }

// Sum is a tally in four numbers.
type Sum struct {
	Done     uint64 // run the release
	Failed   uint64 // did not come to run it
	Held     uint64 // do not take it, and are not to for now: neither a failure nor waited for
	UnderWay uint64 // are to run it and do not yet; words that are not known too
}

// All is how many clusters the release concerns.
func (s Sum) All() uint64 { return s.Done + s.Failed + s.Held + s.UnderWay }

// Sum adds the words up.
func (t Tally) Sum() (s Sum) {
	for word, n := range t {
		*s.group(word) += uint64(n)
	}
	return s
}

func (s *Sum) group(word string) *uint64 {
	switch p := Phase(word); {
	case p == Succeeded:
		return &s.Done
	case p.Failed():
		return &s.Failed
	case word == CountPinned, word == CountDeclined, word == CountSilent, p == AwaitingConfig:
		return &s.Held
	}
	return &s.UnderWay
}

// Brief is the tally in a line: "7 of 10 clusters run 1.2.0; 1 RolledBack; 1 under way; 1 Pinned". With
// more clusters than exact it says what share runs the release, and not how many are under way, so that a
// large fleet does not change the line with every cluster; 0: exact for all.
func (t Tally) Brief(version string, exact uint64) string {
	s := t.Sum()
	all := s.All()
	large := exact > 0 && all > exact
	var parts []string
	switch {
	case all == 0:
		return "no cluster is to run " + version
	case large:
		parts = append(parts, fmt.Sprintf("%d %% of %d clusters run %s", 100*s.Done/all, all, version))
	default:
		parts = append(parts, fmt.Sprintf("%d of %d clusters run %s", s.Done, all, version))
	}
	parts = append(parts, t.words(s, func(of *Sum) uint64 { return of.Failed })...)
	if s.UnderWay > 0 && !large {
		parts = append(parts, fmt.Sprintf("%d under way", s.UnderWay))
	}
	if large && s.Held > 0 {
		return strings.Join(append(parts, fmt.Sprintf("%d %% held back", 100*s.Held/all)), "; ")
	}
	return strings.Join(append(parts, t.words(s, func(of *Sum) uint64 { return of.Held })...), "; ")
}

// words lists those of one group, each with its number.
func (t Tally) words(all Sum, of func(*Sum) uint64) (parts []string) {
	if of(&all) == 0 {
		return nil
	}
	for _, word := range slices.Sorted(maps.Keys(t)) {
		var one Sum
		*one.group(word) = uint64(t[word])
		if n := of(&one); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, word))
		}
	}
	return parts
}
