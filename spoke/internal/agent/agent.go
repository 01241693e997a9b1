// Package agent keeps a cluster on the releases that its provider wants: one worker for each
// subscription takes what the hub offers and what the provider wrote, decides with fleet.Policy what
// should run, and drives package delivery by carrying out its effects. What the hub withdraws is not
// taken, or is left; what it decides for the provider counts where spoke.yaml says so (law 2). Every
// step is in the journal before it is carried out, so that a killed spoke goes on where it was (law 7),
// and all of it works from the journal and the disk while the hub is away (laws 3 and 8).
//
// Where spoke.yaml has plugins of the kind conformance, what is healthy is proven by them before it counts as
// what runs: an exam goes on beside the worker, which looks at the cluster and obeys meanwhile. What an exam
// tells leaves the cluster as one redacted line for each test. Notifiers hear how a delivery ended, beside
// everything else and for as long as the spoke lives.
//
// It opens no connection and no file but its bundle cache: cluster, journal, renderer, overlays and
// hub are handed in.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// applier changes the cluster; apply.Cluster is one.
type applier interface {
	Check(ctx context.Context, s apply.Set, prev apply.Inventory) (apply.CheckReport, error)
	Apply(context.Context, apply.Set, apply.Inventory) (apply.Inventory, apply.Change, error)
	Prune(ctx context.Context, old, new apply.Inventory, t terms.Terms) (apply.Change, error)
	Drift(ctx context.Context, s apply.Set, inv apply.Inventory, correct bool) (apply.Inventory, []apply.Drifted, error)
}

// observer reads the cluster; apply.Cluster is one.
type observer interface {
	Health(context.Context, apply.Inventory, *rules.Book) (apply.HealthReport, error)
	Hooks(ctx context.Context, inv apply.Inventory, objs []*unstructured.Unstructured) (apply.HealthReport, error)
	ReadInventory(ctx context.Context, distribution, namespace string) (apply.Inventory, bool, error)
	Rebuild(ctx context.Context, distribution, namespace string) (apply.Inventory, bool, error)
	Definitions(ctx context.Context, names []string) ([]*unstructured.Unstructured, error)
}

// Guard watches what a subscription has on the cluster; apply.Watch is one.
type Guard interface {
	Run(context.Context) error
	Follow(apply.Inventory)
	Wake() <-chan struct{}
}

// mender helps the cluster where its own controllers wait in vain, and takes half an install away;
// apply.Cluster is one.
type mender interface {
	Unstick(ctx context.Context, inv apply.Inventory, alsoRunning bool) (apply.Change, error)
	Undo(context.Context, apply.Inventory) (apply.Change, error)
}

// memory is the part of the journal that is kept for each subscription. PutRecord is durable when it
// returns.
type memory interface {
	PutRecord(journal.Record, ...fleet.Event) error
	Record(distribution string) (journal.Record, bool, error)
	Records() ([]journal.Record, error)
}

// offers is the part of the journal about the hub.
type offers interface {
	PutDesired(*syncv1.DesiredState) error
	Desired() (*syncv1.DesiredState, error)
	ID() string
	Created() time.Time // of what was before, the journal knows nothing
}

// renderer lays an overlay over a bundle. Safe for concurrent use.
type renderer interface {
	Render(context.Context, render.Source) (render.Result, error)
}

// Source is a provider's overlay; overlay.Loader is one. Load gives it as it is now; ErrUnreachable
// heals by itself, any other error is the provider's to mend.
type Source interface {
	Load(context.Context) (overlay.Overlay, error)
	Close() error
}

// Config is what an agent works with.
type Config struct {
	Dir      string        // the bundle cache is made below it
	Settings config.Config // as first read
	Every    Intervals
	Version  string // of the spoke

	Apply    applier
	Observe  observer
	Mend     mender
	Find     finder
	Guard    func(distribution string) Guard
	Memory   memory
	Offers   offers
	Renderer renderer
	Fetch    func(context.Context, fleet.Digest) ([]byte, error) // a bundle's canonical tar, from the hub
	Overlay  func(config.Subscription) (Source, error)
	Cluster  fleet.Cluster // as plugins are told
	Plugins  plugins       // nil: none
	// Reload hands on a spoke.yaml that has changed, before any worker sees it; may be nil.
	Reload func(config.Config) error
	// Changed is called after subscriptions came or went.
	Changed func()
	// Private takes values out of what leaves and of what is kept, and is told them here; nil: by their shapes alone.
	Private *redact.Sink
	Log     *slog.Logger
}

// Intervals are how often the agent looks. The zero value of each means the default.
type Intervals struct {
	Settle   time.Duration // between looks at a release that is settling; default 1s
	Grace    time.Duration // how long something may be failing before a release is given up; default 10s
	Health   time.Duration // between looks at what runs; default 15s
	Drift    time.Duration // between looks for what a watch may have missed; default 10m
	Overlay  time.Duration // between looks at a local overlay; default 2s
	Config   time.Duration // between looks at spoke.yaml; default 2s
	Refused  time.Duration // until a release that the cluster refused is tried again; default 5m
	RetryMin time.Duration // first wait after trouble, doubled each time; default 1s
	RetryMax time.Duration // default 30s
}

func (i Intervals) withDefaults() Intervals {
	for _, d := range []struct {
		at   *time.Duration
		want time.Duration
	}{
		{&i.Settle, time.Second}, {&i.Grace, 10 * time.Second}, {&i.Health, 15 * time.Second}, {&i.Drift, 10 * time.Minute}, {&i.Overlay, 2 * time.Second},
		{&i.Config, 2 * time.Second}, {&i.Refused, 5 * time.Minute}, {&i.RetryMin, time.Second}, {&i.RetryMax, 30 * time.Second},
	} {
		if *d.at <= 0 {
			*d.at = d.want
		}
	}
	return i
}

// Agent runs the subscriptions of one cluster.
type Agent struct {
	cfg    Config
	cache  *cache
	keeper *keeper
	herald *herald

	mu       sync.Mutex
	settings config.Config
	trouble  string // why spoke.yaml cannot be read now; empty when it can
	desired  *syncv1.DesiredState
	workers  map[string]*worker

	broken chan error // a worker has panicked
	busy   chan struct{}
}

// New reads the last offers from the journal; it starts nothing.
func New(c Config) (*Agent, error) {
	c.Every = c.Every.withDefaults()
	if c.Changed == nil {
		c.Changed = func() {}
	}
	desired, err := c.Offers.Desired()
	if err != nil {
		return nil, fmt.Errorf("read the last offers: %w", err)
	}
	store, err := openCache(c.Dir)
	if err != nil {
		return nil, err
	}
	keeper := newKeeper(c.Memory, c.Private)
	c.Memory = keeper
	a := &Agent{cfg: c, cache: store, keeper: keeper, settings: c.Settings, desired: desired, workers: map[string]*worker{}, broken: make(chan error, 1), busy: make(chan struct{}, 1)}
	a.herald = newHerald(c, a.commitOf)
	return a, nil
}

// Run works until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running.Go(func() { a.herald.run(ctx) })
	running.Go(func() { a.rest(ctx) })
	stops := map[string]func(){}
	if err := a.arrange(ctx, stops, &running); err != nil {
		return err
	}
	tick := time.NewTicker(a.cfg.Every.Config)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-a.broken:
			return err
		case <-tick.C:
		}
		if !a.reload() {
			continue
		}
		if err := a.arrange(ctx, stops, &running); err != nil {
			return err
		}
		a.cfg.Changed()
	}
}

// arrange starts a worker for every new subscription and ends those whose subscription is gone.
func (a *Agent) arrange(ctx context.Context, stops map[string]func(), running *sync.WaitGroup) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := map[string]bool{}
	a.keeper.use(a.settings.Subscriptions)
	for _, s := range a.settings.Subscriptions {
		wanted[s.Distribution] = true
		if w := a.workers[s.Distribution]; w != nil {
			w.put(a.inputLocked(s))
			continue
		}
		w, err := newWorker(a, s.Distribution)
		if err != nil {
			return err
		}
		w.put(a.inputLocked(s))
		a.workers[s.Distribution] = w
		work, stop := context.WithCancel(ctx)
		stops[s.Distribution] = func() { stop(); <-w.ended }
		running.Go(func() {
			defer close(w.ended)
			defer stop()
			defer a.recovered(s.Distribution)
			w.run(work)
		})
	}
	for name, stop := range stops {
		if !wanted[name] {
			stop()
			delete(stops, name)
			delete(a.workers, name)
		}
	}
	return a.forgottenLocked(wanted)
}

// recovered ends the spoke where a worker panicked, as a panic would, but with words that went through the sink: the
// runtime would print whatever value was at hand.
func (a *Agent) recovered(distribution string) {
	p := recover()
	if p == nil {
		return
	}
	a.cfg.Log.Error("a worker panicked: this is a bug of the spoke; it ends, and goes on where it was when it is started again",
		logging.Distribution, distribution, logging.Error, fmt.Sprint(p), "stack", string(debug.Stack()))
	select {
	case a.broken <- fmt.Errorf("%s: the worker panicked: %s; this is a bug, the log has more of it", distribution, a.cfg.Private.Line(fmt.Sprint(p), longest)):
	default: // one is enough
	}
}

// forgottenLocked says once of each subscription that is no longer in spoke.yaml that nothing of it is
// deleted (law 3).
func (a *Agent) forgottenLocked(wanted map[string]bool) error {
	records, err := a.cfg.Memory.Records()
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	const gone = "not in spoke.yaml any more"
	for _, r := range records {
		if wanted[r.Distribution] || r.Installation.Reason == gone {
			continue
		}
		r.Installation.Reason = gone
		a.cfg.Log.Warn("a subscription is no longer in spoke.yaml; its objects stay on the cluster, unwatched", logging.Distribution, r.Distribution, logging.Version, r.Installation.Running)
		e := event(time.Now(), r.Installation, fleet.EventAgent, "no longer in spoke.yaml: nothing was deleted, its objects stay and are not watched any more")
		if err := a.cfg.Memory.PutRecord(r, e); err != nil {
			return fmt.Errorf("record that %s is not subscribed any more: %w", r.Distribution, err)
		}
	}
	return nil
}

// reload looks at spoke.yaml and reports whether something changed.
func (a *Agent) reload() bool {
	next, err := config.Load(a.settings.Path)
	if err == nil && a.cfg.Reload != nil && next.Digest != a.settings.Digest { // nobody else writes settings
		err = a.cfg.Reload(next)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		text := oneLine(err.Error())
		if text == a.trouble {
			return false
		}
		a.trouble = text
		a.cfg.Log.Error("spoke.yaml cannot be taken; the one before stays in force and nothing new is begun", logging.Error, err)
		return true
	}
	if a.trouble == "" && next.Digest == a.settings.Digest {
		return false
	}
	if next.Kubeconfig != a.settings.Kubeconfig || next.Context != a.settings.Context {
		a.cfg.Log.Warn("spoke.yaml names another cluster; restart the spoke to take it", "kubeconfig", next.Kubeconfig, "context", next.Context)
	}
	a.cfg.Log.Info("spoke.yaml is read", "subscriptions", len(next.Subscriptions))
	a.trouble, a.settings = "", next
	return true
}

// SetDesired takes the hub's offers: durably, before any worker sees them.
func (a *Agent) SetDesired(d *syncv1.DesiredState) error {
	if err := a.cfg.Offers.PutDesired(d); err != nil {
		return fmt.Errorf("keep what the hub offers: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.desired = d
	for _, s := range a.settings.Subscriptions {
		if w := a.workers[s.Distribution]; w != nil {
			w.put(a.inputLocked(s))
		}
	}
	return nil
}

// subscribed finds a subscription of spoke.yaml; its worker is nil in the moment before it is started.
func (a *Agent) subscribed(distribution string) (input, *worker, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.settings.Subscriptions, func(s config.Subscription) bool { return s.Distribution == distribution })
	if i < 0 {
		var names []string
		for _, s := range a.settings.Subscriptions {
			names = append(names, s.Distribution)
		}
		return input{}, nil, fmt.Errorf("distribution %q: %w; subscriptions there: %v", distribution, ErrNotSubscribed, names)
	}
	return a.inputLocked(a.settings.Subscriptions[i]), a.workers[distribution], nil
}

func (a *Agent) inputLocked(s config.Subscription) input {
	in := input{sub: s, trouble: a.trouble}
	for _, d := range a.desired.GetDistributions() {
		if d.GetDistribution() == s.Distribution {
			in.offers = d
		}
	}
	return in
}
