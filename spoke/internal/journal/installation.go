package journal

import (
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

type storedPin struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason,omitempty"`
	Source  string    `json:"source,omitempty"`
	Author  string    `json:"author,omitempty"`
	Until   time.Time `json:"until,omitzero"`
}

func storePin(p *fleet.Pin) *storedPin {
	if p == nil {
		return nil
	}
	return &storedPin{p.Version, p.Reason, p.Source, p.Author, p.Until}
}

func (s *storedPin) noun() *fleet.Pin {
	if s == nil {
		return nil
	}
	return &fleet.Pin{Version: s.Version, Reason: s.Reason, Source: s.Source, Author: s.Author, Until: s.Until}
}

type fromHub struct {
	Pins      bool `json:"pins"`
	Decisions bool `json:"decisions"`
	Rollbacks bool `json:"rollbacks,omitempty"`
}

func storeFromHub(f fleet.FromHub) *fromHub {
	if !f.Told {
		return nil
	}
	return &fromHub{f.Pins, f.Decisions, f.Rollbacks}
}

func (f *fromHub) noun() fleet.FromHub {
	if f == nil {
		return fleet.FromHub{}
	}
	return fleet.FromHub{Told: true, Pins: f.Pins, Decisions: f.Decisions, Rollbacks: f.Rollbacks}
}

type storedInstallation struct {
	Distribution   string         `json:"distribution"`
	Variant        string         `json:"variant,omitempty"`
	Namespace      string         `json:"namespace,omitempty"`
	Range          string         `json:"range,omitempty"`
	Prereleases    bool           `json:"prereleases,omitempty"`
	Pin            *storedPin     `json:"pin,omitempty"`
	Patch          string         `json:"patch,omitempty"`
	Minor          string         `json:"minor,omitempty"`
	Major          string         `json:"major,omitempty"`
	Windows        []string       `json:"windows,omitempty"`
	Running        string         `json:"running,omitempty"`
	Bundle         string         `json:"bundle,omitempty"`
	Overlay        string         `json:"overlay,omitempty"`
	Rendered       string         `json:"rendered,omitempty"`
	Phase          string         `json:"phase,omitempty"`
	Target         string         `json:"target,omitempty"`
	Reason         string         `json:"reason,omitempty"`
	PhaseSince     time.Time      `json:"phaseSince,omitzero"`
	Health         string         `json:"health,omitempty"`
	HealthMessage  string         `json:"healthMessage,omitempty"`
	Objects        int            `json:"objects,omitempty"`
	Ready          int            `json:"ready,omitempty"`
	DriftCorrected int            `json:"driftCorrected,omitempty"`
	Drifted        int            `json:"drifted,omitempty"`
	DriftMessage   string         `json:"driftMessage,omitempty"`
	ObservedAt     time.Time      `json:"observedAt,omitzero"`
	Wants          string         `json:"wants,omitempty"`
	Would          string         `json:"would,omitempty"`
	Declined       bool           `json:"declined,omitempty"`
	Canary         *storedCanary  `json:"canary,omitempty"`
	FromHub        *fromHub       `json:"fromHub,omitempty"`
	SignedBy       []string       `json:"signedBy,omitempty"`
	Alarm          string         `json:"alarm,omitempty"`
	Channel        *fleet.Channel `json:"channel,omitempty"`
}

func storeInstallation(i fleet.Installation) storedInstallation {
	p := i.Policy
	return storedInstallation{
		Distribution: i.Distribution, Variant: i.Variant, Namespace: i.Namespace, Range: p.Range, Prereleases: p.Prereleases, Pin: storePin(p.Pin),
		Patch: string(p.Patch), Minor: string(p.Minor), Major: string(p.Major), Windows: p.Windows.Texts(),
		Running: i.Running, Bundle: string(i.Bundle), Overlay: string(i.Overlay), Rendered: string(i.Rendered),
		Phase: string(i.Phase), Target: i.Target, Reason: i.Reason, PhaseSince: i.PhaseSince,
		Health: string(i.Health), HealthMessage: i.HealthMessage, Objects: i.Objects, Ready: i.Ready,
		DriftCorrected: i.DriftCorrected, Drifted: i.Drifted, DriftMessage: i.DriftMessage, ObservedAt: i.ObservedAt,
		Wants: i.Wants, Would: i.Would, Declined: i.Declined, Canary: storeCanary(i.Canary), FromHub: storeFromHub(p.FromHub),
		SignedBy: i.SignedBy, Alarm: i.Alarm, Channel: i.Channel,
	}
}

func (s storedInstallation) noun() (fleet.Installation, error) {
	windows, err := fleet.ParseWindows(s.Windows)
	return fleet.Installation{
		Distribution: s.Distribution, Variant: s.Variant, Namespace: s.Namespace,
		Policy: fleet.Policy{Range: s.Range, Prereleases: s.Prereleases, Pin: s.Pin.noun(),
			Patch: fleet.Upgrade(s.Patch), Minor: fleet.Upgrade(s.Minor), Major: fleet.Upgrade(s.Major), Windows: windows, FromHub: s.FromHub.noun()},
		Running: s.Running, Bundle: fleet.Digest(s.Bundle), Overlay: fleet.Digest(s.Overlay), Rendered: fleet.Digest(s.Rendered),
		Phase: fleet.Phase(s.Phase), Target: s.Target, Reason: s.Reason, PhaseSince: s.PhaseSince,
		Health: fleet.Health(s.Health), HealthMessage: s.HealthMessage, Objects: s.Objects, Ready: s.Ready,
		DriftCorrected: s.DriftCorrected, Drifted: s.Drifted, DriftMessage: s.DriftMessage, ObservedAt: s.ObservedAt,
		Wants: s.Wants, Would: s.Would, Declined: s.Declined, Canary: s.Canary.noun(), SignedBy: s.SignedBy, Alarm: s.Alarm, Channel: s.Channel,
	}, err
}
