package conductor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// Heartbeats that may be missing before a spoke's news counts as old.
const missedHeartbeats = 3

// reasonLength is how much of a reason fits into a status word, in runes.
const reasonLength = 60

// ClusterNews is one cluster and how fresh its news is.
type ClusterNews struct {
	Name      fleet.Cluster
	Labels    map[string]string
	Joined    time.Time // zero: never
	Connected bool
	LastSeen  time.Time // the last word of any kind; zero: none that the hub remembers
}

// Fleet is everything that the status is computed from, read at one moment.
type Fleet struct {
	// Since is when this hub began to listen: of what came before, it knows only what was stored.
	Since         time.Time
	Clusters      []ClusterNews
	Installations map[fleet.Cluster][]fleet.Installation
	// Releases by distribution, ascending by version. A distribution that is watched has a key even
	// when it has no release.
	Releases map[string][]fleet.Release
	// Preflights by distribution and version: releases that nobody may take yet, and until when.
	Preflights map[string]map[string]time.Time
}

// StatusRows makes the fleet's table, sorted by cluster and distribution, and a summary of each
// distribution, sorted by name. distribution narrows both to one; empty: all. It is pure.
func StatusRows(now time.Time, heartbeat time.Duration, distribution string, f Fleet) ([]*fleetv1.StatusRow, []*fleetv1.DistributionSummary) {
	sums := map[string]*fleetv1.DistributionSummary{}
	available := map[string][]string{}
	for name, releases := range f.Releases {
		available[name] = slices.DeleteFunc(availableVersions(releases), func(v string) bool { _, trying := f.Preflights[name][v]; return trying })
		if distribution == "" || distribution == name {
			sums[name] = summary(name, releases)
		}
	}
	var rows []*fleetv1.StatusRow
	for _, c := range f.Clusters {
		installations := f.Installations[c.Name]
		if len(installations) == 0 && distribution == "" {
			rows = append(rows, emptyRow(now, heartbeat, f.Since, c))
		}
		for _, i := range installations {
			if distribution != "" && i.Distribution != distribution {
				continue
			}
			_, known := f.Releases[i.Distribution]
			r, class := installationRow(now, heartbeat, f.Since, c, i, available[i.Distribution], known)
			if v := awaited(i, r, f.Preflights[i.Distribution]); v != "" {
				r.Phase, r.Reason, r.Attention = fmt.Sprintf("Preflight(%s)", v), "", false
			}
			rows = append(rows, r)
			if s := sums[i.Distribution]; s != nil {
				class.count(s)
			}
		}
	}
	slices.SortFunc(rows, func(a, b *fleetv1.StatusRow) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Distribution, b.Distribution))
	})
	summaries := make([]*fleetv1.DistributionSummary, 0, len(sums))
	for _, s := range sums {
		summaries = append(summaries, s)
	}
	slices.SortFunc(summaries, func(a, b *fleetv1.DistributionSummary) int { return cmp.Compare(a.Distribution, b.Distribution) })
	return rows, summaries
}

func availableVersions(releases []fleet.Release) []string {
	var versions []string
	for _, r := range releases {
		if r.Phase == fleet.Available {
			versions = append(versions, r.Version)
		}
	}
	return versions
}

func offered(versions []string) []fleet.Offered {
	all := make([]fleet.Offered, len(versions))
	for n, v := range versions {
		all[n].Version = v
	}
	return all
}

// emptyRow is for a cluster without subscriptions.
func emptyRow(now time.Time, heartbeat time.Duration, since time.Time, c ClusterNews) *fleetv1.StatusRow {
	r := &fleetv1.StatusRow{Cluster: string(c.Name), Labels: c.Labels, Phase: "NoSubscription",
		Health: string(fleet.HealthUnknown), LastSeen: wire.Time(c.LastSeen)}
	switch {
	case c.Joined.IsZero():
		r.Phase = "NotJoined"
		r.Reason = fmt.Sprintf("its spoke has not joined; `hub cluster invite %s` prints the line to run", c.Name)
	case c.reconnecting(now, heartbeat, since):
		r.Phase, r.Reason = reconnecting, waitsFor(now, since)
	case c.stale(now, heartbeat):
		r.Phase, r.Stale, r.Attention = c.staleWord(now), true, true
		r.Reason = fmt.Sprintf("nothing heard from its spoke for %s", fleet.Age(now, c.lastWord()))
	default:
		r.Reason = "its spoke.yaml lists no subscription"
	}
	return r
}

func (c ClusterNews) stale(now time.Time, heartbeat time.Duration) bool {
	return now.Sub(c.lastWord()) > missedHeartbeats*heartbeat
}

// reconnecting: the news is old only because this hub has just started; spokes have as long as they
// have for any silence to connect.
func (c ClusterNews) reconnecting(now time.Time, heartbeat time.Duration, since time.Time) bool {
	return c.stale(now, heartbeat) && c.lastWord().Before(since) && now.Sub(since) <= missedHeartbeats*heartbeat
}

// reconnecting is the status word of a spoke that was not heard since the hub started.
const reconnecting = "Reconnecting"

func waitsFor(now, since time.Time) string {
	return fmt.Sprintf("the hub started %s ago and its spoke has not connected again yet", fleet.Age(now, since))
}

// lastWord: joining was a word too.
func (c ClusterNews) lastWord() time.Time {
	if c.LastSeen.After(c.Joined) {
		return c.LastSeen
	}
	return c.Joined
}

func (c ClusterNews) staleWord(now time.Time) string {
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

func installationRow(now time.Time, heartbeat time.Duration, since time.Time, c ClusterNews, i fleet.Installation, available []string, known bool) (*fleetv1.StatusRow, class) {
	want, err := i.Policy.Select(fleet.Choice{Now: now, Offered: offered(available), Running: i.Running})
	if err != nil {
		want.Why = err.Error()
	}
	r := &fleetv1.StatusRow{
		Cluster: string(c.Name), Labels: c.Labels, Distribution: i.Distribution, Variant: i.Variant, Namespace: i.Namespace,
		DesiredVersion: want.Version, RunningVersion: i.Running, RawPhase: string(i.Phase), Reason: cmp.Or(i.Reason, want.Why),
		TargetVersion: i.Target, Health: string(cmp.Or(i.Health, fleet.HealthUnknown)), HealthMessage: i.HealthMessage,
		LastSeen: wire.Time(c.LastSeen), Objects: uint32(i.Objects), Ready: uint32(i.Ready), DriftCorrected: uint32(i.DriftCorrected),
		Policy: wire.Policy(i.Policy), Drifted: uint32(i.Drifted), DriftMessage: i.DriftMessage,
	}
	if c.reconnecting(now, heartbeat, since) {
		// Old news of success is no news; old news of trouble still wants a person.
		_, _, r.Attention = word(i, want, available, known)
		if !r.Attention {
			r.Reason = waitsFor(now, since)
		}
		r.Phase, r.Health = reconnecting, string(fleet.HealthUnknown)
		return r, idle
	}
	if c.stale(now, heartbeat) {
		r.Phase, r.Stale, r.Attention = c.staleWord(now), true, true
		r.Health = string(fleet.HealthUnknown)
		r.Reason = strings.TrimSuffix(fmt.Sprintf("nothing heard from its spoke for %s; before that: %s", fleet.Age(now, c.lastWord()), r.Reason), "; before that: ")
		return r, stale
	}
	var k class
	r.Phase, k, r.Attention = word(i, want, available, known)
	if i.Health == fleet.Degraded {
		r.Attention, r.Reason = true, cmp.Or(r.Reason, i.HealthMessage)
	}
	return r, k
}

// word is the status word of fresh news, what it counts as, and whether it wants a person.
func word(i fleet.Installation, want fleet.Selection, available []string, known bool) (string, class, bool) {
	atPin := i.Policy.Pin != nil && i.Running == i.Policy.Pin.Version && i.Running != ""
	switch {
	case i.Phase == fleet.AwaitingConfig:
		return "AwaitingConfig(provider)", failed, true
	case i.Phase.Failed() && !(atPin && i.Phase != fleet.RollbackFailed && i.Target != i.Running):
		return fmt.Sprintf("%s(%s)", i.Phase, shorten(cmp.Or(i.Reason, i.Target, "no reason given"))), failed, true
	case i.Phase == fleet.AwaitingApproval:
		return "AwaitingApproval(provider)", progressing, true
	case i.Phase == fleet.RollingBack:
		return fmt.Sprintf("%s(%s)", i.Phase, shorten(cmp.Or(i.Reason, i.Target, i.Running))), progressing, false
	case i.Phase != fleet.PhaseNone && !i.Phase.Terminal():
		return fmt.Sprintf("%s(%s)", i.Phase, cmp.Or(i.Target, want.Version)), progressing, false
	case !known && i.Running == "":
		return "UnknownDistribution", failed, true
	case !known: // the vendor stopped watching it; what runs goes on running
		return string(fleet.Succeeded), upToDate, false
	case i.Policy.Pin != nil && want.Version == "":
		return fmt.Sprintf(pinAway, i.Policy.Pin.Version), pinned, true
	case want.Version == "" && i.Running == "":
		return nothing, idle, false
	case want.Version != i.Running:
		// A reason beside an offer that is not taken is the spoke's own: it declined.
		return fmt.Sprintf("Offered(%s)", want.Version), progressing, i.Reason != ""
	case atPin && newerInReach(i, available):
		return fmt.Sprintf("Pinned(%s)", i.Running), pinned, false
	}
	return string(fleet.Succeeded), upToDate, false
}

// newerInReach: without its pin, the subscription would take a later release.
func newerInReach(i fleet.Installation, available []string) bool {
	free := i.Policy
	free.Pin = nil
	s, err := free.Select(fleet.Choice{Offered: offered(available), Running: i.Running})
	return err == nil && fleet.CompareTags(s.Version, i.Running) > 0
}

// Status words of a subscription to which nothing is offered.
const (
	pinAway = "Pinned(%s not on offer)"
	nothing = "AwaitingRelease(vendor)"
)

// awaited is the release that a row to which nothing is offered only has to wait for: it is in pre-flight.
func awaited(i fleet.Installation, r *fleetv1.StatusRow, trying map[string]time.Time) string {
	if r.Phase != nothing && (i.Policy.Pin == nil || r.Phase != fmt.Sprintf(pinAway, i.Policy.Pin.Version)) {
		return ""
	}
	s, err := i.Policy.Select(fleet.Choice{Offered: offered(slices.Collect(maps.Keys(trying)))})
	if err != nil {
		return ""
	}
	return s.Version
}

// shorten keeps a reason to one line that fits into a table.
func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > reasonLength {
		return strings.TrimSpace(string(r[:reasonLength-1])) + "…"
	}
	return s
}

func summary(name string, releases []fleet.Release) *fleetv1.DistributionSummary {
	s := &fleetv1.DistributionSummary{Distribution: name}
	if available := availableVersions(releases); len(available) > 0 {
		s.Latest = slices.MaxFunc(available, fleet.CompareTags)
	}
	for _, r := range releases {
		if r.Phase == fleet.Rejected && (s.Latest == "" || fleet.CompareTags(r.Version, s.Latest) > 0) {
			s.Rejected = append(s.Rejected, r.Version+": "+firstReason(r))
		}
	}
	return s
}

// firstReason is the first thing that is wrong with a rejected release, and how much more there is.
func firstReason(r fleet.Release) string {
	return cmp.Or(firstOf(allReasons(r)), "no reason recorded")
}

func firstOf(all []string) string {
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s (and %d more)", all[0], len(all)-1)
}

// allReasons are those of each variant under its name, then those of the release as a whole, which may
// only sum up the former.
func allReasons(r fleet.Release) []string {
	var all []string
	for _, v := range r.Variants {
		for _, reason := range v.Reasons {
			all = append(all, v.Name+": "+reason)
		}
	}
	return append(all, r.Reasons...)
}

// Status is the fleet's table as of now, narrowed to one distribution unless that is empty.
func (c *Conductor) Status(now time.Time, distribution string) ([]*fleetv1.StatusRow, []*fleetv1.DistributionSummary, error) {
	f, err := c.fleet(now)
	if err != nil {
		return nil, nil, fmt.Errorf("read the fleet: %w", err)
	}
	rows, summaries := StatusRows(now, c.cfg.Heartbeat, distribution, f)
	for _, s := range summaries {
		s.Trouble = c.trouble(s.Distribution)
		if s.Preflight, err = c.tryingOut(now, s.Distribution, f.Preflights[s.Distribution]); err != nil {
			return nil, nil, err
		}
	}
	return rows, summaries, nil
}

func (c *Conductor) fleet(now time.Time) (Fleet, error) {
	f := Fleet{Since: c.since, Releases: map[string][]fleet.Release{}, Preflights: map[string]map[string]time.Time{}}
	stored, err := c.cfg.Store.Clusters()
	if err != nil {
		return f, err
	}
	for _, s := range stored {
		n := ClusterNews{Name: s.Name, Labels: s.Labels, Joined: s.Joined, Connected: c.cfg.Spokes.Connected(s.Name), LastSeen: c.cfg.Spokes.LastSeen(s.Name)}
		if s.LastSeen.After(n.LastSeen) { // this hub was restarted since
			n.LastSeen = s.LastSeen
		}
		f.Clusters = append(f.Clusters, n)
	}
	if f.Installations, err = c.cfg.Store.Installations(); err != nil {
		return f, err
	}
	distributions, err := c.cfg.Store.Distributions()
	if err != nil {
		return f, err
	}
	for _, d := range distributions {
		rs, err := c.cfg.Store.Releases(d.Name)
		if err != nil {
			return f, err
		}
		f.Releases[d.Name] = inRange(d, rs)
		if f.Preflights[d.Name], _, err = c.underWay(now, d.Name); err != nil {
			return f, err
		}
	}
	return f, nil
}
