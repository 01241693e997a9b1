package conductor

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// preflights are what clusters found when they tried releases out, and which releases are past that.
type preflights interface {
	Settings() (map[string]store.Settings, error)
	Preflights(distribution, version string) (map[fleet.Cluster]fleet.Preflight, error)
	Preflight(cluster fleet.Cluster, distribution, version string) (answer fleet.Preflight, found bool, err error)
	Offered(distribution string) (map[string]bool, error)
	Offer(distribution string, versions []string, at time.Time) error // raises the revision
}

const (
	// settlePause is the least time between the beginnings of two looks at what is under way.
	settlePause = 200 * time.Millisecond
	// settleShare is how many times as long as a look the time to the next is: all of a large fleet that comes back must
	// not be looked at for every few that have.
	settleShare = 20
	// settleMost bounds that.
	settleMost = 2 * time.Second
	// settleRetry is the time after a look that failed.
	settleRetry = 10 * time.Second
)

// Run ends pre-flights, each when its time is over or, before that, when every connected cluster that it
// concerns has answered and none would break, and carries rollouts on: at every change of the fleet, and
// when time changes something. It returns nil when ctx ends. An end is stored, so that a release which was
// offered to be taken stays so whatever restarts.
func (c *Conductor) Run(ctx context.Context) error {
	changes, cancel := c.cfg.Spokes.Subscribe()
	defer cancel()
	for {
		now := time.Now()
		next, err := c.settle(now)
		if err != nil {
			c.cfg.Log.Error("pre-flights not looked at", slog.Any(logging.Error, err))
			next = now.Add(settleRetry)
		}
		due, err := c.look(now)
		if err != nil {
			c.cfg.Log.Error("rollouts not carried on", slog.Any(logging.Error, err))
			due = now.Add(settleRetry)
		}
		if next.IsZero() || !due.IsZero() && due.Before(next) {
			next = due
		}
		if !c.pause(ctx, changes, now.Add(rest(time.Since(now))), next) {
			return nil
		}
	}
}

// rest is the time from the beginning of a look that took so long to that of the next.
func rest(took time.Duration) time.Duration {
	return min(max(settleShare*took, settlePause), settleMost)
}

// pause until something changed or next has come, and then until rested; false: ctx ended. Changes that come fast wait
// for each other; a poke waits for nothing.
func (c *Conductor) pause(ctx context.Context, changes <-chan struct{}, rested, next time.Time) bool {
	var end <-chan time.Time
	if !next.IsZero() {
		end = time.After(time.Until(next))
	}
	select {
	case <-end:
	case <-changes:
	case <-c.poked:
		return true
	case <-ctx.Done():
		return false
	}
	select {
	case <-time.After(time.Until(rested)):
	case <-c.poked:
	case <-ctx.Done():
		return false
	}
	return true
}

// poke has Run look at once.
func (c *Conductor) poke() {
	select {
	case c.poked <- struct{}{}:
	default: // it is about to
	}
}

// settle ends what is to end and returns when the next one does at the latest; zero for none under way.
func (c *Conductor) settle(now time.Time) (next time.Time, err error) {
	settings, err := c.cfg.Store.Settings()
	if err != nil {
		return next, fmt.Errorf("read settings: %w", err)
	}
	offered := false
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if settings[name].Preflight == 0 {
			continue
		}
		pending, over, err := c.underWay(now, name)
		if err != nil {
			return next, err
		}
		for version, until := range pending {
			done, err := c.answered(now, name, version)
			if err != nil {
				return next, err
			}
			if done {
				over = append(over, version)
			} else if next.IsZero() || until.Before(next) {
				next = until
			}
		}
		if len(over) == 0 {
			continue
		}
		fleet.SortVersions(over)
		if err := c.offer(now, name, over); err != nil {
			return next, err
		}
		offered = true
	}
	if offered {
		c.cfg.Spokes.WakeAll()
		c.cfg.Spokes.Changed()
	}
	return next, nil
}

// underWay lists a distribution's pre-flights: those whose time is running, by version with its end, and
// the versions of those whose time is over and for which that is not stored yet.
func (c *Conductor) underWay(now time.Time, distribution string) (pending map[string]time.Time, over []string, err error) {
	settings, err := c.cfg.Store.Settings()
	if err != nil {
		return nil, nil, fmt.Errorf("read settings: %w", err)
	}
	lasts := settings[distribution].Preflight
	if lasts == 0 {
		return nil, nil, nil
	}
	offered, err := c.cfg.Store.Offered(distribution)
	if err != nil {
		return nil, nil, fmt.Errorf("read what is offered of %s: %w", distribution, err)
	}
	releases, err := c.cfg.Store.Releases(distribution)
	if err != nil {
		return nil, nil, fmt.Errorf("read releases of %s: %w", distribution, err)
	}
	pending = map[string]time.Time{}
	for _, r := range releases {
		if r.Phase != fleet.Available || offered[r.Version] {
			continue
		}
		if until := r.Published.Add(lasts); now.Before(until) {
			pending[r.Version] = until
		} else {
			over = append(over, r.Version)
		}
	}
	return pending, over, nil
}

// offer stores that these versions may be taken from now on, and says so for those that are new.
func (c *Conductor) offer(now time.Time, distribution string, versions []string) error {
	if err := c.cfg.Store.Offer(distribution, versions, now); err != nil {
		return fmt.Errorf("end pre-flights of %s: %w", distribution, err)
	}
	newest := versions[len(versions)-1]
	a, err := c.answers(now, distribution, newest)
	if err != nil {
		return err
	}
	c.cfg.Log.Info("pre-flight over", slog.String(logging.Distribution, distribution), slog.String(logging.Version, newest), slog.String(logging.Reason, a.String()))
	return c.record(fleet.Event{At: now, Distribution: distribution, Version: newest, Kind: fleet.EventPreflight,
		Message: fmt.Sprintf("pre-flight over: %s; offered to be taken from now on", a)})
}

// Preflight lists the releases of a distribution that are offered to be tried out only, each with the
// latest end of that.
func (c *Conductor) Preflight(distribution string) (map[string]time.Time, error) {
	pending, _, err := c.underWay(time.Now(), distribution)
	return pending, err
}

// answers counts the clusters that a pre-flight concerns.
type answers struct {
	asked, answered, breaking int
	missing                   fleet.Cluster // one that has not answered; empty: all have
}

// done: nothing is left to wait for. Where nobody can be asked, the time runs out.
func (a answers) done() bool { return a.asked > 0 && a.answered == a.asked && a.breaking == 0 }

func (a answers) String() string {
	text := fmt.Sprintf("%d of %d connected clusters answered", a.answered, a.asked)
	if a.breaking > 0 {
		return fmt.Sprintf("%s, %d would break", text, a.breaking)
	}
	return text + ", none would break"
}

// answered says whether nothing is left to wait for in a pre-flight. Mostly something is: then the cluster that it was
// the last time tells, without a look at all of them. It is for settle alone, which remembers that cluster.
func (c *Conductor) answered(now time.Time, distribution, version string) (done bool, err error) {
	key := distribution + "\x00" + version
	if cluster, known := c.missing[key]; known {
		i, found := c.cfg.Store.Installation(cluster, distribution)
		_, answered, err := c.cfg.Store.Preflight(cluster, distribution, version)
		if err != nil {
			return false, fmt.Errorf("read the pre-flight of %s %s by %s: %w", distribution, version, cluster, err)
		}
		if found && !answered && c.asks(now, cluster, i.Running, version) {
			return false, nil
		}
	}
	a, err := c.answers(now, distribution, version)
	if err != nil {
		return false, err
	}
	if a.missing == "" {
		delete(c.missing, key)
	} else {
		c.missing[key] = a.missing
	}
	return a.done(), nil
}

// asks: a cluster is asked while it is connected, or may be about to come back to a hub that was restarted, and runs
// nothing as new.
func (c *Conductor) asks(now time.Time, cluster fleet.Cluster, running, version string) bool {
	if !c.cfg.Spokes.Connected(cluster) {
		back := now.Sub(c.since) <= missedHeartbeats*c.cfg.Heartbeat
		if !back || !c.cfg.Spokes.LastSeen(cluster).IsZero() {
			return false
		}
	}
	return running == "" || fleet.CompareTags(running, version) < 0
}

// answers of a pre-flight, of those who are asked; one that would break counts wherever it is.
func (c *Conductor) answers(now time.Time, distribution, version string) (a answers, err error) {
	found, err := c.cfg.Store.Preflights(distribution, version)
	if err != nil {
		return a, fmt.Errorf("read pre-flights of %s %s: %w", distribution, version, err)
	}
	installations, err := c.cfg.Store.Installations()
	if err != nil {
		return a, fmt.Errorf("read installations: %w", err)
	}
	for cluster, list := range installations {
		i := slices.IndexFunc(list, func(i fleet.Installation) bool { return i.Distribution == distribution })
		if i < 0 {
			continue
		}
		p, answered := found[cluster]
		if p.Outcome == fleet.OutcomeBreaks {
			a.breaking++
		}
		if !c.asks(now, cluster, list[i].Running, version) {
			continue
		}
		a.asked++
		if answered {
			a.answered++
		} else {
			a.missing = cluster
		}
	}
	return a, nil
}

// tryingOut is a line for each release of a distribution that is in pre-flight, ascending.
func (c *Conductor) tryingOut(now time.Time, distribution string, pending map[string]time.Time) (lines []string, err error) {
	for _, version := range slices.SortedFunc(maps.Keys(pending), fleet.CompareTags) {
		a, err := c.answers(now, distribution, version)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s: %s; offered to be taken in %s at the latest", version, a, fleet.Age(pending[version], now)))
	}
	return lines, nil
}
