package fleetapi

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// rollouts carry releases through the fleet. A dry run answers as the change would and changes nothing.
type rollouts interface {
	PlanRollout(now time.Time, distribution, version string, planYAML []byte) (*fleetv1.RolloutPlan, error)
	StartRollout(now time.Time, by caller.Who, distribution, version string, planYAML []byte, reason string, dry bool) (*fleetv1.Rollout, error)
	Rollouts(distribution string, limit int) ([]*fleetv1.Rollout, error)
	Rollout(now time.Time, distribution, version string) (*fleetv1.Rollout, error)
	// RemoveDistribution aborts what is under way and has remove take the distribution away.
	RemoveDistribution(now time.Time, by caller.Who, name string, dry bool, remove func() error) ([]*fleetv1.Rollout, error)
}

// decisions are people's words about rollouts and releases.
type decisions interface {
	Decide(now time.Time, by caller.Who, distribution, version string, command rollout.Command, dry bool) (*fleetv1.Rollout, error)
	Recall(now time.Time, by caller.Who, recall fleet.Recall, dry bool) (*fleetv1.RecallReleaseResponse, error)
}

const (
	defaultRollouts = 50
	maxRollouts     = 1000
	maxPlan         = 256 << 10 // bytes
	maxReason       = 500       // runes
)

// releaseNames checks which release a request is about.
func releaseNames(distribution, version string) error {
	if err := fleet.CheckDistributionName(distribution); err != nil {
		return invalid("%v; `hub get distributions` lists them", err)
	}
	if _, err := fleet.ParseVersion(version); err != nil {
		return invalid("release %q of %s: want a version such as 1.4.0; `hub get releases %s` lists them", version, distribution, distribution)
	}
	return nil
}

// reason is what a person wrote, as one line.
func reason(text string) (string, error) {
	text = strings.TrimSpace(text)
	if n := len([]rune(text)); n > maxReason {
		return "", invalid("--reason has %d characters, want at most %d; the ticket has room for the rest", n, maxReason)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Cf) }) {
		return "", invalid("--reason holds line breaks or control characters; write one line of text")
	}
	return text, nil
}

// because is a reason that may not be left out.
func because(text, doing string) (string, error) {
	text, err := reason(text)
	if err == nil && text == "" {
		err = invalid("%s without a reason; say why with --reason TEXT: whoever meets it later reads that", doing)
	}
	return text, err
}

func planText(yaml []byte) error {
	if len(yaml) > maxPlan {
		return invalid("--plan has %d bytes, want at most %d", len(yaml), maxPlan)
	}
	return nil
}

// PlanRollout says what a rollout would do.
func (s *Service) PlanRollout(_ context.Context, req *fleetv1.PlanRolloutRequest) (*fleetv1.PlanRolloutResponse, error) {
	if err := releaseNames(req.GetDistribution(), req.GetVersion()); err != nil {
		return nil, err
	}
	if err := planText(req.GetPlan()); err != nil {
		return nil, err
	}
	p, err := s.cfg.Conductor.PlanRollout(time.Now(), req.GetDistribution(), req.GetVersion(), req.GetPlan())
	if err != nil {
		return nil, s.refused(fmt.Sprintf("plan the rollout of %s %s", req.GetDistribution(), req.GetVersion()), err)
	}
	return &fleetv1.PlanRolloutResponse{Plan: p}, nil
}

// StartRollout begins one.
func (s *Service) StartRollout(ctx context.Context, req *fleetv1.StartRolloutRequest) (*fleetv1.StartRolloutResponse, error) {
	if err := releaseNames(req.GetDistribution(), req.GetVersion()); err != nil {
		return nil, err
	}
	if err := planText(req.GetPlan()); err != nil {
		return nil, err
	}
	why, err := reason(req.GetReason())
	if err != nil {
		return nil, err
	}
	r, err := s.cfg.Conductor.StartRollout(time.Now(), who(ctx), req.GetDistribution(), req.GetVersion(), req.GetPlan(), why, req.GetDryRun())
	if err != nil {
		return nil, s.refused(fmt.Sprintf("start the rollout of %s %s", req.GetDistribution(), req.GetVersion()), err)
	}
	return &fleetv1.StartRolloutResponse{Rollout: r}, nil
}

// ListRollouts lists them newest first.
func (s *Service) ListRollouts(_ context.Context, req *fleetv1.ListRolloutsRequest) (*fleetv1.ListRolloutsResponse, error) {
	limit := int(min(req.GetLimit(), maxRollouts))
	if limit == 0 {
		limit = defaultRollouts
	}
	all, err := s.cfg.Conductor.Rollouts(req.GetDistribution(), limit)
	if err != nil {
		return nil, s.refused("list rollouts", err)
	}
	if len(all) == 0 {
		if err := s.mustKnow(req.GetDistribution()); err != nil {
			return nil, err
		}
	}
	return &fleetv1.ListRolloutsResponse{Rollouts: all}, nil
}

// mustKnow tells an empty answer from one to a name that is wrong.
func (s *Service) mustKnow(distribution string) error {
	if distribution == "" {
		return nil
	}
	_, err := s.mustWatch(distribution)
	return err
}

// GetRollout is one with its clusters.
func (s *Service) GetRollout(_ context.Context, req *fleetv1.GetRolloutRequest) (*fleetv1.GetRolloutResponse, error) {
	now := time.Now()
	r, err := s.cfg.Conductor.Rollout(now, req.GetDistribution(), req.GetVersion())
	if err != nil {
		return nil, s.refused(strings.TrimSpace(fmt.Sprintf("read the rollout of %s %s", req.GetDistribution(), req.GetVersion())), err)
	}
	return &fleetv1.GetRolloutResponse{Rollout: r, At: wire.Time(now)}, nil
}

// verb translates a decision; a number that this hub does not know is none.
func verb(d fleetv1.RolloutDecision) (rollout.Verb, error) {
	switch d {
	case fleetv1.RolloutDecision_ROLLOUT_DECISION_APPROVE:
		return rollout.Approve, nil
	case fleetv1.RolloutDecision_ROLLOUT_DECISION_REJECT:
		return rollout.Reject, nil
	case fleetv1.RolloutDecision_ROLLOUT_DECISION_PAUSE:
		return rollout.Pause, nil
	case fleetv1.RolloutDecision_ROLLOUT_DECISION_RESUME:
		return rollout.Resume, nil
	case fleetv1.RolloutDecision_ROLLOUT_DECISION_ABORT:
		return rollout.Abort, nil
	case fleetv1.RolloutDecision_ROLLOUT_DECISION_UNDO:
		return rollout.Undo, nil
	}
	return "", invalid("decision %v: want approve, reject, pause, resume, abort or undo; is this a client of another version?", d)
}

// DecideRollout is a person's word about a rollout.
func (s *Service) DecideRollout(ctx context.Context, req *fleetv1.DecideRolloutRequest) (*fleetv1.DecideRolloutResponse, error) {
	v, err := verb(req.GetDecision())
	if err != nil {
		return nil, err
	}
	if req.GetWave() != "" && v != rollout.Approve && v != rollout.Reject {
		return nil, invalid("%s is about the whole rollout; leave the wave %q away", v, req.GetWave())
	}
	why, err := reason(req.GetReason())
	if err != nil {
		return nil, err
	}
	if sc := scopeOf(ctx); v != rollout.Approve && v != rollout.Reject && !sc.who.Role.Steers() {
		return nil, status.Errorf(codes.PermissionDenied, "%s, whose role is %q, may approve and reject what waits for that role, but not %s the rollout of %s %s; `hub get operators` lists who is admin, vendor-release or vendor-operator",
			sc.who, sc.who.Role, v, req.GetDistribution(), req.GetVersion())
	}
	by := who(ctx)
	command := rollout.Command{Verb: v, Wave: req.GetWave(), By: by.Actor, Role: by.Role, Reason: why}
	r, err := s.cfg.Conductor.Decide(time.Now(), by, req.GetDistribution(), req.GetVersion(), command, req.GetDryRun())
	if err != nil {
		return nil, s.refused(fmt.Sprintf("%s the rollout of %s %s", v, req.GetDistribution(), req.GetVersion()), err)
	}
	return &fleetv1.DecideRolloutResponse{Rollout: r}, nil
}

// RecallRelease calls a release back from everybody.
func (s *Service) RecallRelease(ctx context.Context, req *fleetv1.RecallReleaseRequest) (*fleetv1.RecallReleaseResponse, error) {
	if err := releaseNames(req.GetDistribution(), req.GetVersion()); err != nil {
		return nil, err
	}
	why, err := because(req.GetReason(), "a recall")
	if err != nil {
		return nil, err
	}
	by, now := who(ctx), time.Now()
	recall := fleet.Recall{Distribution: req.GetDistribution(), Version: req.GetVersion(), Reason: why, By: by.Actor, At: now, RollBack: req.GetRollBack()}
	r, err := s.cfg.Conductor.Recall(now, by, recall, req.GetDryRun())
	if err != nil {
		return nil, s.refused(fmt.Sprintf("recall %s %s", req.GetDistribution(), req.GetVersion()), err)
	}
	return r, nil
}
