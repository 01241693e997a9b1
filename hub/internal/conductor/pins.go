package conductor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// words at the hub in a provider's place are stored with what they leave in the history and the audit.
type words interface {
	PutPin(fleet.HubPin, fleet.Event, fleet.Entry) error
	DeletePin(cluster fleet.Cluster, distribution string, event fleet.Event, entry fleet.Entry) error // store.ErrNotFound
	PutDecision(fleet.HubDecision, fleet.Event, fleet.Entry) error
}

// subscribed finds a cluster and its subscription. One that has not joined has none, and that is no error.
func (c *Conductor) subscribed(cluster fleet.Cluster, distribution string) (ClusterNews, *fleet.Installation, error) {
	all, err := c.cfg.Store.Clusters()
	if err != nil {
		return ClusterNews{}, nil, fmt.Errorf("look for cluster %s: %w", cluster, err)
	}
	n, ok := slices.BinarySearchFunc(all, cluster, func(s store.Cluster, name fleet.Cluster) int { return cmp.Compare(s.Name, name) })
	if !ok {
		return ClusterNews{}, nil, refuse(ErrNotFound, "no cluster %s; `hub get clusters` lists them", cluster)
	}
	news := c.news(&all[n])
	if i, ok := c.cfg.Store.Installation(cluster, distribution); ok {
		return news, &i, nil
	}
	if news.Joined.IsZero() {
		return news, nil, nil
	}
	return news, nil, refuse(ErrNotFound, "%s does not subscribe to %s: its provider writes that in spoke.yaml; `hub status %s` lists who does", cluster, distribution, distribution)
}

// watched is the offering of a distribution that this hub watches.
func (c *Conductor) watched(distribution string) (*offering, error) {
	o, err := c.offering(distribution)
	if err != nil {
		return nil, fmt.Errorf("read what is offered of %s: %w", distribution, err)
	}
	if !o.watched {
		return nil, refuse(ErrNotFound, "no distribution %s; `hub get distributions` lists them", distribution)
	}
	return o, nil
}

// Pin holds a subscription at a version, from the hub. Whether it counts is for the provider's spoke.yaml to
// say: where the spoke reports that it does not, it is refused, and where it reports nothing, nothing here says
// that it does.
func (c *Conductor) Pin(now time.Time, who Who, pin fleet.HubPin, dry bool) (warnings []string, err error) {
	o, err := c.watched(pin.Distribution)
	if err != nil {
		return nil, err
	}
	news, i, err := c.subscribed(pin.Cluster, pin.Distribution)
	if err != nil {
		return nil, err
	}
	if expired(pin, now) {
		return nil, refuse(ErrInvalid, "a pin until %s is over already; name a moment to come with --until, or leave it away", pin.Until.UTC().Format(time.RFC3339))
	}
	if f := heeds(i); f.Told && !f.Pins {
		return nil, refuse(ErrConflict, "%s takes no pins of %s from the hub: its spoke.yaml says `fromHub: {pins: false}`; its provider pins it at the cluster with `spoke pin %[2]s %s`, or sets pins: true there",
			pin.Cluster, pin.Distribution, pin.Version)
	}
	if err := c.mayPin(o, pin, i); err != nil {
		return nil, err
	}
	warnings = pinWarnings(now, o, news, i, pin)
	if dry {
		return warnings, nil
	}
	lasts := ""
	if !pin.Until.IsZero() {
		lasts = " until " + pin.Until.UTC().Format(time.RFC3339)
	}
	e := fleet.Event{At: now, Cluster: pin.Cluster, Distribution: pin.Distribution, Version: pin.Version, Kind: fleet.EventPinned,
		Message: bounded(fmt.Sprintf("%s pinned it to %s%s at the hub: %s", who.Actor, pin.Version, lasts, pin.Reason))}
	err = c.provide(pin.Cluster, func() error {
		return c.cfg.Store.PutPin(pin, e, said(now, who, "pin", pin.Cluster, pin.Distribution, pin.Version, pin.Reason))
	})
	if err != nil {
		return nil, fmt.Errorf("pin %s of %s: %w", pin.Distribution, pin.Cluster, err)
	}
	return warnings, nil
}

// heeds is what counts at a spoke of what is said at the hub, as it reported.
func heeds(i *fleet.Installation) fleet.FromHub {
	if i == nil {
		return fleet.FromHub{}
	}
	return i.Policy.FromHub
}

// said is the audit's entry for a word in a provider's place.
func said(now time.Time, who Who, action string, cluster fleet.Cluster, distribution, version, reason string) fleet.Entry {
	return fleet.Entry{At: now, Actor: who.Actor, Credential: who.Credential, Action: action,
		Object: strings.TrimSpace(fmt.Sprintf("%s %s %s", cluster, distribution, version)), Reason: reason}
}

// mayPin refuses a pin that can never be followed.
func (c *Conductor) mayPin(o *offering, pin fleet.HubPin, i *fleet.Installation) error {
	r, err := c.cfg.Store.Release(pin.Distribution, pin.Version)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noRelease(pin.Distribution, pin.Version)
	case err != nil:
		return fmt.Errorf("read release %s of %s: %w", pin.Version, pin.Distribution, err)
	case r.Phase != fleet.Available:
		return refuse(ErrConflict, "%s of %s was rejected when it was published, so no cluster can run it; `hub release describe %s %s` says why",
			pin.Version, pin.Distribution, pin.Distribution, pin.Version)
	}
	if _, known := o.releases[pin.Version]; !known {
		return refuse(ErrConflict, "%s of %s is outside the distribution's range of tags, %q, and not offered to anybody; `hub get releases %s` lists what is",
			pin.Version, pin.Distribution, o.distribution.Tags, pin.Distribution)
	}
	running := ""
	if i != nil {
		running = i.Running
	}
	if recall, gone := o.shelf.recalls[pin.Version]; gone && running != pin.Version {
		return refuse(ErrConflict, "%s of %s was recalled by %s: %s; pin it to another, `hub get releases %s` lists them",
			pin.Version, pin.Distribution, recall.By, recall.Reason, pin.Distribution)
	}
	if stop, why := o.broken(running, pin.Version); stop != "" {
		return refuse(ErrConflict, "%s of %s is not on the upgrade path of %s, which runs %s: it needs %s first, which %s; pin it to another, `hub get releases %s` lists them",
			pin.Version, pin.Distribution, pin.Cluster, running, stop, why, pin.Distribution)
	}
	return nil
}

// broken is a required stop between two versions that nobody can run any more, and why.
func (o *offering) broken(running, version string) (stop, why string) {
	if running == "" || fleet.CompareTags(version, running) <= 0 {
		return "", ""
	}
	for _, stop := range o.releases[version].Stops {
		if fleet.CompareTags(stop, running) <= 0 {
			continue
		}
		if recall, gone := o.shelf.recalls[stop]; gone {
			return stop, "was recalled: " + recall.Reason
		}
		if _, known := o.releases[stop]; !known {
			return stop, "is no release that this hub offers"
		}
		if again, why := o.broken(running, stop); again != "" {
			return again, why
		}
	}
	return "", ""
}

// pinWarnings say what is odd about a pin that may be followed.
func pinWarnings(now time.Time, o *offering, news ClusterNews, i *fleet.Installation, pin fleet.HubPin) (all []string) {
	if i == nil {
		return []string{"its spoke has not joined yet; the pin is offered to it when it has, and whether it counts is for its spoke.yaml to say"}
	}
	switch own := i.Policy.PinAt(now); {
	case own != nil && own.Source != fleet.PinHub:
		all = append(all, fmt.Sprintf("it is pinned to %s by its provider already (%s), and that pin counts, not this one", own.Version, own.Source))
	case !i.Policy.FromHub.Told && (own == nil || own.Version != pin.Version):
		all = append(all, "whether the pin counts is for its spoke.yaml to say; `hub get pins` shows when its spoke follows it")
	}
	if old, ok := o.shelf.pins[news.Name]; ok && !expired(old, now) {
		all = append(all, strings.TrimSuffix(fmt.Sprintf("it takes the place of the pin to %s by %s: %s", old.Version, old.Author, old.Reason), ": "))
	}
	if recall, gone := o.shelf.recalls[pin.Version]; gone {
		all = append(all, fmt.Sprintf("%s was recalled: %s; the pin keeps what runs", pin.Version, recall.Reason))
	}
	offered := o.to(now, news.Name, i)
	policy := i.Policy
	policy.Pin = &fleet.Pin{Version: pin.Version, Source: fleet.PinHub}
	s, err := policy.Select(offered.choice(now, i.Running))
	switch {
	case err != nil:
		all = append(all, "its policy cannot be read: "+err.Error())
	case pin.Version == i.Running:
	case s.Version == "":
		all = append(all, fmt.Sprintf("%s is not on offer to it yet: its rollout has not reached it, and it waits for that", pin.Version))
	case s.Goal != "" && s.Version != i.Running:
		all = append(all, fmt.Sprintf("it runs %s and goes to %s first", i.Running, s.Version))
	case s.Goal != "":
		all = append(all, s.Why)
	case i.Running != "" && fleet.CompareTags(pin.Version, i.Running) < 0:
		all = append(all, fmt.Sprintf("it runs %s and goes back to %s", i.Running, pin.Version))
	}
	return all
}

// Unpin takes a pin away that was made at the hub.
func (c *Conductor) Unpin(now time.Time, who Who, cluster fleet.Cluster, distribution, reason string, dry bool) error {
	o, err := c.offering(distribution) // one that is not watched any more may have pins
	if err != nil {
		return fmt.Errorf("read what is offered of %s: %w", distribution, err)
	}
	pin, pinned := o.shelf.pins[cluster]
	if !pinned {
		_, i, err := c.subscribed(cluster, distribution)
		if err != nil {
			return err
		}
		return notPinned(now, cluster, distribution, i)
	}
	if dry {
		return nil
	}
	e := fleet.Event{At: now, Cluster: cluster, Distribution: distribution, Version: pin.Version, Kind: fleet.EventPinned,
		Message: bounded(strings.TrimSuffix(fmt.Sprintf("%s took the hub's pin to %s away: %s", who.Actor, pin.Version, reason), ": "))}
	err = c.provide(cluster, func() error {
		return c.cfg.Store.DeletePin(cluster, distribution, e, said(now, who, "unpin", cluster, distribution, pin.Version, reason))
	})
	switch {
	case errors.Is(err, store.ErrNotFound): // somebody was quicker
		return refuse(ErrNotFound, "%s of %s is not pinned at the hub any more", distribution, cluster)
	case err != nil:
		return fmt.Errorf("unpin %s of %s: %w", distribution, cluster, err)
	}
	return nil
}

// notPinned says where the pin is that the hub does not have.
func notPinned(now time.Time, cluster fleet.Cluster, distribution string, i *fleet.Installation) error {
	if i == nil || i.Policy.PinAt(now) == nil {
		return refuse(ErrNotFound, "%s of %s is not pinned; `hub get pins` lists what is", distribution, cluster)
	}
	pin := i.Policy.PinAt(now)
	where := map[string]string{
		fleet.PinOverlay: "its overlay, as `?ref=` of the base; a commit there takes it away",
		fleet.PinConfig:  "its spoke.yaml, under versions.pin; its provider takes it away there",
		fleet.PinSpoke:   "the spoke itself; its provider takes it away with `spoke unpin " + distribution + "`",
		fleet.PinHub:     "what its spoke last heard of the hub, which has none now; it is gone with its next word",
	}[pin.Source]
	return refuse(ErrConflict, "%s of %s is pinned to %s, not at the hub but in %s", distribution, cluster, pin.Version, cmp.Or(where, pin.Source))
}

// Pins lists those of the hub and those that the spokes' policies have, by cluster and distribution, each
// with what the cluster would take without. Pins that are over are among the hub's, until they are taken
// away.
func (c *Conductor) Pins(now time.Time, distribution string) ([]*fleetv1.Pin, error) {
	f, err := c.fleet()
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	p, err := c.picture()
	if err != nil {
		return nil, err
	}
	s := newScreen(now, c.cfg.Heartbeat, f)
	var all []*fleetv1.Pin
	for n := range f.Clusters {
		news := &f.Clusters[n]
		for _, i := range f.Installations[news.Name] {
			if pin := i.Policy.PinAt(now); pin != nil && (distribution == "" || distribution == i.Distribution) {
				all = append(all, s.pinMessage(news, &i, *pin, p.of(i.Distribution)))
			}
		}
	}
	for name, at := range p.shelves {
		for cluster, pin := range at.pins {
			i := installationOf(f.Installations[cluster], name)
			if distribution != "" && distribution != name || i.Policy.PinAt(now) != nil && follows(i.Policy, pin) {
				continue // listed above
			}
			m := hubPinMessage(pin)
			if m.Would = i.Wants; m.Would == "" {
				m.Would = i.Running
			}
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *fleetv1.Pin) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Distribution, b.Distribution), cmp.Compare(a.Source, b.Source))
	})
	return all, nil
}

func hubPinMessage(p fleet.HubPin) *fleetv1.Pin {
	return &fleetv1.Pin{Cluster: string(p.Cluster), Distribution: p.Distribution, Version: p.Version, Reason: p.Reason, Author: p.Author,
		Source: fleet.PinHub, Until: wire.Time(p.Until), Created: wire.Time(p.Created)}
}

// pinMessage is a pin that holds at the spoke. One of the hub's has the hub's words.
func (s *screen) pinMessage(news *ClusterNews, i *fleet.Installation, pin fleet.Pin, at *shelf) *fleetv1.Pin {
	m := &fleetv1.Pin{Cluster: string(news.Name), Distribution: i.Distribution, Version: pin.Version, Reason: pin.Reason, Author: pin.Author,
		Source: pin.Source, Until: wire.Time(pin.Until)}
	if hub, ok := at.pins[news.Name]; ok && follows(i.Policy, hub) {
		m = hubPinMessage(hub)
	}
	m.InForce = true
	if m.Would = i.Would; m.Would == "" {
		m.Would = cmp.Or(s.view(news, i).want.Would, pin.Version)
	}
	return m
}

// DecideDelivery answers, from the hub, for a release that waits for its provider.
func (c *Conductor) DecideDelivery(now time.Time, who Who, decision fleet.HubDecision, dry bool) (version string, warnings []string, err error) {
	cluster, distribution := decision.Cluster, decision.Distribution
	_, i, err := c.subscribed(cluster, distribution)
	if err != nil {
		return "", nil, err
	}
	if i == nil {
		return "", nil, refuse(ErrConflict, "the spoke of %s has not joined yet, so nothing waits there; `hub cluster invite %s` prints the line to run", cluster, cluster)
	}
	switch f := heeds(i); {
	case !f.Told:
		warnings = []string{"whether that counts is for its spoke.yaml to say (fromHub: {decisions: true}), and its spoke is too old to tell; `hub why` shows what it makes of it"}
	case !f.Decisions:
		return "", nil, refuse(ErrConflict, "%s takes no answers for %s from the hub: its spoke.yaml does not say `fromHub: {decisions: true}`; its provider answers at the cluster with `spoke approve %[2]s` or `spoke reject %[2]s`",
			cluster, distribution)
	}
	if i.Phase != fleet.AwaitingApproval {
		return "", nil, refuse(ErrConflict, "nothing of %s waits for its provider on %s; `hub why %s %s` says what it does", distribution, cluster, cluster, distribution)
	}
	decision.Version = cmp.Or(decision.Version, i.Target)
	if decision.Version != i.Target {
		return "", nil, refuse(ErrConflict, "%s of %s waits on %s, not %s; leave the version away to answer for the one that waits", i.Target, distribution, cluster, decision.Version)
	}
	p, err := c.picture()
	if err != nil {
		return "", nil, err
	}
	if old, ok := p.of(distribution).decisions[cluster]; ok && old.Version == decision.Version && old.Approved == decision.Approved && current(old, i) {
		return "", nil, refuse(ErrExists, "%s was %s for %s by %s %s ago already; its spoke has not acted on it: whether it does is for its spoke.yaml to say",
			decision.Version, decided(old.Approved), cluster, old.Author, fleet.Age(now, old.At))
	}
	if dry {
		return decision.Version, warnings, nil
	}
	decision.Asked = i.PhaseSince
	action := "delivery reject"
	if decision.Approved {
		action = "delivery approve"
	}
	e := fleet.Event{At: now, Cluster: cluster, Distribution: distribution, Version: decision.Version, Kind: fleet.EventDecided,
		Message: bounded(strings.TrimSuffix(fmt.Sprintf("%s %s it for its provider: %s", who.Actor, decided(decision.Approved), decision.Reason), ": "))}
	err = c.provide(cluster, func() error {
		return c.cfg.Store.PutDecision(decision, e, said(now, who, action, cluster, distribution, decision.Version, decision.Reason))
	})
	if err != nil {
		return "", nil, fmt.Errorf("decide about %s of %s: %w", decision.Version, cluster, err)
	}
	return decision.Version, warnings, nil
}

// current: the decision is about what is asked now, not about what was asked before it in the same delivery.
func current(d fleet.HubDecision, i *fleet.Installation) bool {
	if d.Asked.IsZero() { // of an earlier hub
		return !d.At.Before(i.PhaseSince)
	}
	return d.Asked.Equal(i.PhaseSince)
}

func decided(approved bool) string {
	if approved {
		return "approved"
	}
	return "rejected"
}
