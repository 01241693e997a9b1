package conductor

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// census is every cluster and what it said last, read at one moment. It is shared and never changed.
type census struct {
	clusters      map[fleet.Cluster]store.Cluster
	installations map[fleet.Cluster][]fleet.Installation
	silent        map[fleet.Cluster]bool
}

func (c *Conductor) census(now time.Time) (*census, error) {
	all, err := c.cfg.Store.Clusters()
	if err != nil {
		return nil, fmt.Errorf("read clusters: %w", err)
	}
	k := &census{clusters: make(map[fleet.Cluster]store.Cluster, len(all)), silent: map[fleet.Cluster]bool{}}
	if k.installations, err = c.cfg.Store.Installations(); err != nil {
		return nil, fmt.Errorf("read installations: %w", err)
	}
	for _, s := range all {
		k.clusters[s.Name] = s
		if c.silent(now, s) {
			k.silent[s.Name] = true
		}
	}
	return k, nil
}

// silent: heartbeats are missing, and not only because this hub has just started.
func (c *Conductor) silent(now time.Time, s store.Cluster) bool {
	last := c.cfg.Spokes.LastSeen(s.Name)
	for _, t := range []time.Time{s.LastSeen, s.Joined} {
		if t.After(last) {
			last = t
		}
	}
	grace := missedHeartbeats * c.cfg.Heartbeat
	return now.Sub(last) > grace && !(last.Before(c.since) && now.Sub(c.since) <= grace)
}

// fleetOf is what a rollout needs to know of each subscriber of its distribution.
func (c *Conductor) fleetOf(t *turn, s rollout.State) (rollout.Fleet, error) {
	if t.fleet == nil {
		k, err := c.census(t.now)
		if err != nil {
			return nil, err
		}
		t.fleet = k
	}
	o, err := c.offeringIn(t.after, s.Distribution)
	if err != nil {
		return nil, err
	}
	q := o.question(t.now, s.Version)
	f := rollout.Fleet{}
	for cluster, list := range t.fleet.installations {
		k := slices.IndexFunc(list, func(i fleet.Installation) bool { return i.Distribution == s.Distribution })
		if k < 0 {
			continue
		}
		of, there := t.fleet.clusters[cluster]
		if !there {
			continue
		}
		seen := q.observe(list[k], s.Members[cluster])
		if t.fleet.silent[cluster] {
			seen.Block, seen.Behind = fleet.BlockSilent, ""
		}
		seen.Labels = of.Labels
		f[cluster] = seen
	}
	return f, nil
}

// question is whether a cluster would take one release if it were offered it.
type question struct {
	now       time.Time
	version   string
	offered   []fleet.Offered // the release too
	withdrawn []fleet.Withdrawal
	answers   map[string]answer // by policy and what runs: most clusters are alike
}

// answer of a policy.
type answer struct {
	block fleet.Block
	next  string // what it takes now, on the way
}

func (o *offering) question(now time.Time, version string) *question {
	versions := slices.Concat(o.open, []string{version}, o.taken(version))
	for _, r := range o.limited { // a stop that is under way reaches clusters by its own rollout
		if r.Version != version && !r.Phase.Terminal() && slices.Contains(o.releases[version].Stops, r.Version) {
			versions = append(versions, r.Version)
		}
	}
	fleet.SortVersions(versions)
	q := &question{now: now, version: version, offered: o.offeredOf(slices.Compact(versions)), answers: map[string]answer{}}
	for _, w := range o.plain.withdrawn {
		if w.Version != version {
			q.withdrawn = append(q.withdrawn, w)
		}
	}
	return q
}

// observe is what is known of one subscription, for a rollout in which it is member m. It is pure.
func (q *question) observe(i fleet.Installation, m rollout.Member) rollout.Observation {
	o := rollout.Observation{Running: i.Running, Target: i.Target, Wants: i.Wants, Phase: i.Phase, Health: i.Health, Reason: i.Reason, Block: q.block(i, m)}
	if pin := i.Policy.PinAt(q.now); pin != nil && o.Block == fleet.BlockPin {
		o.Behind = pinnedAt(q.now, *pin)
	}
	return o
}

// pinnedAt names a pin: version, author and end.
func pinnedAt(now time.Time, p fleet.Pin) string {
	text := fmt.Sprintf("pinned at %s by %s", p.Version, cmp.Or(p.Author, "its "+p.Source))
	switch {
	case p.Until.IsZero():
		return text
	case p.Until.Sub(now) <= 24*time.Hour:
		return text + " until " + clock(now, p.Until.UTC())
	}
	return text + " until " + p.Until.UTC().Format(time.DateOnly)
}

// block is why a subscription does not take the release, by its spoke's own word first, and then by what
// its policy makes of the release.
func (q *question) block(i fleet.Installation, m rollout.Member) fleet.Block {
	back := m.Mark == fleet.MarkReturning
	pin := i.Policy.PinAt(q.now)
	free := i.Policy
	free.Pin = nil
	a := q.ask(free, i.Running)
	ours := i.Target == q.version || back && i.Target == m.Before || a.next != "" && i.Target == a.next
	switch {
	case i.Phase == fleet.AwaitingConfig:
		return fleet.BlockConfig
	case ours && i.Declined && i.Target != i.Running: // of what runs, it is an overlay that was declined
		return fleet.BlockDeclined
	case ours && i.Phase == fleet.AwaitingApproval:
		return fleet.BlockApproval
	case ours && i.Phase == fleet.AwaitingWindow:
		return fleet.BlockWindow
	case ours && i.Phase != fleet.PhaseNone && !i.Phase.Terminal():
		return fleet.BlockNone // it is on its way, whatever its policy would say now
	case back && pin != nil && pin.Version == i.Running:
		return fleet.BlockPin
	case back:
		return fleet.BlockNone
	case i.Running == q.version:
		return fleet.BlockNone
	case pin != nil && pin.Version != q.version:
		return fleet.BlockPin
	case m.Block == fleet.BlockDeclined && i.Wants != q.version && (a.next == "" || i.Wants != a.next):
		return fleet.BlockDeclined // its spoke holds what was declined, whatever it has done since
	case i.Target == q.version && i.Phase.Failed() && (m.Offered.IsZero() || m.Block == fleet.BlockHeld):
		return fleet.BlockHeld // it failed before this rollout
	case pin != nil: // at the release itself: range and levels do not count
		return q.closed(i.Policy)
	case a.block != fleet.BlockNone:
		return a.block
	}
	return q.closed(i.Policy)
}

func (q *question) closed(p fleet.Policy) fleet.Block {
	if !p.Windows.Open(q.now) {
		return fleet.BlockWindow
	}
	return fleet.BlockNone
}

// ask a policy without a pin.
func (q *question) ask(p fleet.Policy, running string) answer {
	key := policyKey(p) + "\x00" + running
	if a, ok := q.answers[key]; ok {
		return a
	}
	a := q.judge(p, running)
	q.answers[key] = a
	return a
}

func (q *question) judge(p fleet.Policy, running string) answer {
	choice := fleet.Choice{Now: q.now, Offered: q.offered, Withdrawn: q.withdrawn, Running: running}
	s, err := p.Select(choice)
	switch {
	case err != nil:
		return answer{block: fleet.BlockConfig}
	case (s.Version == q.version || s.Goal == q.version) && s.Version != running:
		a := answer{next: s.Version}
		if s.Asks != "" {
			a.block = fleet.BlockApproval
		}
		return a
	}
	// Would it take the release if nothing had to run before?
	choice.Offered = []fleet.Offered{{Version: q.version}}
	alone, err := p.Select(choice)
	switch {
	case err != nil || alone.Version != q.version || running != "" && fleet.CompareTags(q.version, running) <= 0:
		return answer{block: fleet.BlockPolicy}
	case fleet.CompareTags(s.Version, q.version) > 0:
		return answer{block: fleet.BlockPolicy, next: s.Version} // it takes a newer one
	case alone.Asks != "" && s.Version != running: // something smaller comes by itself, and before
		return answer{block: fleet.BlockApproval, next: s.Version}
	case alone.Asks != "":
		return answer{block: fleet.BlockApproval}
	}
	return answer{block: fleet.BlockStop, next: s.Version}
}

// wanted says which of a distribution's versions some cluster takes, now or on its way to the newest that
// its policy holds, if everything were on offer that is open, under way or among more; and how many
// clusters there are.
func (c *Conductor) wanted(t *turn, o *offering, more []string) (wanted map[string]bool, subscribers int, err error) {
	if t.fleet == nil {
		if t.fleet, err = c.census(t.now); err != nil {
			return nil, 0, err
		}
	}
	versions := slices.Concat(o.open, more)
	for _, r := range t.after.of(o.distribution.Name).underWay() {
		versions = append(versions, r.Version)
	}
	fleet.SortVersions(versions)
	choice := fleet.Choice{Now: t.now, Offered: o.offeredOf(slices.Compact(versions)), Withdrawn: o.plain.withdrawn}
	wanted, asked := map[string]bool{}, map[string]bool{}
	for cluster, list := range t.fleet.installations {
		i := installationOf(list, o.distribution.Name)
		if _, there := t.fleet.clusters[cluster]; !there || !slices.ContainsFunc(list, func(i fleet.Installation) bool { return i.Distribution == o.distribution.Name }) {
			continue
		}
		subscribers++
		if pin := i.Policy.PinAt(t.now); pin != nil && pin.Version != i.Running {
			wanted[pin.Version] = true
		}
		policy := i.Policy
		policy.Pin = nil
		if key := policyKey(policy) + "\x00" + i.Running; !asked[key] {
			asked[key] = true
			follow(policy, choice, i.Running, wanted)
		}
	}
	return wanted, subscribers, nil
}

// follow marks every version on a policy's way from the one that runs.
func follow(p fleet.Policy, choice fleet.Choice, running string, wanted map[string]bool) {
	for range len(choice.Offered) + 1 {
		choice.Running = running
		s, err := p.Select(choice)
		if err != nil || s.Version == "" || s.Version == running {
			return
		}
		wanted[s.Version] = true
		running = cmp.Or(s.Version, running)
	}
}
