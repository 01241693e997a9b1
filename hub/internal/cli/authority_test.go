package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func TestTheAuthorityIsShown(t *testing.T) {
	year := 365 * 24 * time.Hour
	old := &fleetv1.AuthorityKey{Pin: strings.Repeat("a1", 32), Name: "wheelwright hub 0a1b2c3d", NotBefore: ago(9 * year), NotAfter: later(year), Shown: true, Issues: true}
	h := serveAnswers(t, map[string]proto.Message{"GetAuthority": &fleetv1.GetAuthorityResponse{Keys: []*fleetv1.AuthorityKey{old}, Clusters: 3, ClustersFollowing: 3},
		"RetireAuthority": &fleetv1.RetireAuthorityResponse{LeftBehind: []*fleetv1.LeftBehind{{Who: "acme/eu-1", Reason: "asleep"}}}})
	show := func(name string, args ...string) (stderr string) {
		t.Helper()
		code, out, errOut := h.hub(t, append([]string{"authority", "status"}, args...)...)
		if code != exitcode.OK {
			t.Errorf("%v: exit code %d: %s", args, code, errOut)
		}
		golden(t, name, []byte(out))
		return errOut
	}
	show("authority-one.txt")
	between := proto.CloneOf(old)
	between.Issues = false
	next := &fleetv1.AuthorityKey{Pin: strings.Repeat("b2", 32), Name: "wheelwright hub 4e5f6a7b", NotBefore: ago(time.Hour), NotAfter: later(10 * year), Issues: true}
	two := &fleetv1.GetAuthorityResponse{Keys: []*fleetv1.AuthorityKey{between, next}, Clusters: 3, ClustersFollowing: 2, Operators: 2, OperatorsFollowing: 1, LeftBehind: []*fleetv1.LeftBehind{
		{Who: "acme/eu-1", Reason: "its certificate, until 2026-01-02T15:04:05Z, is of the old key; a spoke renews it by itself when it is connected"},
		{Who: "operator maria", Reason: "its certificate, until 2026-01-02T15:04:05Z, is of the old key; `hub auth renew` with the context file renews it"}}}
	h.set("GetAuthority", two)
	if said := show("authority-two.txt"); strings.Contains(said, "retire") {
		t.Errorf("somebody is left behind: %s", said)
	}
	show("authority-two-wide.txt", "-o", "wide")
	all := proto.CloneOf(two)
	all.LeftBehind, all.ClustersFollowing, all.OperatorsFollowing = nil, 3, 2
	h.set("GetAuthority", all)
	if said := show("authority-followed.txt"); !strings.Contains(said, "hub authority retire") {
		t.Errorf("nobody is left behind: %s", said)
	}
	for _, verb := range []string{"rotate", "retire"} {
		if code, _, errOut := h.hub(t, "authority", verb, "--yes"); code != exitcode.Usage || !strings.Contains(errOut, "--reason") {
			t.Errorf("%s without a reason: exit code %d: %s", verb, code, errOut)
		}
		if code, _, errOut := h.hub(t, "authority", verb, "--reason", "r"); code != exitcode.Usage || !strings.Contains(errOut, "--yes") {
			t.Errorf("%s that nobody confirmed: exit code %d: %s", verb, code, errOut)
		}
	}
	if code, out, errOut := h.hub(t, "authority", "retire", "--reason", "stolen", "--force", "--yes"); code != exitcode.OK || !strings.Contains(out, "left behind: acme/eu-1") {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
}
