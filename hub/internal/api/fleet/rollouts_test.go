package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// Each word reaches the conductor as it was said, with who said it.
func TestWordsReachTheConductor(t *testing.T) {
	w, ctx := newWorld(t)
	by := caller.Who{Actor: "operator admin", Credential: strings.Repeat("00", 32), Role: "admin"}
	until := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	command := rollout.Command{Verb: rollout.Approve, Wave: "canary", By: by.Actor, Role: by.Role, Reason: "looks well"}
	for _, c := range []struct {
		call func() error
		want []any
	}{
		{func() error {
			_, err := w.GetStatus(ctx, &fleetv1.GetStatusRequest{Distribution: "shop", Limit: 7})
			return err
		}, []any{"status", "shop", 7}},
		{func() error {
			_, err := w.Explain(ctx, &fleetv1.ExplainRequest{Cluster: "acme/eu-1", Distribution: "shop"})
			return err
		}, []any{"explain", fleet.Cluster("acme/eu-1"), "shop"}},
		{func() error {
			_, err := w.PlanRollout(ctx, &fleetv1.PlanRolloutRequest{Distribution: "shop", Version: "1.4.0", Plan: []byte("waves")})
			return err
		}, []any{"plan", "shop", "1.4.0", "waves"}},
		{func() error {
			_, err := w.StartRollout(ctx, &fleetv1.StartRolloutRequest{Distribution: "shop", Version: "1.4.0", Reason: " now ", DryRun: true})
			return err
		}, []any{"start", by, "shop", "1.4.0", "", "now", true}},
		{func() error {
			_, err := w.ListRollouts(ctx, &fleetv1.ListRolloutsRequest{})
			return err
		}, []any{"rollouts", "", 50}},
		{func() error {
			_, err := w.ListRollouts(ctx, &fleetv1.ListRolloutsRequest{Limit: 1 << 30})
			return err
		}, []any{"rollouts", "", 1000}},
		{func() error {
			_, err := w.GetRollout(ctx, &fleetv1.GetRolloutRequest{Distribution: "shop"})
			return err
		}, []any{"rollout", "shop", ""}},
		{func() error {
			_, err := w.DecideRollout(ctx, &fleetv1.DecideRolloutRequest{Distribution: "shop", Version: "1.4.0", Wave: "canary", Reason: "looks well",
				Decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_APPROVE, DryRun: true})
			return err
		}, []any{"decide", by, "shop", "1.4.0", command, true}},
		{func() error {
			_, err := w.RecallRelease(ctx, &fleetv1.RecallReleaseRequest{Distribution: "shop", Version: "1.4.0", Reason: "loses orders", RollBack: true})
			return err
		}, []any{"recall", by, fleet.Recall{Distribution: "shop", Version: "1.4.0", Reason: "loses orders", By: "operator admin", RollBack: true}, false}},
		{func() error {
			r, err := w.PinCluster(ctx, &fleetv1.PinClusterRequest{Pin: &fleetv1.Pin{Cluster: "acme/eu-1", Distribution: "shop", Version: "1.0.0",
				Reason: "audit", Until: timestamppb.New(until)}})
			if err == nil && (r.Pin.Source != "hub" || r.Pin.Author != "operator admin" || r.Pin.Created == nil || len(r.Warnings) != 1) {
				err = fmt.Errorf("got %v", r)
			}
			return err
		}, []any{"pin", by, fleet.HubPin{Cluster: "acme/eu-1", Distribution: "shop", Version: "1.0.0", Reason: "audit", Author: "operator admin", Until: until}, false}},
		{func() error {
			_, err := w.UnpinCluster(ctx, &fleetv1.UnpinClusterRequest{Cluster: "acme/eu-1", Distribution: "shop", Reason: "over", DryRun: true})
			return err
		}, []any{"unpin", by, fleet.Cluster("acme/eu-1"), "shop", "over", true}},
		{func() error {
			_, err := w.ListPins(ctx, &fleetv1.ListPinsRequest{})
			return err
		}, []any{"pins", ""}},
		{func() error {
			_, err := w.DecideDelivery(ctx, &fleetv1.DecideDeliveryRequest{Cluster: "acme/eu-1", Distribution: "shop", Approve: true})
			return err
		}, []any{"delivery", by, fleet.HubDecision{Cluster: "acme/eu-1", Distribution: "shop", Approved: true, Author: "operator admin"}, false}},
	} {
		t.Run(c.want[0].(string), func(t *testing.T) {
			w.asks.asked, w.asks.err = nil, nil
			if err := c.call(); err != nil {
				t.Fatal(err)
			}
			if len(w.asks.asked) != 1 || !reflect.DeepEqual(w.asks.asked[0], c.want) {
				t.Errorf("got  %v\nwant %v", w.asks.asked, c.want)
			}
			for why, code := range map[error]codes.Code{caller.ErrNotFound: codes.NotFound, caller.ErrExists: codes.AlreadyExists,
				caller.ErrInvalid: codes.InvalidArgument, caller.ErrConflict: codes.FailedPrecondition, errors.New("disk full"): codes.Internal,
				store.ErrCorrupt: codes.DataLoss} {
				w.asks.err = fmt.Errorf("no such luck; try `hub status`: %w", why)
				err := c.call()
				wantStatus(t, err, code, "no such luck; try `hub status`")
				if code != codes.Internal && code != codes.DataLoss && strings.HasSuffix(err.Error(), why.Error()) {
					t.Errorf("the kind is said twice: %v", err)
				}
			}
		})
	}
}

func TestWordsThatAreRefused(t *testing.T) {
	w, ctx := newWorld(t)
	long := strings.Repeat("x", 501)
	decide := func(d fleetv1.RolloutDecision, wave, reason string) error {
		_, err := w.DecideRollout(ctx, &fleetv1.DecideRolloutRequest{Distribution: "shop", Version: "1.4.0", Decision: d, Wave: wave, Reason: reason})
		return err
	}
	pin := func(p *fleetv1.Pin) error {
		_, err := w.PinCluster(ctx, &fleetv1.PinClusterRequest{Pin: p})
		return err
	}
	recall := func(d, v, reason string) error {
		_, err := w.RecallRelease(ctx, &fleetv1.RecallReleaseRequest{Distribution: d, Version: v, Reason: reason})
		return err
	}
	for name, c := range map[string]struct {
		err  error
		word string
	}{
		"no decision":          {decide(0, "", ""), "approve, reject"},
		"a later decision":     {decide(99, "", ""), "another version"},
		"a wave of a pause":    {decide(fleetv1.RolloutDecision_ROLLOUT_DECISION_PAUSE, "canary", ""), "canary"},
		"a long reason":        {decide(fleetv1.RolloutDecision_ROLLOUT_DECISION_ABORT, "", long), "at most 500"},
		"a reason with tricks": {decide(fleetv1.RolloutDecision_ROLLOUT_DECISION_ABORT, "", "a\x1b[2Jb"), "one line"},
		"recall of a branch":   {recall("shop", "main", "x"), "1.4.0"},
		"recall of nobody":     {recall("", "1.4.0", "x"), "hub get distributions"},
		"recall without why":   {recall("shop", "1.4.0", " "), "--reason"},
		"pin of nobody":        {pin(nil), "PROVIDER/NAME"},
		"pin to no version":    {pin(&fleetv1.Pin{Cluster: "acme/eu-1", Distribution: "shop", Version: "newest", Reason: "x"}), "hub get releases shop"},
		"pin without why":      {pin(&fleetv1.Pin{Cluster: "acme/eu-1", Distribution: "shop", Version: "1.0.0"}), "--reason"},
	} {
		t.Run(name, func(t *testing.T) { wantStatus(t, c.err, codes.InvalidArgument, c.word) })
	}
	_, err := w.StartRollout(ctx, &fleetv1.StartRolloutRequest{Distribution: "shop", Version: "1.4.0", Plan: make([]byte, 1<<20)})
	wantStatus(t, err, codes.InvalidArgument, "--plan", "262144")
	if len(w.asks.asked) != 0 {
		t.Errorf("the conductor heard %v", w.asks.asked)
	}
	// An empty answer to a name that is wrong is no answer.
	_, err = w.ListRollouts(ctx, &fleetv1.ListRolloutsRequest{Distribution: "web"})
	wantStatus(t, err, codes.NotFound, "web", "hub get distributions")
	_, err = w.ListPins(ctx, &fleetv1.ListPinsRequest{Distribution: "web"})
	wantStatus(t, err, codes.NotFound, "web")
}

// exported collects a stream of the audit.
type exported struct {
	fleetv1.FleetService_ExportAuditServer
	ctx     context.Context
	entries []*fleetv1.AuditEntry
}

func (e *exported) Context() context.Context { return e.ctx }

func (e *exported) Send(m *fleetv1.ExportAuditResponse) error {
	e.entries = append(e.entries, m.GetEntry())
	return nil
}

// Whatever an operator changes is in the audit, with who and what; a dry run and a refusal are not.
func TestEveryChangeIsAudited(t *testing.T) {
	w, ctx := newWorld(t)
	shop := &fleetv1.Distribution{Name: "shop", Url: "https://example.com/shop.git"}
	for _, change := range []func() error{
		func() error {
			_, err := w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: shop, DryRun: true})
			return err
		},
		func() error {
			_, err := w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: shop})
			return err
		},
		func() error {
			_, err := w.InviteCluster(ctx, &fleetv1.InviteClusterRequest{Name: "acme/eu-1"})
			return err
		},
		func() error {
			_, err := w.RemoveCluster(ctx, &fleetv1.RemoveClusterRequest{Name: "acme/eu-1", DryRun: true})
			return err
		},
		func() error {
			_, err := w.RemoveCluster(ctx, &fleetv1.RemoveClusterRequest{Name: "acme/eu-1"})
			return err
		},
		func() error {
			_, err := w.RemoveDistribution(ctx, &fleetv1.RemoveDistributionRequest{Name: "shop"})
			return err
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "No"}}); err == nil {
		t.Fatal("a bad name was taken")
	}
	got := &exported{ctx: ctx}
	if err := w.ExportAudit(&fleetv1.ExportAuditRequest{}, got); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range got.entries {
		all = append(all, fmt.Sprintf("%d %s: %s %s", e.Number, e.Actor, e.Action, e.Object))
		if len(e.Hash) == 0 || len(e.Record) == 0 || e.At == nil || len(e.Credential) != 64 {
			t.Errorf("got %v", e)
		}
	}
	want := "1 operator admin: distribution add shop|2 operator admin: cluster invite acme/eu-1|" +
		"3 operator admin: cluster remove acme/eu-1|4 operator admin: distribution remove shop"
	if s := strings.Join(all, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	rest := &exported{ctx: ctx}
	if err := w.ExportAudit(&fleetv1.ExportAuditRequest{After: 3}, rest); err != nil || len(rest.entries) != 1 || rest.entries[0].Number != 4 {
		t.Errorf("after the third: got %v, %v", rest.entries, err)
	}
}

func TestARecalledReleaseSaysSo(t *testing.T) {
	w, ctx := newWorld(t)
	d := fleet.Digest("sha256:" + strings.Repeat("a", 64))
	if err := w.store.AddDistribution(fleet.Distribution{Name: "shop", URL: "/srv/shop"}); err != nil {
		t.Fatal(err)
	}
	if err := w.store.PutRelease(fleet.Release{Distribution: "shop", Version: "2.0.0", Phase: fleet.Available, Digest: d, Stops: []string{"1.5.0"}}, "h"); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	if err := w.store.PutRecall(fleet.Recall{Distribution: "shop", Version: "2.0.0", Reason: "loses orders", By: "operator admin", At: at}, nil, fleet.Entry{At: at, Actor: "operator admin", Action: "release recall", Object: "shop 2.0.0"}); err != nil {
		t.Fatal(err)
	}
	r, err := w.GetRelease(ctx, &fleetv1.GetReleaseRequest{Distribution: "shop", Version: "2.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	list, err := w.ListReleases(ctx, &fleetv1.ListReleasesRequest{Distribution: "shop"})
	if err != nil || len(list.Releases) != 1 {
		t.Fatalf("got %v, %v", list, err)
	}
	for _, m := range []*fleetv1.Release{r.Release, list.Releases[0]} {
		if m.Phase != "Recalled" || m.RecallReason != "loses orders" || m.RecalledBy != "operator admin" || !m.Recalled.AsTime().Equal(at) || m.PreflightUntil != nil || len(m.Stops) != 1 {
			t.Errorf("got %v", m)
		}
	}
}
