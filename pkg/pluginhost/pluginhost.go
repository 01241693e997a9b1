// Package pluginhost runs plugins: one process each, started at its first call, reused, started again
// after a crash with a growing pause, and ended with everything that it started.
//
// What is executed are the bytes that were hashed: the file is read once, into memory that cannot change
// any more where the kernel has that. A process gets the environment that its entry in spoke.yaml or
// hub.yaml gives it and no other, a folder of its own that goes with it, and a kubeconfig only where it is
// granted one. Every call has a deadline; every message, stream and log a bound.
//
// Each plugin runs below a supervisor, which is this same program (see ChildMain). Where the kernel
// lets it, the supervisor is the first process of a PID namespace: when it goes, however it goes, the
// kernel kills all that is in there. Elsewhere it adopts every orphan below it and kills until nothing is
// left. It goes when spoke or hub does, because the pipe between them ends. That is a wall against bad
// plugins, not against hostile ones: a plugin runs as its host's own user. Without namespaces, one that
// kills its supervisor and has wiped its environment can leave a process; on other systems than Linux
// only the plugin's own process is ended.
//
// The package decides nothing: what to ask of which plugin, and what becomes of a verdict, is its
// caller's. A verdict that says nothing, or rests on too little, comes out inconclusive.
package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost/supervise"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginlist"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Defaults of Plugin and Config.
const (
	DefaultTimeout    = time.Minute      // of a call
	DefaultRunTimeout = 15 * time.Minute // of Conformance.Run
	DefaultProcesses  = 256
)

const (
	startTimeout = 15 * time.Second       // from the start to the end of the handshake
	grace        = time.Second            // between SIGTERM and SIGKILL
	patience     = 600 * time.Millisecond // beyond grace, until the supervisor itself is killed
)

// Plugin is one plugin as the configuration has it.
type Plugin struct {
	Name       string // unique, as in a file name
	Path       string // absolute
	SHA256     string // of the file, 64 hex digits
	Args       []string
	Env        []string        // NAME=value: all that it gets beside the handshake's
	Kinds      []pluginv1.Kind // that it has to serve
	Timeout    time.Duration   // of every call; 0: the defaults
	Kubeconfig bool            // whether it gets credentials for the cluster
	Processes  int             // that it may have at once; 0: DefaultProcesses
}

// Of is a plugin as the configuration has it, without credentials.
func Of(p pluginlist.Plugin) Plugin {
	return Plugin{Name: p.Name, Path: p.Path, SHA256: p.SHA256, Args: p.Args, Env: p.Env, Kinds: p.Kinds, Timeout: p.Timeout}
}

// credentials makes a kubeconfig for a plugin that ends by itself, and says when; ErrNotYet: there is no
// place for its account so far, and it is asked for again before the next call.
type credentials interface {
	Credentials(ctx context.Context, plugin string) (kubeconfig []byte, expires time.Time, err error)
}

// Config is what a Host needs.
type Config struct {
	Dir         string // private folder, for this host alone; what an earlier one left there is removed
	Plugins     []Plugin
	Credentials credentials // may be nil where no plugin has Kubeconfig
	Version     string      // the spoke's or the hub's, told to plugins
	Log         *slog.Logger
	// WithoutNamespaces runs plugins in the host's own PID namespace, for clusters whose nodes have
	// them and should not use them.
	WithoutNamespaces bool
}

// Host runs plugins. Its methods may be called concurrently.
type Host struct {
	cfg     Config
	mu      sync.Mutex // of plugins and closed; never held while one is waited for
	plugins []*plugin  // in the file's order
	closed  bool
	starter supervise.Starter
	tasks   sync.WaitGroup
}

var (
	// ErrNoPlugin: the configuration names none by that name, or not with that kind.
	ErrNoPlugin = errors.New("no such plugin")
	// ErrNotYet: the cluster has no place for a plugin's account yet, such as before a first install.
	ErrNotYet = errors.New("the cluster has no place for the plugin's account yet")
	// ErrClosed: the host is closed, or the plugin is another one now.
	ErrClosed = errors.New("the plugin was ended: what runs it ends, or its configuration has changed")
)

var pluginName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// ChildMain belongs in the first line of main, and of TestMain where a test runs plugins: in a process
// that was started as a supervisor it supervises and exits. In any other it returns false at once.
func ChildMain() bool { return supervise.ChildMain() }

// New makes the host and clears up after one that was killed. It starts no plugin.
func New(cfg Config) (*Host, error) {
	h := &Host{cfg: cfg, starter: supervise.Starter{WithoutNamespaces: cfg.WithoutNamespaces}}
	if cfg.Log == nil {
		h.cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder of plugins: %w", err)
	}
	h.cfg.Dir = dir
	if err := h.Use(cfg.Plugins); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of plugins: %w", err)
	}
	if err := supervise.Sweep(dir + string(filepath.Separator)); err != nil {
		h.cfg.Log.Warn("processes that an earlier run left could not be looked for", "error", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of plugins: %w", err)
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("folder of plugins: %w", err)
		}
	}
	return h, nil
}

// Use takes a new list of plugins. What is in it as it was goes on; all else is ended as by Close, and a
// call that it was in ends with ErrClosed. On an error nothing has changed.
func (h *Host) Use(plugins []Plugin) error {
	h.mu.Lock()
	var next []*plugin
	for _, cfg := range plugins {
		if cfg.Processes == 0 {
			cfg.Processes = DefaultProcesses
		}
		if err := h.acceptable(cfg, next); err != nil {
			h.mu.Unlock()
			return err
		}
		i := slices.IndexFunc(h.plugins, func(p *plugin) bool { return reflect.DeepEqual(p.cfg, cfg) })
		if i < 0 {
			next = append(next, newPlugin(h, cfg))
		} else {
			next = append(next, h.plugins[i])
		}
	}
	if h.closed {
		h.mu.Unlock()
		return ErrClosed
	}
	gone := slices.DeleteFunc(h.plugins, func(p *plugin) bool { return slices.Contains(next, p) })
	h.plugins = next
	h.mu.Unlock()
	closeAll(gone)
	return nil
}

func (h *Host) acceptable(p Plugin, before []*plugin) error {
	switch {
	case !pluginName.MatchString(p.Name):
		return fmt.Errorf("plugin name %q: want lower-case letters, digits and dashes, at most 40", p.Name)
	case slices.ContainsFunc(before, func(b *plugin) bool { return b.cfg.Name == p.Name }):
		return fmt.Errorf("plugin %s is there twice", p.Name)
	case p.Kubeconfig && h.cfg.Credentials == nil:
		return fmt.Errorf("plugin %s is granted credentials, and there is nobody to make them", p.Name)
	}
	return nil
}

// Close ends every plugin and all that they started, within two seconds, and waits for that.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	all := h.plugins
	h.mu.Unlock()
	closeAll(all)
	h.tasks.Wait()
}

func closeAll(plugins []*plugin) {
	var all sync.WaitGroup
	for _, p := range plugins {
		all.Go(p.close)
	}
	all.Wait()
}

// named is the plugin by name; nil: there is none.
func (h *Host) named(name string) *plugin {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.plugins {
		if p.cfg.Name == name {
			return p
		}
	}
	return nil
}

// Inspect says why a plugin could not be started as it is on the disk now: no such file, one that cannot be
// executed, or ErrChecksum. It starts nothing, and reads a file again only after it changed.
func (h *Host) Inspect(name string) error {
	p := h.named(name)
	if p == nil {
		return fmt.Errorf("%w: %s is not under `plugins`", ErrNoPlugin, name)
	}
	if err := p.inspect(); err != nil {
		return fmt.Errorf("plugin %s: %w", name, err)
	}
	return nil
}

// Named lists the plugins that have a kind, in the file's order.
func (h *Host) Named(kind pluginv1.Kind) []string {
	var names []string
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.plugins {
		if slices.Contains(p.cfg.Kinds, kind) {
			names = append(names, p.cfg.Name)
		}
	}
	return names
}

// Describe starts the plugin where it does not run, and says who it is.
func (h *Host) Describe(ctx context.Context, name string) (*pluginv1.HandshakeResponse, error) {
	p := h.named(name)
	if p == nil {
		return nil, fmt.Errorf("%w: %s is not under `plugins`", ErrNoPlugin, name)
	}
	proc, err := p.ready(ctx)
	if err != nil {
		return nil, err
	}
	return proc.hello, nil
}

// CheckHealth asks the plugin whether it can do its work; nil: it can.
func (h *Host) CheckHealth(ctx context.Context, name string) error {
	p := h.named(name)
	if p == nil {
		return fmt.Errorf("%w: %s is not under `plugins`", ErrNoPlugin, name)
	}
	answer, err := call(ctx, p, "CheckHealth", func(ctx context.Context, proc *process) (*pluginv1.CheckHealthResponse, error) {
		return proc.front.CheckHealth(ctx, &pluginv1.CheckHealthRequest{})
	})
	if err == nil && !answer.GetHealthy() {
		err = fmt.Errorf("plugin %s cannot work: %s", name, printable(answer.GetReason(), maxReason))
	}
	return err
}

// of is the plugin by name, where it has the kind.
func (h *Host) of(name string, kind pluginv1.Kind) (*plugin, error) {
	p := h.named(name)
	switch {
	case p == nil:
		return nil, fmt.Errorf("%w: %s is not under `plugins`", ErrNoPlugin, name)
	case !slices.Contains(p.cfg.Kinds, kind):
		return nil, fmt.Errorf("%w: %s has no kind %s under `plugins`", ErrNoPlugin, name, pluginwire.KindName(kind))
	}
	return p, nil
}
