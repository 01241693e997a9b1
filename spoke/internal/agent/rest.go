package agent

import (
	"context"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/footprint"
)

// quiet is how long nothing was rendered, tried or delivered until the spoke counts as at rest: longer than a warm
// render process is kept.
const quiet = 40 * time.Second

// worked says that something was done that takes far more memory than to be at rest.
func (a *Agent) worked() {
	select {
	case a.busy <- struct{}{}:
	default: // it is known
	}
}

// rested is how often a spoke that stays at rest gives back: looks at the cluster are work too, if little.
const rested = 10 * time.Minute

// rest gives memory back each time that work, the start included, has been over for a while.
func (a *Agent) rest(ctx context.Context) {
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.busy:
			timer.Reset(quiet)
			continue
		case <-timer.C:
		}
		if err := footprint.GiveBack(); err != nil {
			a.cfg.Log.Warn("memory was not given back", logging.Error, err)
		} else {
			a.cfg.Log.Debug("at rest, memory is given back")
		}
		timer.Reset(rested)
	}
}
