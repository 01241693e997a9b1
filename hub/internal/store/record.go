package store

import (
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

type distributionRecord struct {
	URL      string        `json:"url"`
	Path     string        `json:"path"`
	Tags     string        `json:"tags,omitempty"`
	Interval time.Duration `json:"interval"`
	Created  time.Time     `json:"created,omitzero"`

	Preflight time.Duration `json:"preflight,omitempty"`
}

func distributionOf(name string, r distributionRecord) fleet.Distribution {
	return fleet.Distribution{Name: name, URL: r.URL, Path: r.Path, Tags: r.Tags, Interval: r.Interval, Created: r.Created}
}

type releaseRecord struct {
	Distribution string          `json:"distribution"`
	Version      string          `json:"version"`
	TagHash      string          `json:"tagHash"` // what the tag pointed at when it was judged
	Phase        string          `json:"phase"`
	Reasons      []string        `json:"reasons,omitempty"`
	Variants     []variantRecord `json:"variants,omitempty"`
	Digest       string          `json:"digest,omitempty"`
	Size         int64           `json:"size,omitempty"`
	Compressed   int64           `json:"compressed,omitempty"`
	Commit       string          `json:"commit,omitempty"`
	TagObject    string          `json:"tagObject,omitempty"`
	Published    time.Time       `json:"published,omitzero"`
	Stops        []string        `json:"stops,omitempty"`
	Plan         string          `json:"plan,omitempty"` // canonical YAML
}

type variantRecord struct {
	Name    string   `json:"name"`
	Objects int      `json:"objects"`
	Reasons []string `json:"reasons,omitempty"`
}

func releaseRecordOf(r fleet.Release, tagHash string) releaseRecord {
	rec := releaseRecord{
		Distribution: r.Distribution, Version: r.Version, TagHash: tagHash, Phase: string(r.Phase), Reasons: r.Reasons,
		Digest: string(r.Digest), Size: r.Size, Compressed: r.Compressed, Commit: r.Commit, TagObject: r.TagObject, Published: utc(r.Published),
		Stops: r.Stops, Plan: string(r.Plan),
	}
	for _, v := range r.Variants {
		rec.Variants = append(rec.Variants, variantRecord(v))
	}
	return rec
}

func releaseOf(rec releaseRecord) fleet.Release {
	r := fleet.Release{
		Distribution: rec.Distribution, Version: rec.Version, Phase: fleet.ReleasePhase(rec.Phase), Reasons: rec.Reasons,
		Digest: fleet.Digest(rec.Digest), Size: rec.Size, Compressed: rec.Compressed, Commit: rec.Commit, TagObject: rec.TagObject, Published: rec.Published,
		Stops: rec.Stops,
	}
	if rec.Plan != "" {
		r.Plan = []byte(rec.Plan)
	}
	for _, v := range rec.Variants {
		r.Variants = append(r.Variants, fleet.VariantResult(v))
	}
	return r
}

type clusterRecord struct {
	Labels            map[string]string `json:"labels,omitempty"`
	Created           time.Time         `json:"created,omitzero"`
	Joined            time.Time         `json:"joined,omitzero"`
	SpokeVersion      string            `json:"spokeVersion,omitempty"`
	KubernetesVersion string            `json:"kubernetesVersion,omitempty"`
	CertNotAfter      time.Time         `json:"certNotAfter,omitzero"`
	LastSeen          time.Time         `json:"lastSeen,omitzero"`
}

type tokenRecord struct {
	Cluster    fleet.Cluster `json:"cluster"`
	SecretHash []byte        `json:"secretHash"` // SHA-256; the secret itself is nowhere
	Expires    time.Time     `json:"expires,omitzero"`
	Used       time.Time     `json:"used,omitzero"`
}

type identityRecord struct {
	Cluster  fleet.Cluster `json:"cluster,omitempty"`
	Operator string        `json:"operator,omitempty"`
	NotAfter time.Time     `json:"notAfter,omitzero"`
}

type journalRecord struct {
	Acked uint64    `json:"acked"`
	At    time.Time `json:"at,omitzero"`
}

type eventRecord struct {
	At           time.Time     `json:"at,omitzero"`
	Seq          uint64        `json:"seq,omitempty"`
	Cluster      fleet.Cluster `json:"cluster,omitempty"`
	Distribution string        `json:"distribution,omitempty"`
	Version      string        `json:"version,omitempty"`
	Kind         string        `json:"kind"`
	Message      string        `json:"message,omitempty"`
}

type preflightRecord struct {
	Bundle        string         `json:"bundle,omitempty"`
	Overlay       string         `json:"overlay,omitempty"`
	Outcome       string         `json:"outcome"`
	Changes       []changeRecord `json:"changes,omitempty"`
	Reason        string         `json:"reason,omitempty"`
	Reversibility string         `json:"reversibility,omitempty"`
	At            time.Time      `json:"at,omitzero"`
}

type changeRecord struct {
	Kind  string `json:"kind"`
	Verb  string `json:"verb"`
	Count int    `json:"count"`
}

type offeredRecord struct {
	At time.Time `json:"at,omitzero"`
}

func preflightRecordOf(p fleet.Preflight) preflightRecord {
	r := preflightRecord{Bundle: string(p.Bundle), Overlay: string(p.Overlay), Outcome: string(p.Outcome), Reason: p.Reason,
		Reversibility: string(p.Reversibility), At: utc(p.At)}
	for _, c := range p.Changes {
		r.Changes = append(r.Changes, changeRecord{Kind: c.Kind, Verb: string(c.Verb), Count: c.Count})
	}
	return r
}

func preflightOf(version string, r preflightRecord) fleet.Preflight {
	p := fleet.Preflight{Version: version, Bundle: fleet.Digest(r.Bundle), Overlay: fleet.Digest(r.Overlay), Outcome: fleet.Outcome(r.Outcome),
		Reason: r.Reason, Reversibility: fleet.Reversibility(r.Reversibility), At: r.At}
	for _, c := range r.Changes {
		p.Changes = append(p.Changes, fleet.KindChange{Kind: c.Kind, Verb: fleet.Verb(c.Verb), Count: c.Count})
	}
	return p
}

type policyRecord struct {
	Range       string     `json:"range,omitempty"`
	Prereleases bool       `json:"prereleases,omitempty"`
	Pin         *pinRecord `json:"pin,omitempty"`
}

type pinRecord struct {
	Version string `json:"version"`
	Reason  string `json:"reason,omitempty"`
	Source  string `json:"source,omitempty"`
}

type installationRecord struct {
	Distribution   string       `json:"distribution"`
	Variant        string       `json:"variant,omitempty"`
	Namespace      string       `json:"namespace,omitempty"`
	Policy         policyRecord `json:"policy,omitzero"`
	Running        string       `json:"running,omitempty"`
	Bundle         string       `json:"bundle,omitempty"`
	Overlay        string       `json:"overlay,omitempty"`
	Rendered       string       `json:"rendered,omitempty"`
	Phase          string       `json:"phase,omitempty"`
	Target         string       `json:"target,omitempty"`
	Reason         string       `json:"reason,omitempty"`
	PhaseSince     time.Time    `json:"phaseSince,omitzero"`
	Health         string       `json:"health,omitempty"`
	HealthMessage  string       `json:"healthMessage,omitempty"`
	Objects        int          `json:"objects,omitempty"`
	Ready          int          `json:"ready,omitempty"`
	DriftCorrected int          `json:"driftCorrected,omitempty"`
	Drifted        int          `json:"drifted,omitempty"`
	DriftMessage   string       `json:"driftMessage,omitempty"`
	ObservedAt     time.Time    `json:"observedAt,omitzero"`
	Wants          string       `json:"wants,omitempty"`
	Would          string       `json:"would,omitempty"`
}

func installationRecordOf(i fleet.Installation) installationRecord {
	r := installationRecord{
		Distribution: i.Distribution, Variant: i.Variant, Namespace: i.Namespace,
		Policy:  policyRecord{Range: i.Policy.Range, Prereleases: i.Policy.Prereleases},
		Running: i.Running, Bundle: string(i.Bundle), Overlay: string(i.Overlay), Rendered: string(i.Rendered),
		Phase: string(i.Phase), Target: i.Target, Reason: i.Reason, PhaseSince: utc(i.PhaseSince),
		Health: string(i.Health), HealthMessage: i.HealthMessage, Objects: i.Objects, Ready: i.Ready,
		DriftCorrected: i.DriftCorrected, Drifted: i.Drifted, DriftMessage: i.DriftMessage, ObservedAt: utc(i.ObservedAt),
		Wants: i.Wants, Would: i.Would,
	}
	if p := i.Policy.Pin; p != nil {
		r.Policy.Pin = &pinRecord{Version: p.Version, Reason: p.Reason, Source: p.Source}
	}
	return r
}

func installationOf(r installationRecord) fleet.Installation {
	i := fleet.Installation{
		Distribution: r.Distribution, Variant: r.Variant, Namespace: r.Namespace,
		Policy:  fleet.Policy{Range: r.Policy.Range, Prereleases: r.Policy.Prereleases},
		Running: r.Running, Bundle: fleet.Digest(r.Bundle), Overlay: fleet.Digest(r.Overlay), Rendered: fleet.Digest(r.Rendered),
		Phase: fleet.Phase(r.Phase), Target: r.Target, Reason: r.Reason, PhaseSince: r.PhaseSince,
		Health: fleet.Health(r.Health), HealthMessage: r.HealthMessage, Objects: r.Objects, Ready: r.Ready,
		DriftCorrected: r.DriftCorrected, Drifted: r.Drifted, DriftMessage: r.DriftMessage, ObservedAt: r.ObservedAt,
		Wants: r.Wants, Would: r.Would,
	}
	if p := r.Policy.Pin; p != nil {
		i.Policy.Pin = &fleet.Pin{Version: p.Version, Reason: p.Reason, Source: p.Source}
	}
	return i
}

func installationsOf(list []installationRecord) []fleet.Installation {
	all := make([]fleet.Installation, 0, len(list))
	for _, r := range list {
		all = append(all, installationOf(r))
	}
	return all
}
