package fleetapi

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/hub/internal/access"
	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// WhoAmI says as whom the hub takes the caller.
func (s *Service) WhoAmI(ctx context.Context, _ *fleetv1.WhoAmIRequest) (*fleetv1.WhoAmIResponse, error) {
	c, _ := caller.From(ctx)
	r := &fleetv1.WhoAmIResponse{Name: c.String(), Role: c.Role.String(), CredentialKind: "client certificate", Credential: c.Credential(), NotAfter: wire.Time(c.NotAfter)}
	if c.Token != nil {
		r.CredentialKind, r.Groups = "OIDC token", c.Token.Groups
	}
	return r, nil
}

// CanI says what the caller may call, by the table that the server judges by and the caller's own scope.
func (s *Service) CanI(ctx context.Context, req *fleetv1.CanIRequest) (*fleetv1.CanIResponse, error) {
	methods := access.Fleet()
	if m := req.GetMethod(); m != "" {
		if !slices.Contains(methods, m) {
			return nil, invalid("there is no method %q; `hub auth can-i --list` lists them", m)
		}
		methods = []string{m}
	}
	switch verb := rollout.Verb(req.GetDecision()); {
	case verb == "":
	case req.GetMethod() != "DecideRollout", !slices.Contains([]rollout.Verb{rollout.Approve, rollout.Reject, rollout.Pause, rollout.Resume, rollout.Abort, rollout.Undo}, verb):
		return nil, invalid("decision %q of %q: want approve, reject, pause, resume, abort or undo of DecideRollout", verb, req.GetMethod())
	}
	if req.GetCluster() != "" {
		if _, err := fleet.ParseCluster(req.GetCluster()); err != nil {
			return nil, invalid("%v", err)
		}
	}
	table, err := access.Read()
	if err != nil {
		return nil, s.failure("read who may call what", err)
	}
	resp, sc := &fleetv1.CanIResponse{}, scopeOf(ctx)
	for _, m := range methods {
		resp.Permissions = append(resp.Permissions, permission(sc, m, table.Operator(m), req.GetCluster(), req.GetDecision()))
	}
	return resp, nil
}

// permission of one caller to call one method, about one cluster and with one decision where those are named.
func permission(sc scope, method string, rule access.Rule, cluster, decision string) *fleetv1.Permission {
	p := &fleetv1.Permission{Method: method, Roles: rule.May.Roles(), Allowed: rule.May&access.Of(sc.who) != 0}
	switch {
	case !p.Allowed:
		p.Reason = fmt.Sprintf("%s, whose role is %q: it is for %s", sc.who, sc.who.Role, strings.Join(p.Roles, " or "))
	case !sc.all && cluster != "" && !sc.sees(cluster):
		p.Allowed, p.Reason = false, "it is for the clusters of provider "+sc.provider+" alone"
	case decision == string(rollout.Approve) || decision == string(rollout.Reject):
		if p.Allowed, p.Reason = sc.who.Role.Approves() != "", "what waits for "+sc.who.Role.Approves(); !p.Allowed {
			p.Reason = fmt.Sprintf("%s, whose role is %q: it is for the role that a wave names, or an admin", sc.who, sc.who.Role)
		}
	case decision != "" && !sc.who.Role.Steers():
		p.Allowed, p.Reason = false, fmt.Sprintf("%s, whose role is %q: it is for admin or vendor-release or vendor-operator", sc.who, sc.who.Role)
	case !sc.all && rule.OwnClusters:
		p.Reason = fmt.Sprintf("for %s's own clusters", sc.provider)
	case method == "DecideRollout" && decision == "" && !sc.who.Role.Steers():
		p.Reason = fmt.Sprintf("to approve and reject what waits for %s", sc.who.Role.Of)
	case method == "DecideRollout" && decision == "" && sc.who.Role.Approves() == "":
		p.Reason = "to pause, resume, abort and undo; approving takes approver:ROLE"
	case (method == "AddOperator" || method == "RemoveOperator") && sc.who.Role.Kind != caller.Admin:
		p.Reason = "of the roles viewer and provider:PROVIDER"
	}
	return p
}
