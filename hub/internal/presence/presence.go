// Package presence knows which spokes are connected now, wakes their streams when there is something
// new for them, and tells watchers that the fleet changed. It keeps everything in memory and knows
// nothing of what is said on a stream.
package presence

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

var (
	// ErrSuperseded: the cluster has a newer session.
	ErrSuperseded = errors.New("a newer session of this cluster took over")
	// ErrEnded: the cluster's identity was ended while it was connected.
	ErrEnded = errors.New("the cluster was removed or joined again")
)

// Registry is safe for concurrent use.
type Registry struct {
	mu       sync.Mutex
	epoch    uint64 // of the newest session
	sessions map[fleet.Cluster]*Session
	seen     map[fleet.Cluster]time.Time
	off      map[fleet.Cluster]time.Duration // clocks that are off by more than clockSlack
	watchers map[chan struct{}]struct{}
}

// clockSlack is how far a spoke's clock may be from the hub's and still count as right: what is measured
// includes the time that a message was on its way.
const clockSlack = time.Minute

// New makes an empty registry.
func New() *Registry {
	return &Registry{
		sessions: map[fleet.Cluster]*Session{},
		seen:     map[fleet.Cluster]time.Time{},
		off:      map[fleet.Cluster]time.Duration{},
		watchers: map[chan struct{}]struct{}{},
	}
}

// Listener is told what concerns a session, by whoever causes it, who must not be made to wait.
type Listener interface {
	Woken()         // there may be something new for the cluster
	Over(why error) // ErrSuperseded or ErrEnded; not of a session that is closed
}

// Session is one live stream of a cluster.
type Session struct {
	// Epoch is larger than that of every earlier session, over restarts of the hub too as long as its
	// clock does not go back.
	Epoch uint64

	cluster  fleet.Cluster
	registry *Registry
	listener Listener
}

// Register opens a session and ends the one that the cluster had.
func (r *Registry) Register(cluster fleet.Cluster, l Listener) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(cluster, ErrSuperseded)
	now := time.Now()
	// The clock makes epochs grow over restarts, the increment within one.
	r.epoch = max(r.epoch+1, uint64(now.UnixNano()))
	s := &Session{Epoch: r.epoch, cluster: cluster, registry: r, listener: l}
	r.sessions[cluster] = s
	r.seenLocked(cluster, now)
	r.changedLocked()
	return s
}

// Close ends the session; closing one that is over changes nothing.
func (s *Session) Close() {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if s.registry.sessions[s.cluster] != s {
		return
	}
	delete(s.registry.sessions, s.cluster)
	s.registry.changedLocked()
}

// End ends the live session of a cluster that was removed or joined again, and forgets when it was last
// seen: the old spoke's news is not the new one's.
func (r *Registry) End(cluster fleet.Cluster) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(cluster, ErrEnded)
	delete(r.seen, cluster)
	delete(r.off, cluster)
	r.changedLocked()
}

func (r *Registry) endLocked(cluster fleet.Cluster, why error) {
	s, ok := r.sessions[cluster]
	if !ok {
		return
	}
	delete(r.sessions, cluster)
	s.listener.Over(why)
}

// Wake tells the sessions of these clusters that there is something new for them.
func (r *Registry) Wake(clusters ...fleet.Cluster) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range clusters {
		if s, ok := r.sessions[c]; ok {
			s.listener.Woken()
		}
	}
}

// WakeAll wakes every session.
func (r *Registry) WakeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sessions {
		s.listener.Woken()
	}
}

// Seen records that the cluster's spoke said something; an earlier time than the known one is ignored.
func (r *Registry) Seen(cluster fleet.Cluster, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seenLocked(cluster, at)
}

func (r *Registry) seenLocked(cluster fleet.Cluster, at time.Time) {
	if at.After(r.seen[cluster]) {
		r.seen[cluster] = at
	}
}

// Connected reports whether the cluster has a live session.
func (r *Registry) Connected(cluster fleet.Cluster) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.sessions[cluster]
	return ok
}

// LastSeen is when the cluster's spoke last said anything to this process; zero for never.
func (r *Registry) LastSeen(cluster fleet.Cluster) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[cluster]
}

// Clock records what time it was for the cluster's spoke when it was now for the hub.
func (r *Registry) Clock(cluster fleet.Cluster, theirs, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off := theirs.Sub(now); off.Abs() > clockSlack {
		r.off[cluster] = off
	} else {
		delete(r.off, cluster)
	}
}

// ClocksOff lists the clusters whose clocks are off by more than a minute, and by how much: more than zero
// where they are ahead.
func (r *Registry) ClocksOff() map[fleet.Cluster]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.off)
}

// Heard is when each cluster last said anything to this process.
func (r *Registry) Heard() map[fleet.Cluster]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.seen)
}

// Changed tells every subscriber that the fleet's picture changed. Sessions that come and go say so
// themselves; who stores something that operators see calls it.
func (r *Registry) Changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changedLocked()
}

func (r *Registry) changedLocked() {
	for w := range r.watchers {
		notify(w)
	}
}

// Subscribe returns a channel that receives after changes, coalesced, and what ends the subscription.
func (r *Registry) Subscribe() (changes <-chan struct{}, cancel func()) {
	w := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers[w] = struct{}{}
	return w, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, w)
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // a notice is waiting already
	}
}
