package conductor

import (
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// verdict is what a row counts as, and whether it wants a person. Each row of the fleet has one, and few are shown:
// it is come to without the texts.
type verdict struct {
	class     class
	attention bool
}

// judge is for a subscription of a cluster; for one without any, nil.
func (s *screen) judge(c *ClusterNews, i *fleet.Installation) verdict {
	how, said := s.freshness(c), wording{}
	if i != nil && (how == heard || how == awaited) {
		said = s.word(s.view(c, i))
	}
	return verdictOf(how, c, i, said)
}

// verdictOf needs what is said of the subscription only where its news is fresh or awaited.
func verdictOf(how freshness, c *ClusterNews, i *fleet.Installation, said wording) verdict {
	switch {
	case i == nil && c.Joined.IsZero():
		return verdict{}
	case how == unserved:
		return verdict{stale, c.Standing != store.Rejected}
	case how == silent:
		return verdict{stale, true}
	case i == nil:
		return verdict{}
	case how == awaited: // old news of success is no news; old news of trouble still wants a person
		return verdict{idle, said.attention}
	}
	return verdict{said.class, said.attention || i.Health == fleet.Degraded || i.Alarm != ""}
}

// class is what a row counts as in its distribution's summary: exactly one thing.
type class int

const (
	idle class = iota // nothing runs and nothing is to be taken
	upToDate
	progressing
	pinned
	failed
	stale
)

func (c class) count(s *fleetv1.DistributionSummary) {
	s.Clusters++
	switch c {
	case upToDate:
		s.UpToDate++
	case progressing:
		s.Progressing++
	case pinned:
		s.Pinned++
	case failed:
		s.Failed++
	case stale:
		s.Stale++
	}
}

// freshness is how far the news of a cluster can be trusted.
type freshness int

const (
	heard    freshness = iota
	awaited            // old only because this hub has just started
	silent             // old
	unserved           // whatever it ran when it was last heard: the hub does not serve its identity
)

func (s *screen) freshness(c *ClusterNews) freshness {
	switch {
	case c.Standing != store.Accepted:
		return unserved
	case c.reconnecting(s.now, s.heartbeat, s.fleet.Since):
		return awaited
	case c.stale(s.now, s.heartbeat):
		return silent
	}
	return heard
}

func (c *ClusterNews) stale(now time.Time, heartbeat time.Duration) bool {
	return now.Sub(c.lastWord()) > missedHeartbeats*heartbeat
}

// reconnecting: the news is old only because this hub has just started; spokes have as long as they
// have for any silence to connect.
func (c *ClusterNews) reconnecting(now time.Time, heartbeat time.Duration, since time.Time) bool {
	return c.stale(now, heartbeat) && c.lastWord().Before(since) && now.Sub(since) <= missedHeartbeats*heartbeat
}

// reconnecting is the status word of a spoke that was not heard since the hub started.
const reconnecting = "Reconnecting"

func waitsFor(now, since time.Time) string {
	return fmt.Sprintf("the hub started %s ago and its spoke has not connected again yet", fleet.Age(now, since))
}

// lastWord: joining was a word too.
func (c *ClusterNews) lastWord() time.Time {
	if c.LastSeen.After(c.Joined) {
		return c.LastSeen
	}
	return c.Joined
}

func (c *ClusterNews) staleWord(now time.Time) string {
	return "Stale(" + fleet.Age(now, c.lastWord()) + ")"
}
