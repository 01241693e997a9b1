package conductor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
)

// refusal names the rollout that does not take a command, and where to look.
func refusal(s rollout.State, command rollout.Command, err error) error {
	kind := caller.ErrConflict
	switch {
	case errors.Is(err, rollout.ErrNoSuchWave):
		kind = caller.ErrNotFound
	case errors.Is(err, rollout.ErrRole):
		return refuse(caller.ErrDenied, "%s the rollout of %s %s as %s: %s; `hub get operators` lists who has which role, and an admin gives one with `hub operator add NAME --role approver:ROLE`",
			command.Verb, s.Distribution, s.Version, command.By, plainly(s, command, err))
	}
	said := plainly(s, command, err)
	for _, known := range []error{rollout.ErrNoSuchWave, rollout.ErrNotWaiting, rollout.ErrOver, rollout.ErrTwice} {
		if errors.Is(err, known) {
			if !strings.Contains(said, "hub rollout ") && !strings.Contains(said, "hub release ") {
				said += fmt.Sprintf("; `hub rollout status %s %s` shows it", s.Distribution, s.Version)
			}
			return refuse(kind, "%s the rollout of %s %s: %s", command.Verb, s.Distribution, s.Version, said)
		}
	}
	return refuse(caller.ErrInvalid, "%s the rollout of %s %s: %s", command.Verb, s.Distribution, s.Version, said)
}

// plainly is what the rollout says against a command, without what its reader is told already.
func plainly(s rollout.State, command rollout.Command, err error) string {
	said := strings.TrimPrefix(err.Error(), fmt.Sprintf("%s rollout of %s %s: ", command.Verb, s.Distribution, s.Version))
	return strings.ReplaceAll(said, ": ; ", "; ") // an end without a reason
}
