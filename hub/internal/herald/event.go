package herald

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// notable: the rollout is over, goes back, or stops until a person says something.
func notable(p fleet.RolloutPhase) bool {
	switch p {
	case fleet.RolloutHolding, fleet.RolloutApproval, fleet.RolloutVerdicts, fleet.RolloutReturning:
		return true
	}
	return p.Terminal()
}

// reason is why, and what to type next.
func reason(s rollout.State) string { return cmp.Or(s.Waits(), s.Reason) }

// noticeEvent is what a notifier is told of a transition. repository and commit are the release's.
func noticeEvent(n store.Notice, repository, commit string) *pluginv1.Event {
	e := &pluginv1.Event{At: timestamppb.New(n.Since), Distribution: n.Distribution, VersionTo: n.Version, Phase: string(n.Phase), Message: n.Text,
		Terminal: n.Phase.Terminal(), Severity: severity(n.Phase), Repository: repository, Tag: n.Version, Commit: commit}
	e.Id = sum("rollout", fmt.Sprint(n.Rollout), string(n.Phase), fmt.Sprint(n.Since.UnixNano()))
	return e
}

func severity(p fleet.RolloutPhase) pluginv1.Severity {
	switch p {
	case fleet.RolloutCompleted, fleet.RolloutSuperseded:
		return pluginv1.Severity_SEVERITY_INFO
	case fleet.RolloutHolding, fleet.RolloutReturning, fleet.RolloutReturned, fleet.RolloutRecalled:
		return pluginv1.Severity_SEVERITY_ERROR
	}
	return pluginv1.Severity_SEVERITY_WARNING
}

// standingEvent is what a notifier is told of where the clusters stand with a release, after it was told
// last. It is worth a look when the release begins to fail; all else is for who shows it in place.
func standingEvent(now time.Time, s rollout.Standing, last store.Told) *pluginv1.Event {
	e := &pluginv1.Event{Id: fingerprint(s), At: timestamppb.New(now), Distribution: s.Distribution, VersionTo: s.Version, Phase: string(s.State),
		Severity: pluginv1.Severity_SEVERITY_INFO, Message: s.Why, Repository: s.Repository, Tag: s.Version, Commit: s.Commit, Summary: s.Tally}
	if s.State == fleet.MarkFailed && last.State != fleet.MarkFailed {
		e.Severity = pluginv1.Severity_SEVERITY_ERROR
	}
	return e
}

// fingerprint is of all that is said.
func fingerprint(s rollout.Standing) string {
	parts := []string{"standing", s.Distribution, s.Version, s.Repository, s.Commit, string(s.State), s.Why}
	for _, word := range slices.Sorted(maps.Keys(s.Tally)) {
		parts = append(parts, fmt.Sprintf("%s %d", word, s.Tally[word]))
	}
	return sum(parts...)
}

func sum(parts ...string) string {
	all := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return fmt.Sprintf("%x", all[:10])
}
