package store

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

type policyRecord struct {
	Range       string     `json:"range,omitempty"`
	Prereleases bool       `json:"prereleases,omitempty"`
	Pin         *pinRecord `json:"pin,omitempty"`
	Patch       string     `json:"patch,omitempty"`
	Minor       string     `json:"minor,omitempty"`
	Major       string     `json:"major,omitempty"`
	Windows     []string   `json:"windows,omitempty"` // as fleet.ParseWindow reads them
	FromHub     *fromHub   `json:"fromHub,omitempty"` // nil: the spoke does not say
}

type fromHub struct {
	Pins      bool `json:"pins"`
	Decisions bool `json:"decisions"`
	Rollbacks bool `json:"rollbacks,omitempty"`
}

type pinRecord struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason,omitempty"`
	Source  string    `json:"source,omitempty"`
	Author  string    `json:"author,omitempty"`
	Until   time.Time `json:"until,omitzero"`
}

func policyRecordOf(p *fleet.Policy) policyRecord {
	r := policyRecord{Range: p.Range, Prereleases: p.Prereleases, Patch: string(p.Patch), Minor: string(p.Minor), Major: string(p.Major), Windows: p.Windows.Texts()}
	if pin := p.Pin; pin != nil {
		r.Pin = &pinRecord{Version: pin.Version, Reason: pin.Reason, Source: pin.Source, Author: pin.Author, Until: utc(pin.Until)}
	}
	if f := p.FromHub; f.Told {
		r.FromHub = &fromHub{f.Pins, f.Decisions, f.Rollbacks}
	}
	return r
}

func policyOf(r policyRecord, w *windows) fleet.Policy {
	p := fleet.Policy{Range: r.Range, Prereleases: r.Prereleases, Patch: fleet.Upgrade(r.Patch), Minor: fleet.Upgrade(r.Minor), Major: fleet.Upgrade(r.Major),
		Windows: w.read(r.Windows)}
	if pin := r.Pin; pin != nil {
		p.Pin = &fleet.Pin{Version: pin.Version, Reason: pin.Reason, Source: pin.Source, Author: pin.Author, Until: pin.Until}
	}
	if f := r.FromHub; f != nil {
		p.FromHub = fleet.FromHub{Told: true, Pins: f.Pins, Decisions: f.Decisions, Rollbacks: f.Rollbacks}
	}
	return p
}

// healthRecord is what changes of an installation while nothing is delivered.
type healthRecord struct {
	Health         string    `json:"health,omitempty"`
	HealthMessage  string    `json:"healthMessage,omitempty"`
	Objects        int       `json:"objects,omitempty"`
	Ready          int       `json:"ready,omitempty"`
	DriftCorrected int       `json:"driftCorrected,omitempty"`
	Drifted        int       `json:"drifted,omitempty"`
	DriftMessage   string    `json:"driftMessage,omitempty"`
	ObservedAt     time.Time `json:"observedAt,omitzero"`
}

func healthRecordOf(i *fleet.Installation) healthRecord {
	return healthRecord{Health: string(i.Health), HealthMessage: i.HealthMessage, Objects: i.Objects, Ready: i.Ready,
		DriftCorrected: i.DriftCorrected, Drifted: i.Drifted, DriftMessage: i.DriftMessage, ObservedAt: utc(i.ObservedAt)}
}

// onto puts it in the place of what was said before.
func (r healthRecord) onto(i *fleet.Installation) {
	i.Health, i.HealthMessage, i.Objects, i.Ready = fleet.Health(r.Health), r.HealthMessage, r.Objects, r.Ready
	i.DriftCorrected, i.Drifted, i.DriftMessage, i.ObservedAt = r.DriftCorrected, r.Drifted, r.DriftMessage, r.ObservedAt
}

// saysThe: it says the same as the other but for when it was observed.
func (r healthRecord) saysThe(o healthRecord) bool {
	r.ObservedAt, o.ObservedAt = time.Time{}, time.Time{}
	return r == o
}

type installationRecord struct {
	Distribution string       `json:"distribution"`
	Variant      string       `json:"variant,omitempty"`
	Namespace    string       `json:"namespace,omitempty"`
	Policy       policyRecord `json:"policy,omitzero"`
	Running      string       `json:"running,omitempty"`
	Bundle       string       `json:"bundle,omitempty"`
	Overlay      string       `json:"overlay,omitempty"`
	Rendered     string       `json:"rendered,omitempty"`
	Phase        string       `json:"phase,omitempty"`
	Target       string       `json:"target,omitempty"`
	Reason       string       `json:"reason,omitempty"`
	PhaseSince   time.Time    `json:"phaseSince,omitzero"`
	healthRecord
	Wants    string         `json:"wants,omitempty"`
	Would    string         `json:"would,omitempty"`
	Declined bool           `json:"declined,omitempty"`
	Canary   *canaryRecord  `json:"canary,omitempty"`
	SignedBy []string       `json:"signedBy,omitempty"`
	Alarm    string         `json:"alarm,omitempty"`
	Channel  *fleet.Channel `json:"channel,omitempty"`
}

// delivers: it says the same as what is known but for the health.
func (r *installationRecord) delivers(i *fleet.Installation) bool {
	return r.Distribution == i.Distribution && r.Variant == i.Variant && r.Namespace == i.Namespace &&
		r.Running == i.Running && r.Bundle == string(i.Bundle) && r.Overlay == string(i.Overlay) && r.Rendered == string(i.Rendered) &&
		r.Phase == string(i.Phase) && r.Target == i.Target && r.Reason == i.Reason && r.PhaseSince.Equal(i.PhaseSince) &&
		r.Wants == i.Wants && r.Would == i.Would && r.Declined == i.Declined && r.Canary.is(canaryRecordOf(i.Canary)) &&
		slices.Equal(r.SignedBy, i.SignedBy) && r.Alarm == i.Alarm && alike(r.Channel, i.Channel) && r.Policy.is(policyRecordOf(&i.Policy))
}

func (r *policyRecord) is(o policyRecord) bool {
	return r.Range == o.Range && r.Prereleases == o.Prereleases && alike(r.Pin, o.Pin) && r.Patch == o.Patch && r.Minor == o.Minor &&
		r.Major == o.Major && slices.Equal(r.Windows, o.Windows) && alike(r.FromHub, o.FromHub)
}

// alike: both are nil, or neither is and they say the same.
func alike[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

func installationRecordOf(i *fleet.Installation) *installationRecord {
	return &installationRecord{
		Distribution: i.Distribution, Variant: i.Variant, Namespace: i.Namespace,
		Policy:  policyRecordOf(&i.Policy),
		Running: i.Running, Bundle: string(i.Bundle), Overlay: string(i.Overlay), Rendered: string(i.Rendered),
		Phase: string(i.Phase), Target: i.Target, Reason: i.Reason, PhaseSince: utc(i.PhaseSince),
		healthRecord: healthRecordOf(i),
		Wants:        i.Wants, Would: i.Would, Declined: i.Declined, Canary: canaryRecordOf(i.Canary),
		SignedBy: i.SignedBy, Alarm: i.Alarm, Channel: i.Channel,
	}
}

func installationOf(r installationRecord, w *windows) fleet.Installation {
	return fleet.Installation{
		Distribution: r.Distribution, Variant: r.Variant, Namespace: r.Namespace,
		Policy:  policyOf(r.Policy, w),
		Running: r.Running, Bundle: fleet.Digest(r.Bundle), Overlay: fleet.Digest(r.Overlay), Rendered: fleet.Digest(r.Rendered),
		Phase: fleet.Phase(r.Phase), Target: r.Target, Reason: r.Reason, PhaseSince: r.PhaseSince,
		Health: fleet.Health(r.Health), HealthMessage: r.HealthMessage, Objects: r.Objects, Ready: r.Ready,
		DriftCorrected: r.DriftCorrected, Drifted: r.Drifted, DriftMessage: r.DriftMessage, ObservedAt: r.ObservedAt,
		Wants: r.Wants, Would: r.Would, Declined: r.Declined, Canary: r.Canary.noun(),
		SignedBy: r.SignedBy, Alarm: r.Alarm, Channel: r.Channel,
	}
}

func installationsOf(list []installationRecord, w *windows) []fleet.Installation {
	all := make([]fleet.Installation, 0, len(list))
	for _, r := range list {
		all = append(all, installationOf(r, w))
	}
	return all
}

// of is the installation of a distribution; nil: there is none.
func of(list []fleet.Installation, distribution string) *fleet.Installation {
	for n := range list {
		if list[n].Distribution == distribution {
			return &list[n]
		}
	}
	return nil
}

// maxWindows bounds what windows remembers: the texts are the spokes' to choose.
const maxWindows = 1000

// windows reads maintenance windows, each text once: a time zone is read from its file and takes kilobytes.
type windows struct {
	mu    sync.Mutex
	known map[string]fleet.Window
}

// read leaves out a window that cannot be read; the spoke says it again when it next connects.
func (w *windows) read(texts []string) (all fleet.Windows) {
	if len(texts) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, text := range texts {
		one, known := w.known[text]
		if !known {
			var err error
			if one, err = fleet.ParseWindow(text); err != nil {
				continue
			}
			if w.known == nil || len(w.known) >= maxWindows {
				w.known = map[string]fleet.Window{}
			}
			w.known[strings.Clone(text)] = one
		}
		all = append(all, one)
	}
	return all
}
