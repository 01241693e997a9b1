package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/reversal"
)

// assessment is what delivering a set would do, found without touching anything.
type assessment struct {
	report  apply.CheckReport
	verdict reversal.Verdict
	asks    []string // why the provider has to say yes first
}

// assess has the cluster try a set, and judges whether it could be gone back from.
func (a *Agent) assess(ctx context.Context, set apply.Set, prev apply.Inventory, from string) (assessment, error) {
	var s assessment
	var err error
	if s.report, err = a.cfg.Apply.Check(ctx, set, prev); err != nil {
		return s, err
	}
	s.verdict = reversal.Verdict{Verdict: fleet.Reversible}
	if from != "" { // else there is nothing to go back to
		if s.verdict, err = a.reversible(ctx, set.Objects); err != nil {
			return s, err
		}
	}
	if n, of := s.report.Deletions, s.report.Inventory; !set.Terms.Budget.Allows(n, of) {
		s.asks = append(s.asks, fmt.Sprintf(prunes+"%d of %d objects, more than the deletion budget of %s", n, of, set.Terms.Budget))
	}
	if s.verdict.Verdict == fleet.OneWay {
		s.asks = append(s.asks, "it cannot be gone back from: "+some(s.verdict.Reasons))
	}
	return s, nil
}

// reversible judges a set's definitions against those that are on the cluster.
func (a *Agent) reversible(ctx context.Context, next []*unstructured.Unstructured) (reversal.Verdict, error) {
	defs := definitions(next)
	if len(defs) == 0 {
		return reversal.Verdict{Verdict: fleet.Reversible}, nil
	}
	names := make([]string, len(defs))
	for n, d := range defs {
		names[n] = d.GetName()
	}
	there, err := a.cfg.Observe.Definitions(ctx, names)
	if err != nil {
		return reversal.Verdict{}, err
	}
	stored := map[string][]string{}
	for _, d := range there {
		stored[d.GetName()], _, _ = unstructured.NestedStringSlice(d.Object, "status", "storedVersions")
	}
	return reversal.Judge(there, defs, stored), nil
}

func definitions(objs []*unstructured.Unstructured) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objs), func(o *unstructured.Unstructured) bool {
		gvk := o.GroupVersionKind()
		return gvk.Group != "apiextensions.k8s.io" || gvk.Kind != "CustomResourceDefinition"
	})
}

// kept are the definitions that stay as they are when the cluster goes back to a rendered set: those of
// which the cluster has a newer form that the older one cannot replace.
func (w *worker) kept(ctx context.Context, back []byte) ([]string, error) {
	objs, err := w.a.parse(w.name, back)
	if err != nil {
		return nil, fmt.Errorf("read the rendered set to go back to: %w", err)
	}
	now, err := w.a.parse(w.name, w.rec.Manifest)
	if err != nil {
		return nil, fmt.Errorf("read the rendered set that runs: %w", err)
	}
	return reversal.Judge(definitions(objs), definitions(now), w.a.stored(ctx, objs)).Keep, nil
}

// stored are the versions in which objects lie in the cluster's store. To go back needs nobody: where the
// cluster cannot be asked now, the definitions themselves are what is judged by.
func (a *Agent) stored(ctx context.Context, objs []*unstructured.Unstructured) map[string][]string {
	names := []string{}
	for _, d := range definitions(objs) {
		names = append(names, d.GetName())
	}
	stored := map[string][]string{}
	if len(names) == 0 {
		return stored
	}
	there, err := a.cfg.Observe.Definitions(ctx, names)
	if err != nil {
		return stored
	}
	for _, d := range there {
		stored[d.GetName()], _, _ = unstructured.NestedStringSlice(d.Object, "status", "storedVersions")
	}
	return stored
}

// result tells an assessment to the hub: counts and reasons, never values.
func (s assessment) result(set apply.Set) fleet.Preflight {
	p := fleet.Preflight{Version: set.Version, Bundle: set.Bundle, Overlay: set.Overlay, Outcome: fleet.OutcomeChanges,
		Changes: s.report.Changes(), Reversibility: s.verdict.Verdict, At: time.Now()}
	switch {
	case s.wrong(set) != "":
		p.Outcome, p.Reversibility, p.Reason, p.Changes = fleet.OutcomeBreaks, "", s.wrong(set), nil
	case len(p.Changes) == 0:
		p.Outcome = fleet.OutcomeOk
	case len(s.asks) > 0:
		p.Reason = "asks its provider: " + some(s.asks)
	}
	p.Reason = oneLine(p.Reason)
	return p
}

func breaks(version string, d fleet.Digest, o fleet.Digest, why string) fleet.Preflight {
	return fleet.Preflight{Version: version, Bundle: d, Overlay: o, Outcome: fleet.OutcomeBreaks, Reason: oneLine(why), At: time.Now()}
}

// sayTrial records what a pre-flight, or the dry run of a delivery, found, if that is news.
func (w *worker) sayTrial(recipe fleet.Digest, p fleet.Preflight) error {
	if was, ok := w.rec.Tried[p.Version]; ok && was.Recipe == recipe && alike(was.Result, p) {
		return nil
	}
	rec := w.rec
	rec.Tried = maps.Clone(rec.Tried)
	if rec.Tried == nil {
		rec.Tried = map[string]journal.Trial{}
	}
	maps.DeleteFunc(rec.Tried, func(v string, _ journal.Trial) bool { return fleet.CompareTags(v, rec.Installation.Running) < 0 })
	rec.Tried[p.Version] = journal.Trial{Recipe: recipe, Result: p}
	e := event(time.Now(), rec.Installation, fleet.EventPreflight, p.Version+": "+p.Summary())
	e.Version, e.Preflight = p.Version, &p
	return w.record(rec, e)
}

func alike(a, b fleet.Preflight) bool {
	return a.Bundle == b.Bundle && a.Overlay == b.Overlay && a.Outcome == b.Outcome && a.Reason == b.Reason &&
		a.Reversibility == b.Reversibility && slices.Equal(a.Changes, b.Changes)
}

// mostTrials bounds how many releases are tried out beside the one that is delivered: the newest.
const mostTrials = 3

// preflight tries out what is offered for that, and what is newer than what runs and not taken, so that
// vendor and provider know beforehand.
func (w *worker) preflight(ctx context.Context, in input) result {
	if in.trouble != "" || in.offers == nil || w.state.Touching() || !w.saw.good || !w.known && !w.asked {
		return result{}
	}
	if left := w.trial.left(time.Now()); left > 0 {
		return result{after: left}
	}
	want, _, err := wanted(in, w.saw.now)
	if err != nil {
		return result{}
	}
	for _, v := range w.untried(in, want) {
		p, err := w.try(ctx, in, want, v)
		if ctx.Err() != nil {
			return result{stop: true}
		}
		if err != nil {
			w.log.Warn("a release cannot be tried out yet", "version", v, "error", err)
			w.trial.failed(time.Now(), w.intervals())
			return result{after: w.trial.left(time.Now())}
		}
		w.trial = backoff{}
		if err := w.sayTrial(want.recipe(), p); err != nil {
			return w.journalTrouble(err)
		}
		w.log.Info("tried out without touching anything", "version", v, "outcome", string(p.Outcome), "reason", p.Reason)
	}
	return result{}
}

// untried are the versions to try out, newest first.
func (w *worker) untried(in input, want plan) []string {
	var all []string
	for _, o := range in.offers.GetOffers() {
		all = append(all, o.GetVersion())
	}
	fleet.SortVersions(all)
	slices.Reverse(all)
	running := w.rec.Installation.Running
	var todo []string
	for _, v := range all[:min(len(all), mostTrials)] {
		t, tried := w.rec.Tried[v]
		newer := running == "" || fleet.CompareTags(v, running) > 0
		if newer && !(tried && t.Recipe == want.recipe() && t.Result.Bundle == in.digest(v)) && !(v == w.state.Target && underWay(w.state.Phase)) {
			todo = append(todo, v)
		}
	}
	return todo
}

// try renders and dry-runs one release.
func (w *worker) try(ctx context.Context, in input, want plan, version string) (fleet.Preflight, error) {
	d := in.digest(version)
	res, err := w.a.again(ctx, in, d, version, w.saw.now, want, w.past())
	switch {
	case unproven(err), builds(err):
		return breaks(version, d, want.Overlay, err.Error()), nil
	case err != nil:
		return fleet.Preflight{}, err
	}
	set, err := w.set(res.Manifest, want.Namespace, version, d, want.Overlay, res.Digest)
	if err == nil {
		set, err = withAllHooks(set, res.Manifest, w.first())
	}
	if err != nil {
		return breaks(version, d, want.Overlay, err.Error()), nil
	}
	s, err := w.a.assess(ctx, set, w.ledger.Inventory, w.rec.Installation.Running)
	switch {
	case final(err):
		return breaks(version, d, want.Overlay, err.Error()), nil
	case err != nil:
		return fleet.Preflight{}, err
	}
	return s.result(set), nil
}

// Plan answers what delivering a version would do; nothing is recorded. An empty version is the one that
// the policy would take next, or else the one that runs.
func (a *Agent) Plan(ctx context.Context, distribution, version string) (fleet.Plan, error) {
	in, w, err := a.subscribed(distribution)
	if err != nil {
		return fleet.Plan{}, err
	}
	if w == nil {
		return fleet.Plan{}, fmt.Errorf("%s: the spoke has just started: %w; try again", distribution, errNotSeen)
	}
	b := w.book.Load()
	o, err := a.overlayFor(ctx, in, w)
	if err != nil {
		return fleet.Plan{}, err
	}
	want, policy, err := wanted(in, o)
	if err != nil {
		return fleet.Plan{}, err
	}
	policy = inForce(policy, b.rec.Pin, in, time.Now())
	if version == "" {
		told, err := remembered(b.rec.Told)
		if err != nil {
			return fleet.Plan{}, err
		}
		selected, err := policy.Select(in.choice(time.Now(), heldFor(b.rec.Held, want, time.Now()), b.rec, told))
		if err != nil {
			return fleet.Plan{}, err
		}
		if version = selected.Version; version == "" {
			return fleet.Plan{}, fmt.Errorf("%s: %s; name a version, or see spoke status %[1]s", distribution, selected.Why)
		}
	}
	d := in.digest(version)
	if version == b.rec.Installation.Running {
		d = b.rec.Installation.Bundle
	}
	manifest, err := a.preview(ctx, in, o, version, d)
	if err != nil {
		return fleet.Plan{}, err
	}
	set, err := a.setOf(in.sub, manifest, want.Namespace, version, d, want.Overlay, "")
	if err != nil {
		return fleet.Plan{}, err
	}
	if set, err = withAllHooks(set, manifest, b.rec.Installation.Running == ""); err != nil {
		return fleet.Plan{}, err
	}
	s, err := a.assess(ctx, set, b.inventory, b.rec.Installation.Running)
	if err != nil {
		return fleet.Plan{}, err
	}
	if q := asksOf(policy, version, b.rec.Installation.Running); q != "" {
		s.asks = append(s.asks, q)
	}
	return s.plan(set, b.rec.Installation.Running), nil
}

// asksOf is why a policy asks its provider about going to a version; empty: it does not.
func asksOf(p fleet.Policy, version, running string) string {
	if p.Pin != nil && p.Pin.Version == version {
		return ""
	}
	p.Pin = nil
	s, err := p.Select(fleet.Choice{Offered: []fleet.Offered{{Version: version}}, Running: running})
	if err != nil {
		return ""
	}
	return s.Asks
}

func (s assessment) plan(set apply.Set, from string) fleet.Plan {
	p := fleet.Plan{From: from, To: set.Version, Preflight: s.result(set), Adopted: s.report.Adopted, Unchecked: s.report.Unchecked, Asks: s.asks}
	if s.verdict.Verdict != fleet.Reversible {
		p.OneWay = s.verdict.Reasons
	}
	for _, c := range s.report.Conflicts {
		p.Conflicts = append(p.Conflicts, c.String())
	}
	for _, o := range s.report.Outside {
		p.Problems = append(p.Problems, outsideText+o.Whole())
	}
	for _, q := range s.report.Problems {
		p.Problems = append(p.Problems, q.String())
	}
	for _, t := range s.report.Steps {
		p.Steps = append(p.Steps, fleet.Step{Verb: t.Verb, Object: t.Object})
	}
	return p
}
