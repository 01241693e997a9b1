package fleetapi

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func TestWhoIsLeftBehindByTheNewKey(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	old, next := identity.Root{Pin: "old", Shown: true}, identity.Root{Pin: "new", Issues: true}
	in := func(d time.Duration) time.Time { return now.Add(d) }
	all := []store.Holder{
		{Cluster: "acme/new", Issuer: "new", NotAfter: in(time.Hour)},
		{Cluster: "acme/old", Issuer: "old", NotAfter: in(time.Hour)},
		{Cluster: "acme/before", NotAfter: in(time.Hour)},                    // issuers were not recorded
		{Cluster: "acme/asleep", Issuer: "old", NotAfter: in(-time.Hour)},    // may come back
		{Cluster: "acme/gone", Issuer: "old", NotAfter: in(-48 * time.Hour)}, // needs an invitation anyway
		{Operator: "maria", Issuer: "old", NotAfter: in(time.Hour)},
		{Operator: "petra", Issuer: "new", NotAfter: in(time.Hour)},
		{Operator: "former", Issuer: "old", NotAfter: in(-time.Minute)},
	}
	for _, c := range []struct {
		roots                                   []identity.Root
		clusters, following, operators, renewed uint32
		behind                                  string
	}{
		{[]identity.Root{old}, 4, 4, 2, 2, ""},
		{[]identity.Root{old, next}, 4, 1, 2, 1, "acme/old, acme/before, acme/asleep, operator maria"},
	} {
		r := followers(c.roots, all, 24*time.Hour, now)
		var behind []string
		for _, b := range r.GetLeftBehind() {
			behind = append(behind, b.GetWho())
			if b.GetReason() == "" {
				t.Errorf("%s: no reason", b.GetWho())
			}
		}
		if r.GetClusters() != c.clusters || r.GetClustersFollowing() != c.following || r.GetOperators() != c.operators || r.GetOperatorsFollowing() != c.renewed || strings.Join(behind, ", ") != c.behind {
			t.Errorf("%d keys: %v", len(c.roots), r)
		}
	}
}

func TestTheOldKeyIsNotRetiredWhileItIsNeeded(t *testing.T) {
	w, ctx := newWorld(t)
	retire := func(force bool) (*fleetv1.RetireAuthorityResponse, error) {
		return w.RetireAuthority(ctx, &fleetv1.RetireAuthorityRequest{Reason: "done", Force: force})
	}
	_, err := w.RotateAuthority(ctx, &fleetv1.RotateAuthorityRequest{})
	wantStatus(t, err, codes.InvalidArgument, "reason")
	_, err = retire(true)
	wantStatus(t, err, codes.FailedPrecondition, "hub authority rotate")

	invited, err := w.InviteCluster(ctx, &fleetv1.InviteClusterRequest{Name: "acme/eu-1"})
	if err != nil {
		t.Fatal(err)
	}
	dry, err := w.RotateAuthority(ctx, &fleetv1.RotateAuthorityRequest{Reason: "stolen", DryRun: true})
	if err != nil || len(dry.GetAuthority().GetKeys()) != 1 {
		t.Fatalf("got %v, %v", dry, err)
	}
	r, err := w.RotateAuthority(ctx, &fleetv1.RotateAuthorityRequest{Reason: "stolen"})
	if err != nil || len(r.GetAuthority().GetKeys()) != 2 {
		t.Fatalf("got %v, %v", r, err)
	}
	_, err = w.RotateAuthority(ctx, &fleetv1.RotateAuthorityRequest{Reason: "stolen"})
	wantStatus(t, err, codes.FailedPrecondition, "hub authority status")
	_, err = retire(false)
	wantStatus(t, err, codes.FailedPrecondition, "invitations", "--force")
	redeem(t, w, invited.GetToken()) // under no key that is known
	_, err = retire(false)
	wantStatus(t, err, codes.FailedPrecondition, "acme/eu-1", "hub authority status")
	done, err := retire(true)
	if err != nil || len(done.GetAuthority().GetKeys()) != 1 || len(done.GetLeftBehind()) != 1 || done.GetLeftBehind()[0].GetWho() != "acme/eu-1" {
		t.Fatalf("got %v, %v", done, err)
	}
	entries, err := w.store.Audit(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range entries {
		actions = append(actions, e.Action)
	}
	if got := strings.Join(actions, ", "); got != "cluster invite, authority rotate, authority retire" {
		t.Errorf("the audit has %s", got)
	}
}
