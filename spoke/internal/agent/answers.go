package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Hello is what the spoke says first to the hub, but for the versions of Kubernetes.
func (a *Agent) Hello() (*syncv1.Hello, error) {
	all, err := a.Installations()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	h := &syncv1.Hello{SpokeVersion: a.cfg.Version, JournalId: a.cfg.Offers.ID(), Revision: a.desired.GetRevision()}
	for _, i := range all {
		h.Subscriptions = append(h.Subscriptions, wire.Installation(i))
	}
	return h, nil
}

// Installations are the subscriptions' states, in the order of spoke.yaml.
func (a *Agent) Installations() ([]fleet.Installation, error) {
	a.mu.Lock()
	settings, workers := a.settings, map[string]*worker{}
	for name, w := range a.workers {
		workers[name] = w
	}
	a.mu.Unlock()
	var all []fleet.Installation
	for _, s := range settings.Subscriptions {
		if w := workers[s.Distribution]; w != nil {
			all = append(all, *w.seen.Load())
			continue
		}
		r, found, err := a.cfg.Memory.Record(s.Distribution)
		if err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		if !found {
			r.Installation = fleet.Installation{Distribution: s.Distribution, Variant: s.Variant, Namespace: s.Namespace, Policy: s.Policy, Health: fleet.HealthUnknown}
		}
		all = append(all, r.Installation)
	}
	return all, nil
}

// ErrNotSubscribed: spoke.yaml does not name the distribution.
var ErrNotSubscribed = errors.New("not in spoke.yaml")

// Render answers exactly what would be applied for a version, as canonical YAML; "" means the
// version that runs, or else the highest on offer; and what of it is outside of the envelope, a line each.
func (a *Agent) Render(ctx context.Context, distribution, version string) (text []byte, outside []string, err error) {
	in, w, err := a.subscribed(distribution)
	if err != nil {
		return nil, nil, err
	}
	var runs fleet.Installation
	if w != nil {
		runs = *w.seen.Load()
	}
	if version == "" {
		version = runs.Running
	}
	if all := in.versions(); version == "" && len(all) > 0 {
		version = all[len(all)-1]
	}
	d := in.digest(version)
	if version == runs.Running && version != "" {
		d = runs.Bundle // it may be off the offer, and it never changes
	}
	o, err := a.overlayFor(ctx, in, w)
	if err != nil {
		return nil, nil, err
	}
	rendered, err := a.preview(ctx, in, o, version, d)
	if err != nil {
		return nil, nil, err
	}
	if !in.sub.Envelope.None() {
		set, err := a.setOf(in.sub, rendered, in.sub.Namespace, version, d, "", "")
		if err != nil {
			return nil, nil, err
		}
		for _, one := range a.judge(ctx, set) {
			outside = append(outside, one.Whole())
		}
	}
	text, err = withoutMarks(sent(rendered))
	return text, outside, err
}
