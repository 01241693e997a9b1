package conductor

import (
	"errors"
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// RemoveDistribution ends what is under way of a distribution and has remove take it away, with no rollout
// beginning in between. What removal means to clusters is what aborting does: nobody is offered any more,
// and everybody keeps what they have. So rollouts are aborted, each with its entry in the audit; but one
// that brings clusters back would leave them where they must not stay, and is waited for.
func (c *Conductor) RemoveDistribution(now time.Time, who Who, name string, dry bool, remove func() error) (aborted []*fleetv1.Rollout, err error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	before, err := c.pictureLocked()
	if err != nil {
		return nil, err
	}
	under := before.of(name).underWay()
	for _, r := range under {
		if r.Phase == fleet.RolloutReturning {
			return nil, refuse(caller.ErrConflict, "the rollout of %s %s is bringing clusters back, and without its distribution they would stay where they are; `hub rollout status %s %s` shows who is missing; remove the distribution when it is over",
				name, r.Version, name, r.Version)
		}
	}
	t := &turn{now: now, before: before, after: before.copy()}
	for _, r := range under {
		why := fmt.Sprintf("distribution %s was removed", name)
		s, err := rollout.Do(now, r, rollout.Command{Verb: rollout.Abort, By: who.Actor, Role: who.Role, Reason: why})
		if err == nil && !dry {
			err = c.step(t, r, s, entry(now, who, "rollout abort", name, r.Version, why))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("abort the rollout of %s %s: %w", name, r.Version, err), c.finish(t))
		}
		aborted = append(aborted, rolloutMessage(s))
	}
	if dry {
		return aborted, nil
	}
	return aborted, errors.Join(remove(), c.finish(t))
}
