// Package config reads spoke.yaml, the provider's file: what this cluster subscribes to and how. It
// decodes strictly and reports all problems at once, each with its line and key path. It keeps no
// state: Load may be called again whenever the file may have changed, and Digest says whether it has.
// It does not look at overlays, clusters, plugins' files or what is on offer.
package config

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
	"github.com/wheelwright-dev/wheelwright/pkg/sops"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// Version is the number of the format, the value of the key "version".
const Version = "1"

// Defaults of keys that may be left out.
const (
	DefaultHealthTimeout   = 5 * time.Minute
	DefaultHookTimeout     = 30 * time.Minute
	DefaultApprovalTimeout = 7 * 24 * time.Hour
	DefaultInterval        = time.Minute
	DefaultTestsTimeout    = 15 * time.Minute
	DefaultEvidence        = 10 * time.Minute
	DefaultFollow          = 2 * time.Hour
	DefaultRevision        = "main"
)

// Config is a file that has no problems.
type Config struct {
	Path          string       // of the file
	Digest        fleet.Digest // of its bytes
	Kubeconfig    string       // absolute; empty: in-cluster, else the rules of KUBECONFIG
	Context       string
	Git           gitrepo.Credentials // for the overlays' repositories
	Subscriptions []Subscription      // at most one of each distribution, in the file's order
	Plugins       []Plugin            // in the file's order; of the kinds conformance and notifier

	// The defaults of subscriptions.
	Terms           terms.Terms
	HealthTimeout   time.Duration
	HookTimeout     time.Duration
	ApprovalTimeout time.Duration
	Health          []rules.Rule
	Windows         fleet.Windows
	FromHub         FromHub
	Tests           Tests
	Canary          Canary
	Signers         verify.Signers
	Operators       verify.Operators
	Envelope        envelope.Envelope
	Account         Account
	Decryption      sops.Keys
}

// Tests are how a release is proven by plugins of the kind conformance, once it is applied and healthy.
type Tests struct {
	Plugins []string      // by name; nil: every one of the kind
	Timeout time.Duration // of all of them together
	Retry   bool          // without a verdict they are run again until Timeout is over; else the provider is asked at once
}

// DefaultTests is where the file says nothing.
func DefaultTests() Tests { return Tests{Timeout: DefaultTestsTimeout} }

// Canary says how live traffic is led to a release before it is promoted.
type Canary struct {
	Plugin string // by name; empty: the first of the kind canary
	None   bool   // releases are promoted without
	// Traffic, Increase and Promotion are where the provider is asked: before the first live traffic, before
	// each further step, before the promotion.
	Traffic, Increase, Promotion bool
	// Evidence is how long a step waits for some; then the provider is asked. 0: it waits without an end.
	Evidence time.Duration
	// Follow is how long those who lead in the plugin's place may take to a verdict; then the provider is asked.
	Follow time.Duration
}

// DefaultCanary is where the file says nothing.
func DefaultCanary() Canary { return Canary{Evidence: DefaultEvidence, Follow: DefaultFollow} }

// FromHub says what counts that somebody with this provider's role says at the hub.
type FromHub struct {
	Pins      bool // `hub pin`: it only ever holds back; true where the file does not say
	Decisions bool // approvals and rejections
	// Rollbacks: what runs is left for an older release where the hub withdraws it or a pin of the hub's says so.
	// Nil where the file does not say: Subscription.Rollbacks decides.
	Rollbacks *bool
}

// DefaultFromHub is where the file says nothing.
func DefaultFromHub() FromHub { return FromHub{Pins: true} }

// Subscription is what this cluster wants of one distribution.
type Subscription struct {
	Distribution string
	Variant      string   // empty: the one that the overlay's base names
	Namespace    string   // of the inventory, and of objects that name none
	Source       []string // further URLs under which the overlay may name the distribution's repository
	Overlay      Overlay
	Policy       fleet.Policy // with the windows
	FromHub      FromHub
	Tests        Tests
	Canary       Canary
	Signers      verify.Signers
	Operators    verify.Operators
	Envelope     envelope.Envelope // what a release may put on the cluster
	Account      Account           // as whom it is written, with its namespace; zero: as the spoke
	Decryption   sops.Keys         // of the overlay's files

	Terms           terms.Terms
	HealthTimeout   time.Duration // until a release has to be healthy
	HookTimeout     time.Duration // until a hook of it, such as a migration, has to end
	ApprovalTimeout time.Duration // until a release that waits for its provider is given up
	Health          []rules.Rule  // one of a kind at most
}

// Rollbacks reports that the hub's word is enough to leave what runs for an older release. Where the file does
// not say, it is where nobody's signature is asked for: then the hub is trusted with more than that.
func (s Subscription) Rollbacks() bool {
	if r := s.FromHub.Rollbacks; r != nil {
		return *r
	}
	return s.Signers.None()
}

// Overlay says where the provider's customisation is. The zero Overlay: there is none.
type Overlay struct {
	Path     string             // absolute folder; with Git: slash path in the repository, "." for its root
	Git      string             // URL; empty: Path is a local folder
	Revision string             // branch, tag or commit; with Git only
	Interval time.Duration      // between looks at the repository; with Git only
	Access   gitrepo.Credential // how the repository is reached; with Git only
}

// None reports that there is no overlay.
func (o Overlay) None() bool { return o.Path == "" }

// Problem is one thing that is wrong with the file.
type Problem = strictyaml.Problem

// Error is all that is wrong with a file.
type Error struct {
	Path     string
	Digest   fleet.Digest // of the file's bytes, so that the same error need be said once only
	Problems []Problem    // at least one, by line
}

func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return fmt.Sprintf("configuration %s: %s", e.Path, e.Problems[0])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration %s: %d problems:", e.Path, len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// Load reads the file at path. The error is an *Error where the file could be read.
func Load(path string) (Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return Config{}, fmt.Errorf("configuration %s: %w; write it, deploy/examples/spoke.yaml shows every key, or name another with --config", path, os.ErrNotExist)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	digest := fleet.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(data)))
	d := &decoder{dir: filepath.Dir(path)}
	c := d.file(data)
	if problems := d.sorted(); len(problems) > 0 {
		return Config{}, &Error{Path: path, Digest: digest, Problems: problems}
	}
	c.Path, c.Digest = path, digest
	return c, nil
}
