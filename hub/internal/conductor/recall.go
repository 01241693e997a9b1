package conductor

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// back is where a cluster should go that runs a version which was withdrawn from it: what it ran before,
// or else the highest release below that it may take. proposed is what the rollout remembers of that.
// Its provider's pin is no part of it: the spoke holds to that by itself, and goes when it is gone.
func (o *offering) back(now time.Time, cluster fleet.Cluster, i *fleet.Installation, version, proposed string, versions []string, withdrawn []fleet.Withdrawal) string {
	before := cmp.Or(proposed, o.before(cluster, version))
	policy := i.Policy
	policy.Pin = nil
	key := strings.Join([]string{policyKey(policy), version, before, strings.Join(versions, " ")}, "\x00")
	for _, w := range withdrawn {
		key += "\x00" + w.Version
	}
	return o.returns.get(key, func() string {
		for _, to := range o.places(version, before, versions, withdrawn) {
			s, err := policy.Select(fleet.Choice{Now: now, Withdrawn: []fleet.Withdrawal{{Version: version, To: to}}, Running: version})
			if err == nil && s.Return {
				return to
			}
		}
		return ""
	})
}

// before is what a cluster ran when it was offered a version; empty where nobody knows.
func (o *offering) before(cluster fleet.Cluster, version string) string {
	for _, r := range slices.Backward(o.shelf.rollouts) {
		if r.Version == version && r.Members[cluster].Before != "" {
			return r.Members[cluster].Before
		}
	}
	return ""
}

// places to go back to from a version, the best first. What a cluster ran before need not be on offer any
// more, but must not have been withdrawn.
func (o *offering) places(version, before string, versions []string, withdrawn []fleet.Withdrawal) (all []string) {
	gone := func(v string) bool {
		return v == version || slices.ContainsFunc(withdrawn, func(w fleet.Withdrawal) bool { return w.Version == v })
	}
	if _, known := o.releases[before]; known && !gone(before) {
		all = append(all, before)
	}
	for _, v := range slices.Backward(slices.SortedFunc(slices.Values(versions), fleet.CompareTags)) {
		if fleet.CompareTags(v, version) < 0 && !gone(v) && v != before {
			all = append(all, v)
		}
	}
	return all
}

// policyKey tells policies apart by what they select, pins and windows left out.
func policyKey(p fleet.Policy) string {
	prereleases := ""
	if p.Prereleases {
		prereleases = "\x00"
	}
	return p.Range + "\x00" + prereleases + string(p.Patch) + "\x00" + string(p.Minor) + "\x00" + string(p.Major)
}

// Recall calls a release back from everybody: its rollouts end, no automation selects it again, and
// where recall.RollBack says so, clusters that run it are offered where to go. It answers for each of them.
func (c *Conductor) Recall(now time.Time, who caller.Who, recall fleet.Recall, dry bool) (*fleetv1.RecallReleaseResponse, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	before, err := c.pictureLocked()
	if err != nil {
		return nil, err
	}
	if err := c.mayRecall(before, recall); err != nil {
		return nil, err
	}
	if recall.At.IsZero() {
		recall.At = now
	}
	recall.By = cmp.Or(recall.By, who.Actor)
	after := before.copy()
	at := after.edit(recall.Distribution)
	at.recalls = with(maps.Clone(at.recalls), recall.Version, recall)
	answer := &fleetv1.RecallReleaseResponse{}
	if answer.Clusters, err = c.recalled(now, after, recall); err != nil {
		return nil, err
	}
	answer.Rollouts = stopped(now, at, recall)
	if dry {
		return answer, nil
	}
	e := fleet.Event{At: now, Distribution: recall.Distribution, Version: recall.Version, Kind: fleet.EventRecalled,
		Message: bounded(fmt.Sprintf("recalled by %s: %s; %s", recall.By, recall.Reason, concerns(len(answer.Clusters), recall.RollBack)))}
	if err := c.cfg.Store.PutRecall(recall, []fleet.Event{e}, entry(now, who, action(recall), recall.Distribution, recall.Version, recall.Reason)); err != nil {
		return nil, fmt.Errorf("recall %s of %s: %w", recall.Version, recall.Distribution, err)
	}
	c.cfg.Log.Warn("release recalled", slog.String(logging.Distribution, recall.Distribution), slog.String(logging.Version, recall.Version), slog.String(logging.Reason, recall.Reason))
	// From here on it counts, whatever else fails: what is left over is made up for with the next look.
	t := &turn{now: now, before: before, after: after}
	t.move(recall.Distribution, nil)
	if err := errors.Join(c.driveOne(t, recall.Distribution), c.finish(t)); err != nil {
		c.cfg.Log.Error("rollouts of a recalled release not ended yet", slog.String(logging.Distribution, recall.Distribution), slog.String(logging.Version, recall.Version), slog.Any(logging.Error, err))
	}
	c.poke()
	return answer, nil
}

// action is what the audit calls a recall.
func action(r fleet.Recall) string {
	if r.RollBack {
		return "release recall with roll-back"
	}
	return "release recall"
}

func concerns(n int, rollBack bool) string {
	text := fmt.Sprintf("%d clusters run it or are on their way to it", n)
	if n == 1 {
		text = "1 cluster runs it or is on its way to it"
	}
	if rollBack {
		return text + " and may go back"
	}
	return text
}

func (c *Conductor) mayRecall(p *picture, recall fleet.Recall) error {
	r, err := c.cfg.Store.Release(recall.Distribution, recall.Version)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noRelease(recall.Distribution, recall.Version)
	case err != nil:
		return fmt.Errorf("read release %s of %s: %w", recall.Version, recall.Distribution, err)
	case r.Phase == fleet.Rejected:
		return refuse(caller.ErrConflict, "%s of %s was rejected when it was published and never offered to anybody; there is nothing to recall", recall.Version, recall.Distribution)
	}
	if old, ok := p.of(recall.Distribution).recalls[recall.Version]; ok && (old.RollBack || !recall.RollBack) {
		return refuse(caller.ErrExists, "%s of %s was recalled already, by %s: %s; `hub release describe %s %s` shows who still runs it",
			recall.Version, recall.Distribution, old.By, old.Reason, recall.Distribution, recall.Version)
	}
	return nil
}

// recallable: the rollout has not heard of a recall of its release yet. One that is over may still have
// clusters to bring back.
func recallable(s rollout.State, recall fleet.Recall) bool {
	switch s.Phase {
	case fleet.RolloutRecalled:
		return recall.RollBack && s.End != fleet.RolloutRecalled
	case fleet.RolloutReturning:
		return s.End != fleet.RolloutRecalled
	}
	return true
}

// stopped are the rollouts of a recalled release that hear of it, as they stand before they do.
func stopped(now time.Time, at *shelf, recall fleet.Recall) (all []*fleetv1.Rollout) {
	for _, r := range at.rollouts {
		if r.Version != recall.Version || !recallable(r, recall) {
			continue
		}
		if _, err := rollout.Do(now, r, recallCommand(recall)); err == nil {
			all = append(all, rolloutMessage(r))
		}
	}
	return all
}

func recallCommand(r fleet.Recall) rollout.Command {
	return rollout.Command{Verb: rollout.Recall, By: r.By, Reason: r.Reason, RollBack: r.RollBack}
}

// recalled lists the clusters that run a recalled release or are on their way to it, with where they
// should go and why there.
func (c *Conductor) recalled(now time.Time, p *picture, recall fleet.Recall) (all []*fleetv1.RecalledCluster, err error) {
	o, err := c.offeringIn(p, recall.Distribution)
	if err != nil {
		return nil, err
	}
	installations, err := c.cfg.Store.Installations()
	if err != nil {
		return nil, fmt.Errorf("read installations: %w", err)
	}
	for _, cluster := range slices.Sorted(maps.Keys(installations)) {
		i := installationOf(installations[cluster], recall.Distribution)
		coming := i.Target == recall.Version && i.Phase != fleet.PhaseNone && !i.Phase.Terminal()
		if i.Running != recall.Version && !coming {
			continue
		}
		r := &fleetv1.RecalledCluster{Cluster: string(cluster), RunningVersion: i.Running}
		r.TargetVersion, r.Reason = o.proposal(now, cluster, &i, recall)
		all = append(all, r)
	}
	return all, nil
}

// proposal is where a cluster that has a recalled release should go, and why there or why nowhere.
func (o *offering) proposal(now time.Time, cluster fleet.Cluster, i *fleet.Installation, recall fleet.Recall) (to, why string) {
	versions, withdrawn, _ := o.special(now, cluster, i)
	if pin := i.Policy.PinAt(now); pin != nil && pin.Version == recall.Version {
		return "", strings.TrimSuffix(fmt.Sprintf("pinned to %s (%s): %s", pin.Version, pin.Source, pin.Reason), ": ") + "; its provider decides"
	}
	if i.Running != recall.Version {
		return i.Running, "it has not got there yet and runs " + cmp.Or(i.Running, "nothing")
	}
	policy := i.Policy
	policy.Pin = nil
	stays := []fleet.Withdrawal{{Version: recall.Version}}
	for _, w := range withdrawn {
		if w.Version != recall.Version {
			stays = append(stays, w)
		}
	}
	if s, err := policy.Select(fleet.Choice{Now: now, Offered: o.offeredOf(versions), Withdrawn: stays, Running: i.Running}); err == nil && s.Asks == "" && fleet.CompareTags(s.Version, i.Running) > 0 {
		return s.Version, "it is offered " + s.Version + " and its policy takes it"
	}
	if to = o.back(now, cluster, i, recall.Version, "", versions, withdrawn); to == "" {
		return "", "no other release is on offer that its policy takes; publish a fix"
	}
	why = "the highest release below that its policy takes"
	if to == o.before(cluster, recall.Version) {
		why = "it ran that before"
	}
	if !recall.RollBack {
		why += "; `--roll-back` offers it"
	}
	return to, why
}

func (o *offering) offeredOf(versions []string) []fleet.Offered {
	all := make([]fleet.Offered, 0, len(versions))
	for _, v := range versions {
		all = append(all, fleet.Offered{Version: v, Stops: o.releases[v].Stops})
	}
	return all
}
