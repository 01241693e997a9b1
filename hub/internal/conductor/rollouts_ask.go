package conductor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// refuse is an answer to a person that is no trouble of the hub's: a whole sentence, and its kind.
func refuse(kind error, format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), kind)
}

func noRelease(distribution, version string) error {
	return refuse(caller.ErrNotFound, "distribution %s has no release %s; `hub get releases %s` lists them", distribution, version, distribution)
}

// PlanRollout says what a rollout of a release would do now: its waves, and what stands in the way.
func (c *Conductor) PlanRollout(now time.Time, distribution, version string, planYAML []byte) (*fleetv1.RolloutPlan, error) {
	p, err := c.picture()
	if err != nil {
		return nil, err
	}
	t := &turn{now: now, before: p, after: p}
	o, n, err := c.asked(t, distribution, version, planYAML)
	if err != nil {
		return nil, err
	}
	if r, ok := o.shelf.recalls[version]; ok {
		return nil, isRecalled(r)
	}
	f, err := c.fleetOf(t, rollout.State{Distribution: distribution, Version: version})
	if err != nil {
		return nil, err
	}
	m := planMessage(n, rollout.Preview(now, n, f))
	if r, began := o.shelf.newest(version); began && (!r.Phase.Terminal() || r.Phase == fleet.RolloutCompleted) {
		m.State = string(r.Phase)
	} else if _, trying := o.trying[version]; trying {
		m.State = "Preflight"
	}
	return m, nil
}

// asked reads what a person asked for: a release that is there, with a plan.
func (c *Conductor) asked(t *turn, distribution, version string, planYAML []byte) (*offering, rollout.New, error) {
	n := rollout.New{Distribution: distribution, Version: version}
	o, err := c.offeringIn(t.after, distribution)
	if err != nil {
		return nil, n, err
	}
	if !o.watched {
		return nil, n, refuse(caller.ErrNotFound, "no distribution %s; `hub get distributions` lists them", distribution)
	}
	if _, there := o.releases[version]; !there {
		return nil, n, c.unavailable(o, version)
	}
	if n.Plan, n.PlanSource, err = c.planOf(o, version, planYAML); err != nil {
		return nil, n, refuse(caller.ErrInvalid, "the plan (%s): %v", n.PlanSource, err)
	}
	return o, n, nil
}

// unavailable says why a version is not to be had.
func (c *Conductor) unavailable(o *offering, version string) error {
	name := o.distribution.Name
	r, err := c.cfg.Store.Release(name, version)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noRelease(name, version)
	case err != nil:
		return fmt.Errorf("read release %s of %s: %w", version, name, err)
	case r.Phase == fleet.Rejected:
		return refuse(caller.ErrConflict, "%s of %s was rejected: %s; `hub release describe %s %s` has it all; tag the next version", version, name, firstReason(r), name, version)
	}
	return refuse(caller.ErrConflict, "%s of %s is not in the range %q of its distribution; `hub get releases %s` lists what is", version, name, o.distribution.Tags, name)
}

func isRecalled(r fleet.Recall) error {
	return refuse(caller.ErrConflict, "%s of %s was recalled by %s: %s; publish a fix under the next version", r.Version, r.Distribution, r.By, r.Reason)
}

// StartRollout begins one, or says what it would be.
func (c *Conductor) StartRollout(now time.Time, who caller.Who, distribution, version string, planYAML []byte, reason string, dry bool) (*fleetv1.Rollout, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	before, err := c.pictureLocked()
	if err != nil {
		return nil, err
	}
	t := &turn{now: now, before: before, after: before.copy()}
	o, n, err := c.asked(t, distribution, version, planYAML)
	if err != nil {
		return nil, err
	}
	n.StartedBy = who.Actor
	if err := mayStart(now, o, version); err != nil {
		return nil, err
	}
	if dry {
		f, err := c.fleetOf(t, rollout.State{Distribution: distribution, Version: version})
		if err != nil {
			return nil, err
		}
		m := rolloutMessage(rollout.Start(now, n, f))
		m.Plan = planMessage(n, rollout.Preview(now, n, f))
		return m, nil
	}
	s, err := c.prepare(t, o, n, by{who: who, reason: reason})
	if err == nil {
		err = c.start(t, s)
	}
	if err = errors.Join(err, c.finish(t)); err != nil {
		return nil, err
	}
	c.poke() // time may have to change it
	begun, _ := t.after.of(distribution).newest(version)
	return rolloutMessage(begun), nil
}

func mayStart(now time.Time, o *offering, version string) error {
	name := o.distribution.Name
	if r, ok := o.shelf.recalls[version]; ok {
		return isRecalled(r)
	}
	if until, trying := o.trying[version]; trying {
		return refuse(caller.ErrConflict, "%s of %s is in pre-flight for %s more at most; `hub release describe %s %s` shows what clusters found, and its rollout can start after that",
			version, name, fleet.Age(until, now), name, version)
	}
	r, began := o.shelf.newest(version)
	switch {
	case !began:
		return nil
	case !r.Phase.Terminal():
		return refuse(caller.ErrExists, "the rollout of %s %s is under way already (%s, started by %s); `hub rollout status %s %s` shows it", name, version, r.Phase, r.StartedBy, name, version)
	case r.Phase == fleet.RolloutCompleted:
		return refuse(caller.ErrExists, "the rollout of %s %s is completed: everybody may take it; `hub rollout status %s %s` shows it", name, version, name, version)
	}
	return nil
}

// Rollouts lists rollouts, the newest first, without their clusters.
func (c *Conductor) Rollouts(distribution string, limit int) ([]*fleetv1.Rollout, error) {
	p, err := c.picture()
	if err != nil {
		return nil, err
	}
	var all []rollout.State
	for name, at := range p.shelves {
		if distribution == "" || name == distribution {
			all = append(all, at.rollouts...)
		}
	}
	slices.SortFunc(all, func(a, b rollout.State) int { return cmp.Compare(b.ID, a.ID) })
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	messages := make([]*fleetv1.Rollout, 0, len(all))
	for _, s := range all {
		messages = append(messages, rolloutMessage(s))
	}
	return messages, nil
}

// Rollout is the last one of a release, or without a version of the distribution, with its clusters.
func (c *Conductor) Rollout(now time.Time, distribution, version string) (*fleetv1.Rollout, error) {
	p, err := c.picture()
	if err != nil {
		return nil, err
	}
	s, err := c.find(p, distribution, version)
	if err != nil {
		return nil, err
	}
	installations, err := c.cfg.Store.Installations()
	if err != nil {
		return nil, fmt.Errorf("read installations: %w", err)
	}
	m := rolloutMessage(s)
	l, kept, err := c.cfg.Store.Layout(s.ID)
	if err != nil {
		return nil, fmt.Errorf("read the plan of rollout %d: %w", s.ID, err)
	}
	if kept {
		m.Plan = planMessage(rollout.New{Distribution: distribution, Version: s.Version, Plan: s.Plan, PlanSource: s.PlanSource}, l)
	}
	for _, cluster := range byWave(s) {
		i, member := installationOf(installations[cluster], distribution), s.Members[cluster]
		m.Clusters = append(m.Clusters, &fleetv1.RolloutCluster{Cluster: string(cluster), Wave: int32(member.Wave), Mark: string(member.Mark),
			Reason: member.Reason, Since: wire.Time(member.Since), RunningVersion: i.Running, Phase: string(i.Phase), Canary: canaryTo(s.Version, i)})
	}
	return m, nil
}

// canaryTo is how far traffic is led to a release; nil where it is not, or to another one.
func canaryTo(version string, i fleet.Installation) *syncv1.Canary {
	if i.Target != version {
		return nil
	}
	return wire.Canary(i.Canary)
}

// find is the last rollout of a release, or of a distribution.
func (c *Conductor) find(p *picture, distribution, version string) (s rollout.State, err error) {
	at := p.of(distribution)
	found := len(at.rollouts) > 0
	if version != "" {
		s, found = at.newest(version)
	} else if found {
		s = at.rollouts[len(at.rollouts)-1]
	}
	if found {
		return s, nil
	}
	if o, err := c.offeringIn(p, distribution); err != nil {
		return s, err
	} else if !o.watched {
		return s, refuse(caller.ErrNotFound, "no distribution %s; `hub get distributions` lists them", distribution)
	}
	if version == "" {
		return s, refuse(caller.ErrNotFound, "there is no rollout of %s yet; `hub get releases %s` lists what it has", distribution, distribution)
	}
	_, err = c.cfg.Store.Release(distribution, version)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return s, noRelease(distribution, version)
	case err != nil:
		return s, fmt.Errorf("read release %s of %s: %w", version, distribution, err)
	}
	return s, refuse(caller.ErrNotFound, "%s of %s has no rollout; `hub rollout start %s %s` begins one", version, distribution, distribution, version)
}

// Decide carries out a person's word about the last rollout of a release, or says what would come of it.
// Without a version it is about the one that is under way.
func (c *Conductor) Decide(now time.Time, who caller.Who, distribution, version string, command rollout.Command, dry bool) (*fleetv1.Rollout, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	p, err := c.pictureLocked()
	if err != nil {
		return nil, err
	}
	if version == "" {
		if version, err = onlyOne(p.of(distribution).underWay(), distribution); err != nil {
			return nil, err
		}
	}
	before, err := c.find(p, distribution, version)
	if err != nil {
		return nil, err
	}
	if recall, ok := p.of(distribution).recalls[version]; ok {
		return nil, isRecalled(recall)
	}
	command.By, command.Role = cmp.Or(command.By, who.Actor), cmp.Or(command.Role, who.Role)
	if err := mayAnswer(before, command); err != nil {
		return nil, err
	}
	s, err := rollout.Do(now, before, command)
	if err != nil {
		return nil, refusal(before, command, err)
	}
	t := &turn{now: now, before: p, after: p.copy()}
	if dry {
		f, err := c.fleetOf(t, s)
		return rolloutMessage(rollout.Next(now, s, f)), err
	}
	e := entry(now, who, "rollout "+string(command.Verb), distribution, version, command.Reason)
	if err = errors.Join(c.step(t, before, s, e), c.finish(t)); err != nil {
		return nil, err
	}
	c.poke()
	s, _ = t.after.of(distribution).newest(version)
	return rolloutMessage(s), nil
}

// mayAnswer: a gate that names no role, such as one of verdicts, is the admin's to answer for.
func mayAnswer(s rollout.State, command rollout.Command) error {
	if command.Verb != rollout.Approve && command.Verb != rollout.Reject || command.Role == string(caller.Admin) {
		return nil
	}
	if s.Phase != fleet.RolloutVerdicts && s.Phase != fleet.RolloutApproval || s.Wave >= len(s.Plan.Waves) {
		return nil // it waits for nobody, which rollout.Do says better
	}
	wave := s.Plan.Waves[s.Wave]
	if command.Wave != "" && command.Wave != wave.Name || wave.Approval != "" {
		return nil
	}
	return refuse(caller.ErrDenied, "%s the rollout of %s %s: wave %s names no role for this, so that it is an admin's to say, and %s is none; `hub get operators` lists them",
		command.Verb, s.Distribution, s.Version, wave.Name, command.By)
}

func onlyOne(underWay []rollout.State, distribution string) (version string, err error) {
	var versions []string
	for _, r := range underWay {
		versions = append(versions, r.Version)
	}
	switch len(versions) {
	case 1:
		return versions[0], nil
	case 0:
		return "", refuse(caller.ErrConflict, "no rollout of %s is under way; `hub get rollouts %s` lists those that were", distribution, distribution)
	}
	return "", refuse(caller.ErrInvalid, "rollouts of %s are under way for %s; name the version", distribution, strings.Join(versions, ", "))
}

// entry is a line of the audit.
func entry(now time.Time, who caller.Who, action, distribution, version, reason string) fleet.Entry {
	return fleet.Entry{At: now, Actor: who.Actor, Credential: who.Credential, Action: action, Object: distribution + " " + version, Reason: reason}
}

// beginning is the event of a rollout that starts.
func beginning(now time.Time, s rollout.State) fleet.Event {
	var waves []string
	for n, w := range s.Waves {
		waves = append(waves, fmt.Sprintf("%s %d", w.Name, s.Count(n).Total))
	}
	text := fmt.Sprintf("rollout started by %s: %d clusters", s.StartedBy, len(s.Members))
	if len(waves) > 1 {
		text += " in waves " + strings.Join(waves, ", ")
	}
	if len(s.LeftOut) > 0 {
		text += fmt.Sprintf("; %d in no wave", len(s.LeftOut))
	}
	return event(now, s, fmt.Sprintf("%s; plan: %s", text, s.PlanSource))
}

// transitions are the events of what became of a rollout between two states.
func transitions(now time.Time, before, after rollout.State) (all []fleet.Event) {
	for n, w := range after.Waves {
		var old rollout.Wave
		if n < len(before.Waves) {
			old = before.Waves[n]
		}
		count := after.Count(n)
		if old.ApprovedBy == "" && w.ApprovedBy != "" {
			all = append(all, event(now, after, fmt.Sprintf("wave %s approved by %s", w.Name, w.ApprovedBy)))
		}
		if old.Started.IsZero() && !w.Started.IsZero() && count.Total > 0 {
			all = append(all, event(now, after, fmt.Sprintf("wave %s began: %d clusters", w.Name, count.Total)))
		}
		if old.Ended.IsZero() && !w.Ended.IsZero() && count.Total > 0 {
			all = append(all, event(now, after, fmt.Sprintf("wave %s is through: %s", w.Name, tally(count))))
		}
	}
	if before.Phase == after.Phase || after.Phase == fleet.RolloutProgressing && before.Phase == "" {
		return all
	}
	text := string(after.Phase)
	if after.Wave < len(after.Waves) && !after.Phase.Terminal() && len(after.Waves) > 1 {
		text += " in wave " + after.Waves[after.Wave].Name
	}
	if why := cmp.Or(after.Reason, after.Waits()); why != "" {
		text += ": " + why
	}
	return append(all, event(now, after, text))
}

func tally(c rollout.Counts) string {
	parts := []string{fmt.Sprintf("%d done", c.Done)}
	for _, p := range []struct {
		n    int
		what string
	}{{c.Failed, "failed"}, {c.Parked, "parked"}, {c.Unaffected, "not affected"}, {c.Left, "left"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

func event(now time.Time, s rollout.State, text string) fleet.Event {
	return fleet.Event{At: now, Distribution: s.Distribution, Version: s.Version, Kind: fleet.EventRollout, Message: bounded(text)}
}
