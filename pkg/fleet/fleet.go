// Package fleet holds the nouns that hub, spoke, wire and command line share: versions, policies,
// releases, phases and health, with the pure rules about them. It does no I/O and knows neither
// side's storage.
package fleet

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Cluster is a cluster's name, "provider/name"; each part is a DNS label.
type Cluster string

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ParseCluster checks the form of a cluster's name.
func ParseCluster(s string) (Cluster, error) {
	if !clusterName.MatchString(s) {
		return "", fmt.Errorf("cluster name %q: want PROVIDER/NAME, each of lower-case letters, digits and dashes, such as acme/eu-1", s)
	}
	return Cluster(s), nil
}

// Provider is the part before the slash.
func (c Cluster) Provider() string {
	p, _, _ := strings.Cut(string(c), "/")
	return p
}

var distributionName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// CheckDistributionName accepts DNS labels of at most 40 characters: the name becomes part of object
// names and label values.
func CheckDistributionName(s string) error {
	if !distributionName.MatchString(s) {
		return fmt.Errorf("distribution name %q: want lower-case letters, digits and dashes, at most 40", s)
	}
	return nil
}

// Distribution is a vendor's git repository being watched.
type Distribution struct {
	Name     string
	URL      string        // as given: https, ssh, scp-like, or a local path
	Path     string        // slash-separated, inside the repository; "." for its root
	Tags     string        // semver constraint; empty: any
	Interval time.Duration // between polls
	Created  time.Time
	Signers  Signers // zero: anybody's tags are published
}

// Signers are whose signatures the tags of a distribution need.
type Signers struct {
	Files     []SignerFile
	Threshold int // different keys; 0 is 1
}

// SignerFile is a file of public keys: allowed signers of SSH, or armoured OpenPGP keys.
type SignerFile struct {
	Name string `json:"name"` // where it came from, for people
	Text string `json:"text"`
}

// None reports that nobody's signature is asked for.
func (s Signers) None() bool { return len(s.Files) == 0 }

// Digest is "sha256:" and 64 hexadecimal digits.
type Digest string

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseDigest checks the form.
func ParseDigest(s string) (Digest, error) {
	if !digestForm.MatchString(s) {
		return "", fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", s)
	}
	return Digest(s), nil
}

// Hex is the part after the colon.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// Short is for people: the first twelve hexadecimal digits.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(12, len(h))]
}

// ReleasePhase: a release is judged once and for ever.
type ReleasePhase string

const (
	Available ReleasePhase = "Available"
	Rejected  ReleasePhase = "Rejected"
)

// Release is one tag of a distribution, judged.
type Release struct {
	Distribution string
	Version      string // the tag's name
	Phase        ReleasePhase
	Reasons      []string // why rejected, for the release as a whole
	Variants     []VariantResult
	Digest       Digest // of the canonical tar; empty when none could be packed
	Size         int64  // bytes of the canonical tar
	Compressed   int64  // bytes as stored
	Commit       string // hexadecimal object id
	TagObject    string // hexadecimal object id; empty for a lightweight tag
	Published    time.Time
	SignedBy     []string // whose signatures were found, PRINCIPAL (KIND FINGERPRINT); none where the distribution names no signers
	Stops        []string // releases that have to run before this one is taken, ascending
	Plan         []byte   // the release's own rollout plan, canonical YAML; nil: it brings none
}

// VariantResult is what building one variant said.
type VariantResult struct {
	Name    string
	Objects int
	Reasons []string // empty: it builds and passes the rules
}

// Phase is where a delivery stands: one attempt on one cluster to go to a release.
type Phase string

const (
	PhaseNone        Phase = ""                 // nothing was ever delivered
	Fetching         Phase = "Fetching"         // the bundle comes from the hub
	Verifying        Phase = "Verifying"        // digest and provenance chain
	Rendering        Phase = "Rendering"        // overlay over bundle, sandboxed
	Checking         Phase = "Checking"         // server-side dry run of everything
	AwaitingApproval Phase = "AwaitingApproval" // the provider is asked, with the reason: before anything is applied, at a gate of the canary, or where tests came to no verdict
	AwaitingWindow   Phase = "AwaitingWindow"   // it would be applied, and the provider's maintenance window is closed
	Progressing      Phase = "Progressing"      // candidates stand beside the release that runs, and are led live traffic step by step
	Promoting        Phase = "Promoting"        // the release's own objects are being applied
	Settling         Phase = "Settling"         // applied; waiting for health
	Testing          Phase = "Testing"          // applied and healthy; conformance plugins prove it
	Succeeded        Phase = "Succeeded"        // runs, whole and healthy
	Refused          Phase = "Refused"          // failed before anything was applied: the old release runs on
	RollingBack      Phase = "RollingBack"      // the previous rendered set is being put back
	RolledBack       Phase = "RolledBack"       // the previous release runs, whole
	RollbackFailed   Phase = "RollbackFailed"   // neither: a person has to look
	AwaitingConfig   Phase = "AwaitingConfig"   // overlay or spoke.yaml is in error; a provider has to act
)

// Phases lists all phases in the order of a delivery.
var Phases = []Phase{PhaseNone, AwaitingConfig, Fetching, Verifying, Rendering, Checking, AwaitingApproval, AwaitingWindow, Progressing, Promoting, Settling, Testing,
	Succeeded, Refused, RollingBack, RolledBack, RollbackFailed}

// Terminal: the delivery is over; only a new release, a new overlay or a person starts another.
func (p Phase) Terminal() bool {
	switch p {
	case Succeeded, Refused, RolledBack, RollbackFailed:
		return true
	}
	return false
}

// Failed: over, and not as wanted.
func (p Phase) Failed() bool { return p.Terminal() && p != Succeeded }

// Touching: objects on the cluster may be between two releases; a restart must finish or return.
func (p Phase) Touching() bool {
	return p == Progressing || p == Promoting || p == Settling || p == Testing || p == RollingBack
}

// Health is of an installation as a whole.
type Health string

const (
	Healthy       Health = "Healthy"
	InProgress    Health = "InProgress"
	Degraded      Health = "Degraded"
	HealthUnknown Health = "Unknown"
)
