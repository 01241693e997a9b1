package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

// overlayed is the provider's overlay as last seen.
type overlayed struct {
	src  Source
	from config.Overlay
	now  overlay.Overlay
	good bool // now was loaded
	bad  bool // the last look failed, and a provider has to act
	next time.Time
	seen fleet.Digest // of the last look
	said string       // of the trouble of the last look
}

// loadOverlay looks at the provider's overlay when it is time.
func (w *worker) loadOverlay(ctx context.Context, in input) result {
	now, o := time.Now(), &w.saw
	if o.src != nil && o.from != in.sub.Overlay {
		w.closeOverlay()
	}
	if in.sub.Overlay.None() {
		*o = overlayed{good: true}
		return result{}
	}
	if o.src == nil {
		src, err := w.a.cfg.Overlay(in.sub)
		if err != nil {
			*o = overlayed{}
			return w.misconfigured(fmt.Errorf("overlay: %w", err))
		}
		*o = overlayed{src: src, from: in.sub.Overlay}
	}
	if left := o.next.Sub(now); left > 0 {
		return result{after: left, stop: !o.good || o.bad}
	}
	every := w.intervals().Overlay
	if in.sub.Overlay.Git != "" {
		every = in.sub.Overlay.Interval
	}
	o.next = now.Add(every)
	seen, err := w.look(ctx)
	if ctx.Err() != nil {
		return result{stop: true}
	}
	if err == nil {
		return w.takeOverlay(seen, in, every)
	}
	if text := err.Error(); text != o.said {
		w.log.Warn("the overlay cannot be read", logging.Error, err)
		o.said = text
	}
	if errors.Is(err, overlay.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
		return result{after: every, stop: !o.good}
	}
	o.bad = true
	r := w.misconfigured(err)
	r.after = every
	return r
}

// closeOverlay forgets the overlay.
func (w *worker) closeOverlay() {
	if w.saw.src != nil {
		if err := w.saw.src.Close(); err != nil {
			w.log.Warn("the overlay was not closed", logging.Error, err)
		}
	}
	w.saw = overlayed{}
	w.laid.Store(nil)
}

// look bounds how long a git host that does not answer keeps the worker from everything else.
func (w *worker) look(ctx context.Context) (overlay.Overlay, error) {
	patience := 20 * time.Second
	if !w.saw.good {
		patience = 2 * time.Minute // the first look may have to bring a whole repository
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o, err := w.saw.src.Load(ctx)
	if err != nil || w.saw.good && o.Digest == w.saw.now.Digest {
		return o, err
	}
	files, hidden, err := decrypted(w.sub.Decryption, o.Files)
	if err == nil && !w.a.cfg.Private.Knows("overlay "+string(o.Digest)) {
		w.a.cfg.Private.Know("decrypted "+string(o.Digest), hidden)
		w.a.learnOverlay(o.Digest, files, nil)
	}
	return o, err
}

const stillness = 300 * time.Millisecond

// takeOverlay takes what was seen; of a folder only what two looks agree on, since people save one
// file after the other.
func (w *worker) takeOverlay(seen overlay.Overlay, in input, every time.Duration) result {
	o := &w.saw
	again := in.sub.Overlay.Git == "" && o.good && seen.Digest != o.now.Digest && seen.Digest != o.seen
	o.seen = seen.Digest
	if again {
		every = min(every, stillness)
		o.next = time.Now().Add(every)
		return result{after: every}
	}
	o.now, o.good, o.bad, o.said = seen, true, false, ""
	w.laid.Store(&seen)
	return result{after: every}
}
