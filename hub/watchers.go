package hub

import (
	"context"
	"log/slog"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// watchRetry is the pause after a watcher that ended by itself.
const watchRetry = 30 * time.Second

// watchers runs one watcher for each distribution; they come and go while it runs.
type watchers struct {
	// watch blocks until its context ends; forget clears up after a distribution that is gone.
	watch  func(context.Context, fleet.Distribution) error
	forget func(fleet.Distribution)
	log    *slog.Logger

	commands chan watchCommand
	over     chan struct{} // closed when Run has returned
}

// watchCommand starts to watch start, or stops watching stop.
type watchCommand struct {
	start fleet.Distribution
	stop  string
}

func newWatchers(s source) *watchers {
	return &watchers{watch: s.watch, forget: s.forget, log: s.log, commands: make(chan watchCommand), over: make(chan struct{})}
}

// Start begins to watch d. Before Run it waits for Run; after it does nothing.
func (w *watchers) Start(d fleet.Distribution) { w.command(watchCommand{start: d}) }

// Stop ends the watcher of a distribution, without waiting for it.
func (w *watchers) Stop(distribution string) { w.command(watchCommand{stop: distribution}) }

func (w *watchers) command(c watchCommand) {
	select {
	case w.commands <- c:
	case <-w.over:
	}
}

// Run watches until ctx ends, beginning with these distributions.
func (w *watchers) Run(ctx context.Context, distributions []fleet.Distribution) error {
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	defer close(w.over)
	last := map[string]running{} // also of those that were stopped, so that one of the same name waits
	start := func(d fleet.Distribution) {
		before := last[d.Name]
		watching, cancel := context.WithCancel(ctx)
		r := running{cancel: cancel, done: make(chan struct{})}
		last[d.Name] = r
		go func() {
			defer close(r.done)
			if before.done != nil {
				<-before.done
			}
			w.keep(watching, d)
			if ctx.Err() == nil { // stopped on its own, not with the hub
				w.forget(d)
			}
		}()
	}
	for _, d := range distributions {
		start(d)
	}
	for {
		select {
		case c := <-w.commands:
			if c.stop == "" {
				start(c.start)
			} else if r, ok := last[c.stop]; ok {
				r.cancel()
			}
		case <-ctx.Done():
			for _, r := range last {
				r.cancel()
				<-r.done
			}
			return nil
		}
	}
}

// keep watches again after a failure: one broken repository must not stop the hub.
func (w *watchers) keep(ctx context.Context, d fleet.Distribution) {
	for ctx.Err() == nil {
		if err := w.watch(ctx, d); err != nil {
			w.log.Error("watching stopped, will begin again", slog.String(logging.Distribution, d.Name), slog.Any(logging.Error, err))
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
}
