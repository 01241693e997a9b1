package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with testdata/name; `go test ./hub/internal/cli -update` writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update writes it anew)\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

var moment = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(moment.Add(-d)) }

func screen(rows ...*fleetv1.StatusRow) *fleetv1.GetStatusResponse {
	return &fleetv1.GetStatusResponse{At: timestamppb.New(moment), Rows: rows, Summaries: []*fleetv1.DistributionSummary{
		{Distribution: "shop", Latest: "1.3.0", Clusters: 4, UpToDate: 1, Pinned: 1, Failed: 1, Stale: 1, Rejected: []string{"1.4.0: app-istio: Deployment shop/cache: image shop/cache:latest has the tag latest"}},
	}}
}

var (
	wellRow = &fleetv1.StatusRow{Cluster: "acme/eu-1", Distribution: "shop", Variant: "app-kubernetes", Namespace: "shop", DesiredVersion: "1.3.0", RunningVersion: "1.3.0", Phase: "Succeeded", RawPhase: "Succeeded", Health: "Healthy", Objects: 15, Ready: 15, LastSeen: ago(4 * time.Second), Labels: map[string]string{"ring": "0", "env": "production"}}
	pinRow  = &fleetv1.StatusRow{Cluster: "acme/us-1", Distribution: "shop", Variant: "app-istio", DesiredVersion: "1.1.0", RunningVersion: "1.1.0", Phase: "Pinned(1.1.0)", RawPhase: "Succeeded", Health: "Healthy", Objects: 15, Ready: 15, LastSeen: ago(9 * time.Second), DriftCorrected: 2}
	backRow = &fleetv1.StatusRow{Cluster: "globex/eu-1", Distribution: "shop", Variant: "app-kubernetes", DesiredVersion: "1.3.0", RunningVersion: "1.2.0", TargetVersion: "1.3.0", Phase: "RolledBack(Deployment shop/database: ImagePullBackOff)", RawPhase: "RolledBack", Health: "Healthy", Objects: 15, Ready: 15, LastSeen: ago(time.Second), Attention: true, Reason: "Deployment shop/database: ImagePullBackOff: Back-off pulling image \"shop/database:1.3.0\""}
	gone    = &fleetv1.StatusRow{Cluster: "initech/ap-1", Distribution: "shop", DesiredVersion: "1.3.0", RunningVersion: "1.2.0", Phase: "Stale(2h)", RawPhase: "Succeeded", Health: "Unknown", LastSeen: ago(2 * time.Hour), Stale: true, Attention: true}
)

func TestStatusScreen(t *testing.T) {
	for _, c := range []struct {
		name, format string
		status       *fleetv1.GetStatusResponse
		code         int
	}{
		{"status.txt", "table", screen(wellRow, pinRow, backRow, gone), exitcode.Failed},
		{"status-wide.txt", "wide", screen(wellRow, pinRow, backRow, gone), exitcode.Failed},
		{"status.json", "json", screen(wellRow, backRow), exitcode.Failed},
		{"status.names", "name", screen(wellRow, pinRow), exitcode.OK},
		{"status-well.txt", "table", screen(wellRow, pinRow), exitcode.OK},
		{"status-trouble.txt", "table", &fleetv1.GetStatusResponse{At: timestamppb.New(moment), Rows: []*fleetv1.StatusRow{wellRow}, Summaries: []*fleetv1.DistributionSummary{
			{Distribution: "shop", Latest: "1.3.0", Clusters: 1, UpToDate: 1, Trouble: "list tags of https://git.example.com/shop.git: git repository is unreachable: no route to host; see: git ls-remote https://git.example.com/shop.git"}}}, exitcode.Failed},
		{"status-preflight.txt", "table", &fleetv1.GetStatusResponse{At: timestamppb.New(moment), Rows: []*fleetv1.StatusRow{wellRow}, Summaries: []*fleetv1.DistributionSummary{
			{Distribution: "shop", Latest: "1.4.0", Clusters: 1, UpToDate: 1, Preflight: []string{"1.4.0: 1 of 1 connected clusters answered, 1 would break; offered to be taken in 25s at the latest"}}}}, exitcode.OK},
		{"status-disk-full.txt", "table", &fleetv1.GetStatusResponse{At: timestamppb.New(moment), Rows: []*fleetv1.StatusRow{wellRow},
			Troubles: []string{"nothing can be stored since 2026-05-01T12:00:00Z, and nothing is acknowledged: no space left on device; make room: `df -h /data/hub.db`; the hub goes on by itself"}}, exitcode.Failed},
		{"status-empty.txt", "table", &fleetv1.GetStatusResponse{}, exitcode.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{out: &out, err: &out, now: func() time.Time { return moment }}
			err := a.printStatus(&printer.Printer{Out: &out, Format: c.format}, "", c.status)
			if got := exitcode.Of(err); got != c.code {
				t.Errorf("exit code %d, want %d (%v)", got, c.code, err)
			}
			golden(t, c.name, out.Bytes())
		})
	}
}

func TestReleaseDescription(t *testing.T) {
	a := &app{now: func() time.Time { return moment }}
	golden(t, "release-rejected.txt", []byte(a.describe(&fleetv1.Release{
		Distribution: "shop", Version: "1.4.0", Phase: "Rejected", Commit: "0123456789abcdef0123456789abcdef01234567", Published: ago(time.Minute),
		Variants: []*fleetv1.VariantResult{{Name: "app-kubernetes", Objects: 15}, {Name: "app-istio", Reasons: []string{"Deployment shop/cache: image shop/cache:latest has the tag latest"}}},
	})))
	golden(t, "release-available.txt", []byte(a.describe(&fleetv1.Release{
		Distribution: "shop", Version: "1.3.0", Phase: "Available", Commit: "0123456789abcdef0123456789abcdef01234567", TagObject: "89abcdef0123456789abcdef0123456789abcdef", Published: ago(time.Hour),
		Digest: "sha256:aa", Size: 40960, CompressedSize: 5120, Variants: []*fleetv1.VariantResult{{Name: "app-kubernetes", Objects: 15}}, RunningOn: []string{"acme/eu-1", "acme/us-1"},
	})))
}

func TestReleaseClusters(t *testing.T) {
	changes := &syncv1.Preflight{Version: "1.4.0", Outcome: "Changes", Reversibility: "OneWay", At: ago(time.Minute),
		Changes: []*syncv1.KindChange{{Kind: "Deployment", Verb: "change", Count: 3}}, Reason: "asks its provider: it cannot be gone back from"}
	breaks := &syncv1.Preflight{Version: "1.4.0", Outcome: "Breaks", Reason: "patch replicas.yaml finds no Deployment cache", At: ago(2 * time.Minute)}
	of := func(clusters ...*fleetv1.ReleaseCluster) *fleetv1.GetReleaseResponse {
		return &fleetv1.GetReleaseResponse{At: timestamppb.New(moment), Clusters: clusters,
			Release: &fleetv1.Release{Distribution: "shop", Version: "1.4.0", Phase: "Available", Published: ago(time.Hour)}}
	}
	all := of(&fleetv1.ReleaseCluster{Cluster: "acme/eu-1", RunningVersion: "1.3.0", Phase: "Succeeded", Preflight: changes, Connected: true},
		&fleetv1.ReleaseCluster{Cluster: "acme/us-1", RunningVersion: "1.3.0", Phase: "Succeeded", Preflight: breaks, Connected: true},
		&fleetv1.ReleaseCluster{Cluster: "globex/eu-1"})
	for _, c := range []struct {
		name, format string
		r            *fleetv1.GetReleaseResponse
	}{
		{"release-clusters.txt", "table", all}, {"release-clusters-wide.txt", "wide", all},
		{"release-clusters-silent.txt", "table", of(&fleetv1.ReleaseCluster{Cluster: "acme/eu-1"})},
		{"release-clusters-none.txt", "table", of()},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{out: &out, err: &out, now: func() time.Time { return moment }}
			if err := a.describeClusters(printer.Printer{Format: c.format}, c.r); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, out.Bytes())
		})
	}
}

// What was taken back is said beside the latest; what nobody has started wants a person.
func TestStatusNamesWhatIsNotOnItsWay(t *testing.T) {
	sum := &fleetv1.DistributionSummary{Distribution: "shop", Latest: "1.4.0", Clusters: 3, UpToDate: 3, Ended: []string{"1.5.1: RolledBack: undone by operator admin: bad"}}
	h := serveAnswers(t, map[string]proto.Message{"GetStatus": &fleetv1.GetStatusResponse{At: timestamppb.New(moment), Rows: []*fleetv1.StatusRow{wellRow}, Summaries: []*fleetv1.DistributionSummary{sum}}})
	code, out, _ := h.hub(t, "status")
	if code != exitcode.OK || !strings.Contains(out, "shop: latest 1.4.0; 3 of 3 clusters up to date\n  not on its way 1.5.1: RolledBack: undone by operator admin: bad\nNothing needs a person.") {
		t.Errorf("exit code %d: %s", code, out)
	}
	sum.Waiting = []string{"1.6.0 waits for `hub rollout start shop 1.6.0` (start: manual, in hub.yaml)"}
	h.set("GetStatus", &fleetv1.GetStatusResponse{At: timestamppb.New(moment), Rows: []*fleetv1.StatusRow{wellRow}, Summaries: []*fleetv1.DistributionSummary{sum}})
	code, out, _ = h.hub(t, "status")
	if code != exitcode.Failed || !strings.Contains(out, "A release needs a person: shop 1.6.0 waits for `hub rollout start shop 1.6.0` (start: manual, in hub.yaml)") || strings.Contains(out, "Nothing needs") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

func TestAReasonIsOneLine(t *testing.T) {
	r := standingAt("RolledBack", strings.Repeat("it does not come up ", 40), 1, func(r *fleetv1.Rollout) { r.Joiners = 3 })
	for _, line := range (canvas{now: moment}).tree(r) {
		if n := len([]rune(line)); n > 200 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.Contains(line, "in no wave") {
			t.Errorf("it is over: %s", line)
		}
	}
}

func TestANewClusterIsNoIssue(t *testing.T) {
	for message, want := range map[string]bool{"nothing runs: nothing is on offer": false, "nothing runs: the overlay cannot be read": true} {
		if got := issue(&fleetv1.FleetEvent{Kind: "Declined", Message: message}); got != want {
			t.Errorf("%s: %v", message, got)
		}
	}
}
