package syncapi

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const (
	maxMessage = 1000 // bytes of a text for people
	maxName    = 253  // bytes of a version, variant or namespace
	maxJournal = 128  // bytes of a journal id
)

// line makes a spoke's text safe to print: one line, no control characters, not longer than most.
// A provider's spoke must not be able to write on the vendor's terminal.
func line(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= most {
		return s
	}
	cut := most - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// installation reads one subscription's status and refuses what is no noun.
func installation(m *syncv1.SubscriptionStatus) (fleet.Installation, error) {
	i, err := wire.FromInstallation(m)
	if err != nil {
		return i, err
	}
	if !slices.Contains(fleet.Phases, i.Phase) {
		return i, fmt.Errorf("subscription status of %s: unknown phase %q", i.Distribution, line(string(i.Phase), maxName))
	}
	switch i.Health {
	case fleet.Healthy, fleet.InProgress, fleet.Degraded:
	default: // a word that this hub does not know is no good news
		i.Health = fleet.HealthUnknown
	}
	for _, s := range []*string{&i.Variant, &i.Namespace, &i.Running, &i.Target, &i.Policy.Range, &i.Wants, &i.Would} {
		*s = line(*s, maxName)
	}
	for _, s := range []*string{&i.Reason, &i.HealthMessage, &i.DriftMessage} {
		*s = line(*s, maxMessage)
	}
	if c := i.Canary; c != nil { // ours: it was just read
		c.Gate = line(c.Gate, maxName)
		for n := range c.Traffic {
			c.Traffic[n].Service = line(c.Traffic[n].Service, maxName)
		}
	}
	if p := i.Policy.Pin; p != nil {
		p.Version, p.Reason, p.Source, p.Author = line(p.Version, maxName), line(p.Reason, maxMessage), line(p.Source, maxName), line(p.Author, maxName)
	}
	return i, nil
}

// subscriptions reads a Hello's list.
func subscriptions(list []*syncv1.SubscriptionStatus) ([]fleet.Installation, error) {
	if len(list) > maxSubscriptions {
		return nil, fmt.Errorf("%d subscriptions, this hub takes at most %d of one cluster", len(list), maxSubscriptions)
	}
	seen := map[string]bool{}
	installations := make([]fleet.Installation, 0, len(list))
	for _, m := range list {
		i, err := installation(m)
		if err != nil {
			return nil, err
		}
		if seen[i.Distribution] {
			return nil, fmt.Errorf("two subscriptions to %s, want one; correct spoke.yaml", i.Distribution)
		}
		seen[i.Distribution] = true
		installations = append(installations, i)
	}
	return installations, nil
}

// event reads a spoke's event. One that cannot be read becomes a note under its number: refusing it
// would have the spoke send it for ever and hold back all later ones.
func event(cluster fleet.Cluster, m *syncv1.Event, now time.Time) fleet.Event {
	e, err := wire.FromEvent(cluster, m)
	if err == nil && e.Installation != nil {
		var i fleet.Installation
		i, err = installation(m.GetStatus())
		e.Installation = &i
	}
	if err == nil && e.Distribution != "" {
		err = fleet.CheckDistributionName(e.Distribution)
	}
	if err == nil && e.Installation != nil && e.Distribution != e.Installation.Distribution {
		err = fmt.Errorf("event %d of %q carries the status of %s", m.GetSeq(), e.Distribution, e.Installation.Distribution)
	}
	if err == nil && e.Preflight != nil && (e.Distribution == "" || e.Version != e.Preflight.Version) {
		err = fmt.Errorf("event %d of %q %q carries a pre-flight of %q", m.GetSeq(), e.Distribution, e.Version, e.Preflight.Version)
	}
	if err != nil {
		e = fleet.Event{Seq: m.GetSeq(), At: e.At, Cluster: cluster, Kind: fleet.EventAgent, Message: "the spoke sent what this hub cannot read: " + err.Error()}
	}
	// A spoke's clock may be wrong; an event from the future would stay the newest for long.
	if e.At.IsZero() || e.At.After(now) {
		e.At = now
	}
	e.Version = line(e.Version, maxName)
	if e.Preflight != nil {
		p := preflight(*e.Preflight, e.At)
		e.Preflight, e.Message = &p, p.Version+": "+p.Summary() // in the hub's own words
	}
	e.Message = line(e.Message, maxMessage)
	if e.ReHome != nil { // what the hub itself says of an identity has no such beginning
		e.Message = line(fmt.Sprintf("re-home %s: %s", e.ReHome.State, e.Message), maxMessage)
	}
	return e
}

// mostChanges of a pre-flight are kept apart; the rest are counted together.
const mostChanges = 100

// preflight makes what a spoke found safe to print and to keep. It was not found after the event's time.
func preflight(p fleet.Preflight, at time.Time) fleet.Preflight {
	p.Version, p.Reason = line(p.Version, maxName), line(p.Reason, maxMessage)
	for _, d := range []*fleet.Digest{&p.Bundle, &p.Overlay} {
		if _, err := fleet.ParseDigest(string(*d)); err != nil {
			*d = ""
		}
	}
	if p.At.IsZero() || p.At.After(at) {
		p.At = at
	}
	var changes []fleet.KindChange
	for _, c := range p.Changes {
		c.Kind = line(c.Kind, maxName)
		if len(changes) >= mostChanges {
			c.Kind = "of other kinds"
			if i := slices.IndexFunc(changes, func(o fleet.KindChange) bool { return o.Kind == c.Kind && o.Verb == c.Verb }); i >= 0 {
				changes[i].Count += c.Count
				continue
			}
		}
		changes = append(changes, c)
	}
	p.Changes = changes
	return p
}
