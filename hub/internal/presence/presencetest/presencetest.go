// Package presencetest opens sessions for tests that look at what the spokes of a fleet are told.
package presencetest

import (
	"sync"

	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Session is a session whose spoke does nothing.
type Session struct {
	*presence.Session
	told
}

type told struct {
	wake chan struct{}
	over chan struct{}
	once *sync.Once
}

// Register opens a session of a cluster.
func Register(r *presence.Registry, cluster fleet.Cluster) *Session {
	t := told{make(chan struct{}, 1), make(chan struct{}), &sync.Once{}}
	return &Session{r.Register(cluster, t), t}
}

// Wake receives after the spoke was woken; several times may become one.
func (t told) Wake() <-chan struct{} { return t.wake }

// Done is closed when somebody else ended the session.
func (t told) Done() <-chan struct{} { return t.over }

// Woken implements presence.Listener.
func (t told) Woken() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Over implements presence.Listener.
func (t told) Over(error) { t.once.Do(func() { close(t.over) }) }
