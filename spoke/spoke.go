// Package spoke puts a spoke together from its parts and runs it: one data folder, one cluster, one
// hub. It has no behaviour of its own; what a spoke does is in the packages below it.
package spoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/agent"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/move"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// Config says where a spoke lives.
type Config struct {
	Dir  string // data folder, with the identity that `spoke join` left there
	File string // spoke.yaml
	Log  *slog.Logger
	// Private is what every log line and every text that leaves goes through; nil: one is made for this spoke.
	Private *redact.Sink
}

// Info is what a caller of Run may want to tell.
type Info struct {
	Cluster       string // "provider/name"
	Hub           string // HOST:PORT
	Subscriptions int
}

// Files and folders of a data folder, beside those that the parts name themselves.
const (
	journalFile   = "journal.db"
	overlayFolder = "overlays"
	pluginFolder  = "plugins"
)

// renderedBytes bounds the rendered sets that are kept to be looked up: a few of a usual size, in a process that
// rests in a few tens of megabytes.
const renderedBytes = 4 << 20

// spoke is everything that runs, in the order in which it was built.
type spoke struct {
	Config

	identity hubclient.Identity
	settings config.Config
	accounts atomic.Pointer[map[string]apply.Identity] // of the subscriptions in spoke.yaml as it is now
	journal  *journal.Journal
	cluster  *apply.Cluster
	renderer *render.Renderer
	plugins  *programs
	agent    *agent.Agent
	hub      *hubclient.Client
	mover    *move.Mover
	trusted  atomic.Pointer[config.Config] // spoke.yaml as it is now

	closers []func() error // in reverse
}

// Run runs a spoke until ctx ends, and returns nil then. ready is called once, when everything is
// about to run; neither the hub nor the cluster needs to answer for that.
func Run(ctx context.Context, cfg Config, ready func(Info)) (err error) {
	s := &spoke{Config: cfg}
	if s.Log == nil {
		s.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if s.Private == nil {
		s.Private = redact.New()
	}
	s.Log = slog.New(s.Private.Handler(s.Log.Handler()))
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(); err != nil {
		return err
	}
	if err := s.build(ctx); err != nil {
		return err
	}
	if ready != nil {
		ready(Info{Cluster: s.identity.Cluster, Hub: s.identity.Addr, Subscriptions: len(s.settings.Subscriptions)})
	}
	return s.run(ctx)
}

func (s *spoke) close() error {
	var all []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		all = append(all, s.closers[i]())
	}
	return errors.Join(all...)
}

// open reads what is on disk. The journal's lock is that of the whole folder.
func (s *spoke) open() (err error) {
	if s.Dir == "" {
		return errors.New("no data folder; name it with `spoke run --data DIR`")
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if s.identity, err = hubclient.LoadIdentity(s.Dir); err != nil {
		return err
	}
	if s.settings, err = config.Load(s.File); err != nil {
		return err
	}
	s.learn(s.settings)
	if s.journal, err = journal.Open(filepath.Join(s.Dir, journalFile), s.Log); err != nil {
		return err
	}
	s.closers = append(s.closers, s.journal.Close)
	return nil
}

// build makes the parts that work on what is open; none of them runs yet.
func (s *spoke) build(ctx context.Context) (err error) {
	s.use(s.settings)
	s.cluster, err = apply.New(apply.Config{Kubeconfig: s.settings.Kubeconfig, Context: s.settings.Context, Account: s.account, Log: s.Log})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { s.cluster.Close(); return nil })
	s.renderer = render.New(render.Config{Log: s.Log})
	s.closers = append(s.closers, s.renderer.Close)
	if s.plugins, err = openPrograms(s.Dir, s.settings, s.cluster, s.Log); err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { s.plugins.Close(); return nil })
	s.agent, err = agent.New(agent.Config{Dir: s.Dir, Settings: s.settings, Version: buildinfo.Version(),
		Apply: s.cluster, Observe: s.cluster, Mend: s.cluster, Find: s.cluster, Memory: s.journal, Offers: s.journal, Renderer: render.NewCache(s.renderer, renderedBytes), Overlay: s.overlay,
		Cluster: fleet.Cluster(s.identity.Cluster), Plugins: s.plugins, Reload: s.reload,
		Guard:   func(distribution string) agent.Guard { return s.cluster.Watch(distribution) },
		Fetch:   func(ctx context.Context, d fleet.Digest) ([]byte, error) { return s.hub.Fetch(ctx, d) },
		Changed: func() { s.hub.Rehello() },
		Private: s.Private,
		Log:     s.Log})
	if err != nil {
		return err
	}
	s.hub, err = hubclient.New(hubclient.Config{Dir: s.Dir, Events: s.journal, OnDesired: s.agent.SetDesired, OnReHome: func(signed []byte) { s.mover.Take(signed) }, Held: s.agent, Redact: s.Private.Text, Log: s.Log,
		Hello: func() (*syncv1.Hello, error) { return s.hello(ctx) }})
	s.mover = move.New(move.Config{Dir: s.Dir, Journal: s.journal, Hub: s.hub, Trusted: s.signers, Redact: s.Private.Text, Log: s.Log})
	return err
}

// signers are who may move this spoke to another hub, together: the provider's operators, and the vendor of each
// subscription.
func (s *spoke) signers() (verify.Operators, []verify.Signers) {
	settings := s.trusted.Load()
	var vendor []verify.Signers
	for _, sub := range settings.Subscriptions {
		vendor = append(vendor, sub.Signers)
	}
	return settings.Operators, vendor
}

// reload takes a spoke.yaml that has changed, before what is in it is acted on.
func (s *spoke) reload(settings config.Config) error {
	s.learn(settings)
	if err := s.plugins.reload(settings); err != nil {
		return err
	}
	s.use(settings)
	return nil
}

// use has what is asked from elsewhere follow spoke.yaml.
func (s *spoke) use(settings config.Config) {
	all := map[string]apply.Identity{}
	for _, sub := range settings.Subscriptions {
		all[sub.Distribution] = apply.Identity(sub.Account)
	}
	s.accounts.Store(&all)
	s.trusted.Store(&settings)
}

// account is as whom a distribution is written. One that is not subscribed to is nobody's to write: where its
// account is not known any more, the spoke's own rights must not take its place.
func (s *spoke) account(distribution string) (apply.Identity, error) {
	i, there := (*s.accounts.Load())[distribution]
	if !there {
		return i, fmt.Errorf("%s is not in spoke.yaml any more: nothing is written for it", distribution)
	}
	return i, nil
}

// run runs every part until ctx ends or one of them fails.
func (s *spoke) run(ctx context.Context) error {
	answers := local.New(local.Config{Dir: s.Dir, Agent: s.agent, Hub: s.hub, Identity: s.who, ReHome: s.reHome, Log: s.Log})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.agent.Run(ctx) })
	group.Go(func() error { return s.hub.Run(ctx) })
	group.Go(func() error { return s.mover.Run(ctx) })
	group.Go(func() error { return answers.Run(ctx) })
	s.Log.Info("spoke runs", logging.Cluster, s.identity.Cluster, logging.Address, s.identity.Addr, logging.Path, s.Dir,
		logging.Version, buildinfo.Version(), logging.Count, len(s.settings.Subscriptions))
	return group.Wait()
}

// versionWait bounds how long a greeting waits for a cluster that may be away.
const versionWait = 3 * time.Second

// hello is what the hub is greeted with.
func (s *spoke) hello(ctx context.Context) (*syncv1.Hello, error) {
	h, err := s.agent.Hello()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, versionWait)
	defer cancel()
	h.KubernetesVersion = s.cluster.Version(ctx)
	return h, nil
}

// who is the identity as it is now: it is renewed while the spoke runs.
func (s *spoke) who() (local.Identity, error) {
	id, err := hubclient.LoadIdentity(s.Dir)
	if err != nil {
		return local.Identity{}, err
	}
	return local.Identity{Cluster: id.Cluster, Addr: id.Addr, Via: id.Via, NotAfter: id.NotAfter, Key: id.Fingerprint()}, nil
}

// reHome is the move that is under way; nil: none.
func (s *spoke) reHome() *local.ReHome {
	if now := s.mover.State(); now != nil {
		return &local.ReHome{To: now.To, Expires: now.Expires, Waits: now.Waits, Key: now.Key, Pending: now.Pending}
	}
	return nil
}

// learn tells the sink what spoke.yaml hands to plugins.
func (s *spoke) learn(settings config.Config) {
	var values []string
	for _, p := range settings.Plugins {
		for _, variable := range p.Env {
			_, v, _ := strings.Cut(variable, "=")
			values = append(values, v)
		}
	}
	s.Private.Know("spoke.yaml", values)
}

// overlay opens a subscription's overlay.
func (s *spoke) overlay(sub config.Subscription) (agent.Source, error) {
	return overlay.New(overlay.Config{Source: sub.Overlay, Dir: filepath.Join(s.Dir, overlayFolder, sub.Distribution), Log: s.Log})
}
