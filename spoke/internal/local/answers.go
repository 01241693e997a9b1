package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
)

// GetStatus implements LocalService.
func (s *Server) GetStatus(_ context.Context, req *localv1.GetStatusRequest) (*localv1.GetStatusResponse, error) {
	all, err := s.cfg.Agent.Installations()
	if err != nil {
		return nil, err
	}
	memories, err := s.cfg.Agent.Memories()
	if err != nil {
		return nil, err
	}
	id, err := s.cfg.Identity()
	if err != nil {
		return nil, err
	}
	r := &localv1.GetStatusResponse{At: wire.Time(time.Now()), Cluster: id.Cluster, Hub: id.Addr, CertificateNotAfter: wire.Time(id.NotAfter),
		Running: true, Connected: s.cfg.Hub.Connected(), LastContact: wire.Time(s.cfg.Hub.LastContact()),
		SpokeVersion: buildinfo.Version(), SpokeCommit: buildinfo.Commit(), Sandbox: render.Offered()}
	r.Refused, r.Pending = s.cfg.Hub.Refused()
	r.KeyFingerprint, r.ReHome, r.Via = id.Key, Moving(s.cfg.ReHome()), id.Via
	for _, i := range all {
		r.Subscriptions = append(r.Subscriptions, wire.Installation(i))
	}
	for _, m := range memories {
		message := Memory(m)
		if req.GetAudit() {
			message.Audited = Audited(m)
		}
		r.Memories = append(r.Memories, message)
	}
	return r, nil
}

// Moving makes the message of a move; nil: none.
func Moving(h *ReHome) *localv1.ReHome {
	if h == nil {
		return nil
	}
	return &localv1.ReHome{To: h.To, Expires: wire.Time(h.Expires), Waits: h.Waits, KeyFingerprint: h.Key, Pending: h.Pending}
}

// Audited makes the message of what another spoke must have been told too.
func Audited(m fleet.Memory) *localv1.Audited {
	a := &localv1.Audited{Distribution: m.Distribution}
	for _, t := range m.Told {
		a.Told = append(a.Told, &localv1.Told{Statement: t.Text, At: wire.Time(t.At)})
	}
	for _, v := range slices.SortedFunc(maps.Keys(m.First), fleet.CompareTags) {
		a.First = append(a.First, &localv1.First{Version: v, Digest: string(m.First[v])})
	}
	return a
}

// Memory makes the message of what a spoke remembers.
func Memory(m fleet.Memory) *localv1.Memory {
	w := &localv1.Memory{Distribution: m.Distribution, Previous: m.Previous}
	for _, h := range m.Held {
		w.Held = append(w.Held, &localv1.Held{Version: h.Version, Reason: h.Reason, At: wire.Time(h.At)})
	}
	for _, t := range m.Withdrawn {
		w.Withdrawn = append(w.Withdrawn, wire.Withdrawal(t))
	}
	return w
}

// Render implements LocalService.
func (s *Server) Render(ctx context.Context, r *localv1.RenderRequest) (*localv1.RenderResponse, error) {
	manifest, outside, err := s.cfg.Agent.Render(ctx, r.GetDistribution(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	return &localv1.RenderResponse{Manifest: manifest, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(manifest)), Outside: outside}, nil
}

// Plan implements LocalService.
func (s *Server) Plan(ctx context.Context, r *localv1.PlanRequest) (*localv1.PlanResponse, error) {
	p, err := s.cfg.Agent.Plan(ctx, r.GetDistribution(), r.GetVersion())
	if err != nil {
		return nil, answered(err)
	}
	m := &localv1.PlanResponse{From: p.From, To: p.To, Preflight: wire.Preflight(p.Preflight), Adopted: p.Adopted, Conflicts: p.Conflicts,
		Unchecked: p.Unchecked, Problems: p.Problems, Asks: p.Asks, OneWay: p.OneWay}
	for _, t := range p.Steps {
		m.Steps = append(m.Steps, &localv1.Step{Verb: string(t.Verb), Object: t.Object})
	}
	return m, nil
}

// Approve implements LocalService.
func (s *Server) Approve(ctx context.Context, r *localv1.ApproveRequest) (*localv1.ApproveResponse, error) {
	version, err := s.cfg.Agent.Approve(ctx, r.GetDistribution(), r.GetVersion())
	if err != nil {
		return nil, answered(err)
	}
	return &localv1.ApproveResponse{Version: version}, nil
}

// Reject implements LocalService.
func (s *Server) Reject(ctx context.Context, r *localv1.RejectRequest) (*localv1.RejectResponse, error) {
	version, err := s.cfg.Agent.Reject(ctx, r.GetDistribution(), r.GetVersion(), r.GetReason())
	if err != nil {
		return nil, answered(err)
	}
	return &localv1.RejectResponse{Version: version}, nil
}

// RollBack implements LocalService.
func (s *Server) RollBack(ctx context.Context, r *localv1.RollBackRequest) (*localv1.RollBackResponse, error) {
	from, to, err := s.cfg.Agent.RollBack(ctx, r.GetDistribution(), r.GetVersion(), r.GetReason(), r.GetDryRun())
	if err != nil {
		return nil, answered(err)
	}
	return &localv1.RollBackResponse{From: from, To: to}, nil
}

// Pin implements LocalService.
func (s *Server) Pin(ctx context.Context, r *localv1.PinRequest) (*localv1.PinResponse, error) {
	p := fleet.Pin{Version: r.GetVersion(), Reason: r.GetReason(), Source: fleet.PinSpoke, Author: r.GetAuthor(), Until: wire.FromTime(r.GetUntil())}
	if _, err := fleet.ParseVersion(p.Version); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if p.Expired(time.Now()) {
		return nil, status.Errorf(codes.InvalidArgument, "the pin would be over already: it ends %s", fleet.Moment(p.Until))
	}
	i, err := s.cfg.Agent.Pin(ctx, r.GetDistribution(), p, r.GetDryRun())
	if err != nil {
		return nil, answered(err)
	}
	return &localv1.PinResponse{Subscription: wire.Installation(i)}, nil
}

// Unpin implements LocalService.
func (s *Server) Unpin(ctx context.Context, r *localv1.UnpinRequest) (*localv1.UnpinResponse, error) {
	if err := s.cfg.Agent.Unpin(ctx, r.GetDistribution(), r.GetReason(), r.GetDryRun()); err != nil {
		return nil, answered(err)
	}
	return &localv1.UnpinResponse{}, nil
}

// Steer implements LocalService.
func (s *Server) Steer(ctx context.Context, r *localv1.SteerRequest) (*localv1.SteerResponse, error) {
	word := fleet.Steer(r.GetWord())
	switch word {
	case fleet.SteerHold, fleet.SteerResume, fleet.SteerStep, fleet.SteerSkip:
	default:
		return nil, status.Errorf(codes.InvalidArgument, "%q is none of hold, resume, step and skip", r.GetWord())
	}
	version, err := s.cfg.Agent.Steer(ctx, r.GetDistribution(), r.GetVersion(), word, r.GetReason())
	if err != nil {
		return nil, answered(err)
	}
	return &localv1.SteerResponse{Version: version}, nil
}

// answered gives the one error that callers tell apart its code; the text is the agent's.
func answered(err error) error {
	if errors.Is(err, fleet.ErrNothingWaits) {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return err
}
