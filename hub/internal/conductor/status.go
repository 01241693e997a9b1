package conductor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// Heartbeats that may be missing before a spoke's news counts as old.
const missedHeartbeats = 3

// reasonLength is how much of a reason fits into a status word, in runes.
const reasonLength = 60

// clocks knows whose clock is off, and by how much.
type clocks interface {
	ClocksOff() map[fleet.Cluster]time.Duration
}

// ClusterNews is one cluster and how fresh its news is.
type ClusterNews struct {
	Name      fleet.Cluster
	Labels    map[string]string
	Joined    time.Time // zero: never
	Connected bool
	LastSeen  time.Time // the last word of any kind; zero: none that the hub remembers

	Standing    store.Standing // of its identity
	StandingWhy string
	Key         fleet.Fingerprint
}

// Fleet is everything that the status is computed from, read at one moment.
type Fleet struct {
	// Since is when this hub began to listen: of what came before, it knows only what was stored.
	Since         time.Time
	Clusters      []ClusterNews // by name
	Installations map[fleet.Cluster][]fleet.Installation
	// Offerings of the distributions that are watched.
	Offerings map[string]*offering
	// ClocksOff are the clusters whose clocks are off, and by how much.
	ClocksOff map[fleet.Cluster]time.Duration
}

// row is a line of the table before it is made a message: with thousands of clusters and a limit, most
// never are.
type row struct {
	news *ClusterNews
	i    *fleet.Installation // nil for a cluster without a subscription

	desired, would string
	phase, reason  string
	class          class
	attention      bool
	stale          bool
	health         fleet.Health
	warnings       []string
}

// Screen is the fleet's table, and a summary of each distribution. distribution narrows both to one; empty:
// all. With a limit, the table has at most so many rows, those that want a person first; else it has all,
// by cluster and distribution. It is pure.
func Screen(now time.Time, heartbeat time.Duration, distribution string, limit int, f Fleet) *fleetv1.GetStatusResponse {
	s := newScreen(now, heartbeat, f)
	sums := map[string]*fleetv1.DistributionSummary{}
	for name, o := range f.Offerings {
		if distribution == "" || distribution == name {
			sums[name] = summary(name, o)
		}
	}
	all := make([]row, 0, len(f.Clusters))
	resp := &fleetv1.GetStatusResponse{At: wire.Time(now)}
	for n := range f.Clusters {
		c := &f.Clusters[n]
		list := bySubscription(f.Installations[c.Name])
		if len(list) == 0 && distribution == "" {
			all = append(all, s.empty(c))
		}
		for k := range list {
			i := &list[k]
			if distribution != "" && i.Distribution != distribution {
				continue
			}
			r := s.row(c, i)
			if sum := sums[i.Distribution]; sum != nil {
				r.class.count(sum)
			}
			all = append(all, r)
		}
	}
	resp.Total = uint32(len(all))
	for n := range all {
		if all[n].attention {
			resp.Attention++
		}
	}
	for _, r := range first(all, limit) {
		resp.Rows = append(resp.Rows, r.message())
	}
	for _, sum := range sums {
		resp.Summaries = append(resp.Summaries, sum)
	}
	slices.SortFunc(resp.Summaries, func(a, b *fleetv1.DistributionSummary) int { return cmp.Compare(a.Distribution, b.Distribution) })
	return resp
}

// bySubscription sorts what a spoke listed; nearly always it is one.
func bySubscription(list []fleet.Installation) []fleet.Installation {
	order := func(a, b fleet.Installation) int { return cmp.Compare(a.Distribution, b.Distribution) }
	if slices.IsSortedFunc(list, order) {
		return list
	}
	list = slices.Clone(list) // the store's
	slices.SortFunc(list, order)
	return list
}

// first are at most limit rows, those that want a person before the rest; 0: all as they are.
func first(all []row, limit int) []row {
	if limit <= 0 {
		return all
	}
	chosen := make([]row, 0, min(limit, len(all)))
	for _, attention := range []bool{true, false} {
		for n := 0; n < len(all) && len(chosen) < limit; n++ {
			if all[n].attention == attention {
				chosen = append(chosen, all[n])
			}
		}
	}
	return chosen
}

// screen computes rows. What many clusters have in common is computed once.
type screen struct {
	now       time.Time
	heartbeat time.Duration
	fleet     Fleet
	chosen    map[chosenFor]fleet.Selection
	under     map[string][]running
}

// chosenFor is all that a selection depends on.
type chosenFor struct {
	of              *parcel
	policy, version string // range and levels; what runs
	pin, source     string
	extra           string // a release that is taken for offered
	stopless        bool   // as if no release had required stops
}

// running is a rollout that is not over.
type running struct {
	rollout.State
	waits   string
	leftOut map[fleet.Cluster]bool
}

func newScreen(now time.Time, heartbeat time.Duration, f Fleet) *screen {
	s := &screen{now: now, heartbeat: heartbeat, fleet: f, chosen: map[chosenFor]fleet.Selection{}, under: map[string][]running{}}
	for name, o := range f.Offerings {
		for _, r := range slices.Backward(o.shelf.underWay()) {
			u := running{State: r, waits: r.Waits(), leftOut: make(map[fleet.Cluster]bool, len(r.LeftOut))}
			for _, c := range r.LeftOut {
				u.leftOut[c] = true
			}
			s.under[name] = append(s.under[name], u)
		}
	}
	return s
}

// choose is what a subscription's policy selects of what it is offered.
func (s *screen) choose(p *parcel, i *fleet.Installation) fleet.Selection {
	return s.chooseFor(chosenFor{of: p}, i)
}

func (s *screen) chooseFor(key chosenFor, i *fleet.Installation) fleet.Selection {
	key.policy, key.version = policyKey(i.Policy), i.Running
	pin := i.Policy.PinAt(s.now)
	if pin != nil {
		key.pin, key.source = pin.Version, pin.Source
	}
	found, ok := s.chosen[key]
	if ok {
		return found
	}
	c := key.of.choice(s.now, i.Running)
	if key.extra != "" {
		c.Offered = append(slices.Clone(c.Offered), fleet.Offered{Version: key.extra})
	}
	if key.stopless {
		c.Offered = slices.Clone(c.Offered)
		for n := range c.Offered {
			c.Offered[n].Stops = nil
		}
	}
	found, err := i.Policy.Select(c)
	if err != nil {
		found.Why = err.Error()
	}
	s.chosen[key] = found
	return found
}

// empty is the row of a cluster without subscriptions.
func (s *screen) empty(c *ClusterNews) row {
	r := row{news: c, phase: "NoSubscription", health: fleet.HealthUnknown}
	switch {
	case c.Joined.IsZero():
		r.phase = "NotJoined"
		r.reason = fmt.Sprintf("its spoke has not joined; `hub cluster invite %s` prints the line to run", c.Name)
	case c.unserved(&r):
	case c.reconnecting(s.now, s.heartbeat, s.fleet.Since):
		r.phase, r.reason = reconnecting, waitsFor(s.now, s.fleet.Since)
	case c.stale(s.now, s.heartbeat):
		r.phase, r.stale, r.attention = c.staleWord(s.now), true, true
		r.reason = fmt.Sprintf("nothing heard from its spoke for %s", fleet.Age(s.now, c.lastWord()))
	default:
		r.reason = "its spoke.yaml lists no subscription"
	}
	r.warnings = s.clockWarning(c)
	return r
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

// row is that of one subscription.
func (s *screen) row(c *ClusterNews, i *fleet.Installation) row {
	v := s.view(c, i)
	r := row{news: c, i: i, desired: cmp.Or(i.Wants, v.want.Version), would: cmp.Or(i.Would, v.want.Would), health: cmp.Or(i.Health, fleet.HealthUnknown)}
	said := s.word(v)
	if r.reason = cmp.Or(said.reason, v.want.Why); !said.quiet {
		r.reason = cmp.Or(i.Reason, r.reason)
	}
	r.warnings = s.warnings(v)
	switch {
	case c.unserved(&r):
		r.class, r.health = stale, fleet.HealthUnknown
	case c.reconnecting(s.now, s.heartbeat, s.fleet.Since):
		// Old news of success is no news; old news of trouble still wants a person.
		if r.attention = said.attention; !r.attention {
			r.reason = waitsFor(s.now, s.fleet.Since)
		}
		r.phase, r.health = reconnecting, fleet.HealthUnknown
	case c.stale(s.now, s.heartbeat):
		r.phase, r.stale, r.attention, r.class = c.staleWord(s.now), true, true, stale
		r.health = fleet.HealthUnknown
		r.reason = strings.TrimSuffix(fmt.Sprintf("nothing heard from its spoke for %s; before that: %s", fleet.Age(s.now, c.lastWord()), r.reason), "; before that: ")
	default:
		r.phase, r.class, r.attention = said.word, said.class, said.attention
		if i.Health == fleet.Degraded {
			r.attention, r.reason = true, cmp.Or(r.reason, i.HealthMessage)
		}
		if i.Alarm != "" { // its spoke has found this hub, or its vendor, out
			r.attention, r.reason = true, i.Alarm
		}
	}
	return r
}

// message is the row for the wire.
func (r row) message() *fleetv1.StatusRow {
	m := &fleetv1.StatusRow{Cluster: string(r.news.Name), Labels: r.news.Labels, DesiredVersion: r.desired, Would: r.would, Phase: r.phase,
		Reason: r.reason, Health: string(r.health), LastSeen: wire.Time(r.news.LastSeen), Stale: r.stale, Attention: r.attention, Warnings: r.warnings}
	if i := r.i; i != nil {
		m.Distribution, m.Variant, m.Namespace, m.Policy = i.Distribution, i.Variant, i.Namespace, wire.Policy(i.Policy)
		m.RunningVersion, m.TargetVersion, m.RawPhase, m.HealthMessage = i.Running, i.Target, string(i.Phase), i.HealthMessage
		m.Objects, m.Ready, m.DriftCorrected = uint32(i.Objects), uint32(i.Ready), uint32(i.DriftCorrected)
		m.Drifted, m.DriftMessage = uint32(i.Drifted), i.DriftMessage
		m.Canary = wire.Canary(i.Canary)
	}
	return m
}

// shorten keeps a reason to one line that fits into a table.
func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > reasonLength {
		return strings.TrimSpace(string(r[:reasonLength-1])) + "…"
	}
	return s
}

// Status is the fleet's table as of now, narrowed to one distribution unless that is empty, with at most
// limit rows unless that is 0.
func (c *Conductor) Status(now time.Time, distribution string, limit int) (*fleetv1.GetStatusResponse, error) {
	f, err := c.fleet()
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	resp := Screen(now, c.cfg.Heartbeat, distribution, limit, f)
	var under []rollout.State
	for _, sum := range resp.Summaries {
		o := f.Offerings[sum.Distribution]
		sum.Trouble = c.trouble(sum.Distribution)
		if sum.Preflight, err = c.tryingOut(now, sum.Distribution, o.trying); err != nil {
			return nil, err
		}
		sum.Ended, sum.Waiting = o.ended(), c.waits(o, o.latest())
		under = append(under, o.shelf.underWay()...)
	}
	slices.SortFunc(under, func(a, b rollout.State) int { return cmp.Compare(b.ID, a.ID) })
	for _, r := range under {
		resp.Rollouts = append(resp.Rollouts, rolloutMessage(r))
	}
	return resp, nil
}

// fleet reads what there is, all of it from memory.
func (c *Conductor) fleet() (Fleet, error) {
	f := Fleet{Since: c.since, Offerings: map[string]*offering{}, ClocksOff: c.cfg.Spokes.ClocksOff()}
	stored, err := c.cfg.Store.Clusters()
	if err != nil {
		return f, err
	}
	f.Clusters = make([]ClusterNews, len(stored))
	for n, s := range stored {
		f.Clusters[n] = c.news(s)
	}
	if f.Installations, err = c.cfg.Store.Installations(); err != nil {
		return f, err
	}
	p, err := c.picture()
	if err != nil {
		return f, err
	}
	distributions, err := c.cfg.Store.Distributions()
	if err != nil {
		return f, err
	}
	for _, d := range distributions {
		if f.Offerings[d.Name], err = c.offeringIn(p, d.Name); err != nil {
			return f, err
		}
	}
	return f, nil
}
