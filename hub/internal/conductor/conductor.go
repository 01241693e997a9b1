// Package conductor decides what is offered to whom: it has each new tag judged, stores the judgement,
// carries each release through the fleet by its plan, and works out every cluster's desired state and the
// fleet's table from what is stored. It is the only writer of rollouts; where one goes next,
// hub/internal/rollout says. The provider's own policy, at the spoke, picks among what is offered. Where a
// distribution has pre-flights, a new release is for a while offered to be tried out only. It watches no
// repository, builds no bundle and speaks to no spoke.
package conductor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
)

// releases are stored judgements. A tag that was judged stays judged: PutRelease says store.ErrExists.
type releases interface {
	PutRelease(r fleet.Release, tagHash string) error
	Releases(distribution string) ([]fleet.Release, error) // ascending by version
	Release(distribution, version string) (fleet.Release, error)
	Revision(distribution string) (uint64, error) // grows with each change of what there is to offer
	Distributions() ([]fleet.Distribution, error)
	Channel(distribution string) (channel.Log, error) // of the vendor's statements
}

// clusters are the fleet as stored.
type clusters interface {
	Clusters() ([]store.Cluster, error)
	Installations() (map[fleet.Cluster][]fleet.Installation, error)
	Installation(cluster fleet.Cluster, distribution string) (fleet.Installation, bool)
}

// events are the fleet's history.
type events interface {
	AppendEvent(fleet.Event) error
	Events(store.EventFilter) ([]fleet.Event, error)
}

// Store is what the conductor reads and writes.
type Store interface {
	releases
	clusters
	events
	preflights
	rollouts
	layouts
	provisions
	words
	orders
}

// blobs keeps compressed bundles by the digest of the canonical tar; nil means on disk.
type blobs interface {
	Put(tar fleet.Digest, compressed []byte) error
}

// spokes knows who is connected.
type spokes interface {
	Connected(fleet.Cluster) bool
	LastSeen(fleet.Cluster) time.Time
	clocks
	feed
}

// feed is how changes get around.
type feed interface {
	WakeAll() // what is offered changed
	Wake(...fleet.Cluster)
	Changed()
	Subscribe() (changes <-chan struct{}, cancel func())
}

// What a person asked for cannot be done; the message says why, and what to type instead. They are
// package caller's, so that the API, which knows no conductor, can give them codes.
var (
	ErrNotFound = caller.ErrNotFound
	ErrExists   = caller.ErrExists
	ErrInvalid  = caller.ErrInvalid
	ErrConflict = caller.ErrConflict
)

// Who changes something.
type Who = caller.Who

// Config is what a Conductor works with.
type Config struct {
	Store     Store
	Blobs     blobs
	Compress  func(tar []byte) []byte
	Spokes    spokes
	Heartbeat time.Duration // of the spokes; silence is measured in it
	// Plans are those of hub.yaml, by distribution; nil: it has none.
	Plans func(distribution string) (plan.Plan, bool)
	Log   *slog.Logger
}

// Conductor is safe for concurrent use.
type Conductor struct {
	cfg   Config
	since time.Time

	turn sync.Mutex              // of who changes rollouts; nobody who only reads waits for it
	now  atomic.Pointer[picture] // nil until it is first asked for

	mu     sync.Mutex
	judges map[string]*sync.Mutex // by distribution
	layers map[string]*sync.Mutex // by distribution: who makes its offering
	polls  map[string]*poll       // by distribution
	cache  map[string]*offering   // by distribution
	reads  map[string]bool        // distributions of which a repository is being read, and a tag was new
	poked  chan struct{}          // somebody changed a rollout: look at once

	missing map[string]fleet.Cluster // one that a pre-flight waits for, by distribution NUL version; Run's alone
}

// New makes a conductor.
func New(cfg Config) *Conductor {
	return &Conductor{cfg: cfg, since: time.Now(), judges: map[string]*sync.Mutex{}, layers: map[string]*sync.Mutex{}, polls: map[string]*poll{}, cache: map[string]*offering{},
		reads: map[string]bool{}, poked: make(chan struct{}, 1), missing: map[string]fleet.Cluster{}}
}

// Tag is a tag that was not judged before.
type Tag struct {
	Name string
	Hash string // what it points at
	// Judge builds the release. Its error is for the hub's own trouble only: the tag is tried again. tar
	// is the canonical bundle of an available release.
	Judge func(context.Context) (r fleet.Release, tar []byte, err error)
}

// Seen has a new tag judged, stores the result for ever and offers it. The tags of one distribution
// take turns; a tag that has been judged is left alone.
func (c *Conductor) Seen(ctx context.Context, d fleet.Distribution, tag Tag) error {
	judge := c.turnOf(c.judges, d.Name)
	judge.Lock()
	defer judge.Unlock()
	c.mu.Lock()
	c.reads[d.Name] = true
	c.mu.Unlock()
	before, err := c.cfg.Store.Releases(d.Name)
	if err != nil {
		return fmt.Errorf("publish %s of %s: %w", tag.Name, d.Name, err)
	}
	for _, r := range before {
		if r.Version == tag.Name {
			return nil
		}
	}
	r, tar, err := rejectSecond(d, tag, before), []byte(nil), error(nil)
	if r.Version == "" {
		if r, tar, err = tag.Judge(ctx); err != nil {
			return fmt.Errorf("publish %s of %s: %w", tag.Name, d.Name, err)
		}
	}
	return c.publish(r, tag.Hash, tar)
}

// turnOf is the lock of one distribution among all.
func (c *Conductor) turnOf(all map[string]*sync.Mutex, distribution string) *sync.Mutex {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := all[distribution]
	if !ok {
		m = &sync.Mutex{}
		all[distribution] = m
	}
	return m
}

// rejectSecond rejects a tag that names a version which another tag has named: 1.2.3 and v1.2.3 would be
// two contents of one version. The zero Release means that there is none.
func rejectSecond(d fleet.Distribution, tag Tag, before []fleet.Release) fleet.Release {
	v, err := fleet.ParseVersion(tag.Name)
	if err != nil {
		return fleet.Release{}
	}
	for _, r := range before {
		if o, err := fleet.ParseVersion(r.Version); err == nil && o.Same(v) {
			return fleet.Release{Distribution: d.Name, Version: tag.Name, Phase: fleet.Rejected, Published: time.Now(),
				Reasons: []string{fmt.Sprintf("tag %s names the same version as tag %s, which was judged first; tag the next version instead", tag.Name, r.Version)}}
		}
	}
	return fleet.Release{}
}

// publish stores the bundle before the release that names it, so that no offer lacks its bytes.
func (c *Conductor) publish(r fleet.Release, hash string, tar []byte) error {
	if r.Phase == fleet.Available {
		compressed := c.cfg.Compress(tar)
		r.Compressed = int64(len(compressed))
		if err := c.cfg.Blobs.Put(r.Digest, compressed); err != nil {
			return fmt.Errorf("store bundle of %s %s: %w", r.Distribution, r.Version, err)
		}
	}
	if err := c.cfg.Store.PutRelease(r, hash); errors.Is(err, store.ErrExists) {
		return nil
	} else if err != nil {
		return fmt.Errorf("store release %s of %s: %w", r.Version, r.Distribution, err)
	}
	log := c.cfg.Log.With(slog.String(logging.Distribution, r.Distribution), slog.String(logging.Version, r.Version))
	e := fleet.Event{At: time.Now(), Distribution: r.Distribution, Version: r.Version}
	if r.Phase == fleet.Available {
		e.Kind, e.Message = fleet.EventPublished, published(r)
		log.Info("release published", slog.String(logging.Digest, string(r.Digest)))
		c.cfg.Spokes.WakeAll() // before the event: nobody waits for it
	} else {
		e.Kind, e.Message = fleet.EventRejected, fmt.Sprintf("%s; `hub release describe %s %s` has it all", firstReason(r), r.Distribution, r.Version)
		log.Info("release rejected", slog.String(logging.Reason, e.Message))
	}
	c.cfg.Spokes.Changed()
	return c.record(e)
}

func published(r fleet.Release) string {
	objects := make([]string, 0, len(r.Variants))
	for _, v := range r.Variants {
		objects = append(objects, fmt.Sprintf("%s %d objects", v.Name, v.Objects))
	}
	return fmt.Sprintf("%s, %d bytes: %s", r.Digest.Short(), r.Size, strings.Join(objects, ", "))
}

// maxEvent bounds an event's message, in runes.
const maxEvent = 2000

func bounded(text string) string {
	if r := []rune(text); len(r) > maxEvent {
		return string(r[:maxEvent-1]) + "…"
	}
	return text
}

func (c *Conductor) record(e fleet.Event) error {
	e.Message = bounded(e.Message)
	if err := c.cfg.Store.AppendEvent(e); err != nil {
		return fmt.Errorf("record event %s of %s: %w", e.Kind, e.Distribution, err)
	}
	return nil
}
