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

	Preflight time.Duration      `json:"preflight,omitempty"`
	Signers   []fleet.SignerFile `json:"signers,omitempty"`
	Threshold int                `json:"threshold,omitempty"` // of the signers
	Channel   []statementRecord  `json:"channel,omitempty"`   // the last of the vendor's statements, in their order
}

// statementRecord is a signed statement, as package channel of pkg/provenance reads it.
type statementRecord struct {
	Text []byte    `json:"text"`
	At   time.Time `json:"at"`
}

func distributionOf(name string, r distributionRecord) fleet.Distribution {
	return fleet.Distribution{Name: name, URL: r.URL, Path: r.Path, Tags: r.Tags, Interval: r.Interval, Created: r.Created,
		Signers: fleet.Signers{Files: r.Signers, Threshold: r.Threshold}}
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
	SignedBy     []string        `json:"signedBy,omitempty"`
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
		SignedBy: r.SignedBy, Stops: r.Stops, Plan: string(r.Plan),
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
		SignedBy: rec.SignedBy, Stops: rec.Stops,
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

	// Of the identity; a cluster that joined a hub of before has none of it.
	Standing      Standing  `json:"standing,omitempty"`
	StandingWhy   string    `json:"standingWhy,omitempty"`
	StandingSince time.Time `json:"standingSince,omitzero"`
	Key           []byte    `json:"key,omitempty"`        // fingerprint of the one that is used
	Rivals        [][]byte  `json:"rivals,omitempty"`     // others in quarantine
	Generation    uint64    `json:"generation,omitempty"` // of the newest certificate
	Used          uint64    `json:"used,omitempty"`       // of the newest that was used
	UsedAt        time.Time `json:"usedAt,omitzero"`      // for the first time
}

type tokenRecord struct {
	Cluster    fleet.Cluster `json:"cluster"`
	SecretHash []byte        `json:"secretHash"` // SHA-256; the secret itself is nowhere
	Expires    time.Time     `json:"expires,omitzero"`
	Used       time.Time     `json:"used,omitzero"`
	Asks       bool          `json:"asks,omitempty"` // who redeems it waits to be accepted
}

type identityRecord struct {
	Cluster  fleet.Cluster `json:"cluster,omitempty"`
	Operator string        `json:"operator,omitempty"`
	Relay    string        `json:"relay,omitempty"`
	NotAfter time.Time     `json:"notAfter,omitzero"`

	Generation uint64 `json:"generation,omitempty"` // of a cluster's
	Key        []byte `json:"key,omitempty"`        // fingerprint
	Issuer     string `json:"issuer,omitempty"`     // pin of the authority's key; hubs of before had one only
}

type journalRecord struct {
	Acked uint64    `json:"acked"`
	At    time.Time `json:"at,omitzero"`

	// Health is what its events said of installations since their own records were written, of which nothing else has
	// changed. One journal of a cluster has it.
	Health []newerRecord `json:"health,omitempty"`
}

type newerRecord struct {
	Distribution string `json:"distribution"`
	healthRecord
}

type eventRecord struct {
	At           time.Time     `json:"at,omitzero"`
	Seq          uint64        `json:"seq,omitempty"`
	Cluster      fleet.Cluster `json:"cluster,omitempty"`
	Distribution string        `json:"distribution,omitempty"`
	Version      string        `json:"version,omitempty"`
	Kind         string        `json:"kind"`
	Message      string        `json:"message,omitempty"`
	links
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
