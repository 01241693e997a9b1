// Package render turns a release, and a provider's overlay over it, into Kubernetes objects. It is the
// only place that knows kustomize.
//
// Kustomize, left to itself, opens sockets and runs commands that a kustomization names. Therefore it
// never runs in the caller's process: Renderer keeps one child process, which is the same program
// started under another name (see ChildMain), with no environment, no files, no network and no
// processes of its own (see sandbox), fed over a pipe and killed when it takes too long. Before
// kustomize sees anything, a scan refuses whatever is remote, executable or outside the release and the
// overlay, and puts the verified release where the overlay names the vendor's repository (see scan).
//
// It knows no cluster and judges no objects: that is package manifest's and the cluster's part.
package render

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// Source is what to render.
type Source struct {
	Name        string            // the distribution's name, for messages; may be empty
	Version     string            // the release's, for messages; the ref in an overlay's base is not looked at
	Bundle      []provenance.File // the release, relative to BundlePath
	URLs        []string          // of the vendor's repository: what an overlay's base may call it
	BundlePath  string            // the release's folder in that repository
	Variant     string            // DefaultVariant: the release's root; empty: as the overlay's base says
	Overlay     []provenance.File // nil: none
	OverlayPath string            // the folder in Overlay that holds the kustomization to build
	// Namespace: with an overlay, the one for objects that have none and need one. Without, kustomize's
	// namespace transformer puts every object there. Empty: nothing is changed.
	Namespace string
}

// Result is what came of it.
type Result struct {
	Manifest []byte // as manifest.Canonical writes it
	Digest   fleet.Digest
	Objects  int
	Sandbox  string // what confines the child on this kernel: "landlock+seccomp", "seccomp", "none"
}

// BuildError says what is wrong with the release or the overlay, as opposed to trouble of our own: the
// same source gives the same error, with the same text.
type BuildError struct{ Problems []string }

func (e *BuildError) Error() string { return strings.Join(e.Problems, "; ") }

// ErrClosed is returned after Close.
var ErrClosed = errors.New("renderer is closed")

// Config says how to render. Zero values mean the defaults.
type Config struct {
	Command     []string      // how to start the child; default: this very program
	IdleTimeout time.Duration // the child ends when it was not needed for so long; default 30 s
	Timeout     time.Duration // for one rendering, by the clock, which a busy machine may be to blame for; default 30 s
	Limits      Limits
	Log         *slog.Logger
}

// Renderer renders one source at a time, in a child process that it starts when it is needed and keeps
// warm. Safe for concurrent use.
type Renderer struct {
	cfg   Config
	turn  chan struct{} // holds the turn; who has it owns the fields below
	child *child
	used  uint64 // renderings so far: tells the idle timer whether it is out of date

	closing sync.Once
	closed  chan struct{}
}

// New starts nothing yet. It logs a warning where this kernel cannot confine a child as it should be.
func New(cfg Config) *Renderer {
	if len(cfg.Command) == 0 {
		cfg.Command = []string{self()}
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 30 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	warn(cfg.Log, Offered())
	return &Renderer{cfg: cfg, turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Render builds the source. A *BuildError is the source's fault, any other error is not.
func (r *Renderer) Render(ctx context.Context, src Source) (Result, error) {
	if err := r.cfg.Limits.check(src); err != nil {
		return Result{}, err
	}
	if src.Overlay != nil && len(src.Overlay) == 0 {
		return Result{}, &BuildError{[]string{"overlay: holds no files"}}
	}
	select {
	case <-r.closed:
		return Result{}, ErrClosed
	case <-ctx.Done():
		return Result{}, fmt.Errorf("waiting to render: %w", ctx.Err())
	case r.turn <- struct{}{}:
	}
	defer func() { <-r.turn }()
	select {
	case <-r.closed:
		return Result{}, ErrClosed
	default:
	}
	res, err := r.renderLocked(ctx, src)
	if r.child != nil {
		r.used++
		used := r.used
		time.AfterFunc(r.cfg.IdleTimeout, func() { r.idle(used) })
	}
	return res, err
}

// renderLocked asks the child, starting it where needed. A child that was warm and is found dead (the
// kernel was short of memory, say) gets one successor.
func (r *Renderer) renderLocked(ctx context.Context, src Source) (Result, error) {
	for warm := r.child != nil; ; warm = false {
		if r.child == nil {
			c, err := start(r.cfg.Command)
			if err != nil {
				return Result{}, fmt.Errorf("starting the render process: %w", err)
			}
			r.child = c
		}
		limited, cancel := context.WithTimeoutCause(ctx, r.cfg.Timeout, errSlow)
		res, err := r.child.render(limited, request{src, r.cfg.Limits})
		slow := errors.Is(context.Cause(limited), errSlow)
		cancel()
		r.compare(res.Sandbox)
		var build *BuildError
		if err == nil || (errors.As(err, &build) && !r.child.dead) {
			return res, err
		}
		r.child = nil
		switch {
		case build != nil:
			return Result{}, err
		case ctx.Err() != nil:
			return Result{}, fmt.Errorf("rendering: %w", ctx.Err())
		case slow:
			return Result{}, fmt.Errorf("rendering %s took longer than %s and was ended; it is tried again: where that does not help, give this machine more processor", src.label(), r.cfg.Timeout)
		case !warm:
			return Result{}, fmt.Errorf("rendering: %w", err)
		}
		r.cfg.Log.Warn("render process is gone, starting another", "error", err)
	}
}

func warn(log *slog.Logger, confined string) {
	if weak := Weakness(confined); weak != "" {
		log.Warn("rendering is confined less than it should be", "sandbox", confined, "reason", weak)
	}
}

// compare warns, once for each child, where it is confined with less than this kernel offers.
func (r *Renderer) compare(confined string) {
	if confined == "" || r.child.told {
		return
	}
	r.child.told = true
	if confined != Offered() {
		warn(r.cfg.Log, confined)
	}
}

var errSlow = errors.New("render timeout")

// idle ends the child where nothing was rendered since the timer was set.
func (r *Renderer) idle(used uint64) {
	select {
	case r.turn <- struct{}{}:
	default:
		return // in use; that use has its own timer
	}
	defer func() { <-r.turn }()
	if r.child != nil && r.used == used {
		r.child.stop()
		r.child = nil
	}
}

// Close ends the child and waits until it is gone.
func (r *Renderer) Close() error {
	r.closing.Do(func() {
		close(r.closed)
		r.turn <- struct{}{}
		defer func() { <-r.turn }()
		if r.child != nil {
			r.child.stop()
			r.child = nil
		}
	})
	return nil
}
