package conductor

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
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

// line is of a row what is counted, whether it is shown or not: with thousands of clusters and a limit, most rows
// are never made.
type line struct {
	news *ClusterNews
	i    *fleet.Installation // nil for a cluster without a subscription
	verdict
}

// row is a line of the table before it is made a message.
type row struct {
	line
	desired, would string
	phase, reason  string
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
	all := s.lines(distribution)
	resp := &fleetv1.GetStatusResponse{At: wire.Time(now), Total: uint32(len(all))}
	for n := range all {
		if all[n].attention {
			resp.Attention++
		}
		if i := all[n].i; i != nil {
			if sum := sums[i.Distribution]; sum != nil {
				all[n].class.count(sum)
			}
		}
	}
	for _, l := range first(all, limit) {
		resp.Rows = append(resp.Rows, s.row(l.news, l.i).message())
	}
	for _, sum := range sums {
		resp.Summaries = append(resp.Summaries, sum)
	}
	slices.SortFunc(resp.Summaries, func(a, b *fleetv1.DistributionSummary) int { return cmp.Compare(a.Distribution, b.Distribution) })
	return resp
}

// many clusters are worth a processor each: somebody waits for the answer.
const many = 1000

// lines are those of the table, by cluster and distribution.
func (s *screen) lines(distribution string) []line {
	n := len(s.fleet.Clusters)
	parts := make([][]line, max(1, min(runtime.GOMAXPROCS(0), n/many)))
	var all sync.WaitGroup
	for p := range parts {
		all.Go(func() {
			own := *s
			own.chosen = map[chosenFor]fleet.Selection{}
			parts[p] = own.linesOf(s.fleet.Clusters[p*n/len(parts):(p+1)*n/len(parts)], distribution)
		})
	}
	all.Wait()
	return slices.Concat(parts...)
}

func (s *screen) linesOf(clusters []ClusterNews, distribution string) []line {
	all := make([]line, 0, len(clusters))
	for n := range clusters {
		c := &clusters[n]
		list := bySubscription(s.fleet.Installations[c.Name])
		if len(list) == 0 && distribution == "" {
			all = append(all, line{c, nil, s.judge(c, nil)})
		}
		for k := range list {
			if i := &list[k]; distribution == "" || i.Distribution == distribution {
				all = append(all, line{c, i, s.judge(c, i)})
			}
		}
	}
	return all
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

// first are at most limit lines, those that want a person before the rest; 0: all as they are.
func first(all []line, limit int) []line {
	if limit <= 0 {
		return all
	}
	chosen := make([]line, 0, min(limit, len(all)))
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
	of          *parcel
	policy      selects
	version     string // what runs
	pin, source string
	extra       string // a release that is taken for offered
	stopless    bool   // as if no release had required stops
}

// selects is all of a policy that a selection depends on, its pin left out.
type selects struct {
	within              string
	prereleases         bool
	patch, minor, major fleet.Upgrade
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
	key.policy, key.version = selects{i.Policy.Range, i.Policy.Prereleases, i.Policy.Patch, i.Policy.Minor, i.Policy.Major}, i.Running
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
	r := row{line: line{news: c, verdict: s.judge(c, nil)}, phase: "NoSubscription", health: fleet.HealthUnknown, warnings: s.clockWarning(c)}
	switch how := s.freshness(c); {
	case c.Joined.IsZero():
		r.phase = "NotJoined"
		r.reason = fmt.Sprintf("its spoke has not joined; `hub cluster invite %s` prints the line to run", c.Name)
	case how == unserved:
		r.phase, r.reason = c.unserved()
	case how == awaited:
		r.phase, r.reason = reconnecting, waitsFor(s.now, s.fleet.Since)
	case how == silent:
		r.phase, r.stale = c.staleWord(s.now), true
		r.reason = fmt.Sprintf("nothing heard from its spoke for %s", fleet.Age(s.now, c.lastWord()))
	default:
		r.reason = "its spoke.yaml lists no subscription"
	}
	return r
}

// row is that of one subscription; of a cluster without any, for nil.
func (s *screen) row(c *ClusterNews, i *fleet.Installation) row {
	if i == nil {
		return s.empty(c)
	}
	v, how := s.view(c, i), s.freshness(c)
	said := s.word(v)
	r := row{line: line{c, i, verdictOf(how, c, i, said)}, desired: cmp.Or(i.Wants, v.want.Version), would: cmp.Or(i.Would, v.want.Would),
		phase: said.word, health: fleet.HealthUnknown, warnings: s.warnings(v)}
	if r.reason = cmp.Or(said.reason, v.want.Why); !said.quiet {
		r.reason = cmp.Or(i.Reason, r.reason)
	}
	switch how {
	case unserved:
		r.phase, r.reason = c.unserved()
	case awaited:
		if r.phase = reconnecting; !r.attention {
			r.reason = waitsFor(s.now, s.fleet.Since)
		}
	case silent:
		r.phase, r.stale = c.staleWord(s.now), true
		r.reason = strings.TrimSuffix(fmt.Sprintf("nothing heard from its spoke for %s; before that: %s", fleet.Age(s.now, c.lastWord()), r.reason), "; before that: ")
	case heard:
		r.health = cmp.Or(i.Health, fleet.HealthUnknown)
		if i.Health == fleet.Degraded {
			r.reason = cmp.Or(r.reason, i.HealthMessage)
		}
		if i.Alarm != "" { // its spoke has found this hub, or its vendor, out
			r.reason = i.Alarm
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
	for n := range stored {
		f.Clusters[n] = c.news(&stored[n])
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
