package cli

import (
	"bytes"
	"flag"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	render.ChildMain()
	os.Exit(m.Run())
}

var moment = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// golden compares with testdata/name; `go test ./spoke/internal/cli -update` writes it.
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

func traffic() []fleet.Traffic {
	return []fleet.Traffic{{Service: "backend", Weight: 33}, {Service: "cache", Weight: 100, Matches: true}, {Service: "web", Weight: 33}}
}

func installations() []fleet.Installation {
	d := func(c string) fleet.Digest { return fleet.Digest("sha256:" + strings.Repeat(c, 64)) }
	return []fleet.Installation{
		{Distribution: "shop", Variant: "app-kubernetes", Namespace: "shop", Policy: fleet.Policy{Range: "1.x"}, Running: "1.1.0", Bundle: d("a"), Overlay: d("b"), Rendered: d("c"),
			Phase: fleet.Succeeded, Target: "1.1.0", PhaseSince: moment.Add(-time.Hour), Health: fleet.Healthy, Objects: 24, Ready: 24, DriftCorrected: 2, ObservedAt: moment.Add(-4 * time.Second)},
		{Distribution: "mail", Variant: "default", Namespace: "mail", Running: "2.0.0", Bundle: d("d"), Phase: fleet.RolledBack, Target: "2.1.0",
			Reason: "Deployment mail/smtp: container smtp: CrashLoopBackOff: back-off 10s restarting failed container\nsecond line", PhaseSince: moment.Add(-3 * time.Minute),
			Health: fleet.Healthy, Objects: 7, Ready: 7, ObservedAt: moment.Add(-2 * time.Minute)},
		{Distribution: "ledger", Variant: "default", Namespace: "ledger", Policy: fleet.Policy{Pin: &fleet.Pin{Version: "3.0.0", Reason: "audit", Source: "overlay"}}, Running: "3.0.0",
			Phase: fleet.Succeeded, Target: "3.0.0", Health: fleet.Degraded, HealthMessage: "StatefulSet ledger/db: 1 of 3 ready", Objects: 3, Ready: 2, ObservedAt: moment},
		{Distribution: "chat", Phase: fleet.AwaitingConfig, Reason: "overlay: the patch's target is gone", Health: fleet.HealthUnknown},
		{Distribution: "news", Running: "1.0.0", Phase: fleet.Settling, Target: "1.0.1", Reason: "Deployment news/web: Available: 0/1", Health: fleet.InProgress, Objects: 4, Ready: 1, ObservedAt: moment},
		{Distribution: "maps", Running: "1.0.0", Phase: fleet.Checking, Target: "1.0.1", Reason: "check maps 1.0.1: the Kubernetes API cannot be reached", Health: fleet.HealthUnknown,
			HealthMessage: "the Kubernetes API cannot be reached at https://10.0.0.1: connection refused; try: kubectl get --raw /readyz", Objects: 4, Ready: 4, ObservedAt: moment.Add(-time.Hour)},
		{Distribution: "wiki", Health: fleet.HealthUnknown},
		{Distribution: "crm", Running: "1.0.0", Phase: fleet.AwaitingApproval, Target: "2.0.0", Reason: "it deletes 9 of 30 objects, more than the deletion budget of 20 % of the inventory, at least 5 objects; see it with: spoke diff crm 2.0.0, then: spoke approve crm 2.0.0, or: spoke reject crm 2.0.0",
			Health: fleet.Healthy, Objects: 30, Ready: 30, ObservedAt: moment},
		{Distribution: "bank", Running: "1.0.0", Phase: fleet.Succeeded, Target: "1.0.0", Health: fleet.Healthy, Objects: 3, Ready: 3, Drifted: 2,
			DriftMessage: "Deployment bank/web: spec.replicas: set by keda", ObservedAt: moment},
		{Distribution: "game", Running: "1.3.0", Phase: fleet.Progressing, Target: "1.4.0", Reason: "step 2 of 5 (backend, web 33 %; cache what matches): 1 of 3 measurements passed", PhaseSince: moment.Add(-4 * time.Minute), Health: fleet.Healthy, Objects: 9, Ready: 9, ObservedAt: moment,
			Canary: &fleet.Canary{Step: 2, Steps: 5, Traffic: traffic()}},
		{Distribution: "blog", Running: "1.3.0", Phase: fleet.AwaitingApproval, Target: "1.4.0", Reason: "step 2 of 5 passed; asks before more traffic; see it with: spoke status blog, then: spoke approve blog, or: spoke reject blog",
			PhaseSince: moment.Add(-time.Minute), Health: fleet.Healthy, Objects: 2, Ready: 2, ObservedAt: moment, Canary: &fleet.Canary{Step: 2, Steps: 5, Traffic: traffic()[:1], Held: true, Gate: fleet.GateIncrease}},
		{Distribution: "feed", Reason: "none of 5 releases is in range \">=3.0.0\"", Health: fleet.HealthUnknown},
	}
}

func memories() []fleet.Memory {
	return []fleet.Memory{
		{Distribution: "shop", Previous: []string{"1.0.1", "1.0.0"}},
		{Distribution: "mail", Held: []fleet.Held{{Version: "2.1.0", Reason: "CrashLoopBackOff", At: moment.Add(-3 * time.Minute)}}},
	}
}

func response() *localv1.GetStatusResponse {
	r := &localv1.GetStatusResponse{At: wire.Time(moment), Cluster: "acme/eu-1", Hub: "hub.example.com:7443", Running: true, Connected: true,
		LastContact: wire.Time(moment.Add(-3 * time.Second)), CertificateNotAfter: wire.Time(moment.Add(20 * time.Hour)), SpokeVersion: "1.0.0", SpokeCommit: "abc"}
	for _, i := range installations() {
		r.Subscriptions = append(r.Subscriptions, wire.Installation(i))
	}
	for _, m := range memories() {
		r.Memories = append(r.Memories, local.Memory(m))
	}
	return r
}

func TestStatusInEveryFormat(t *testing.T) {
	away := response()
	away.Subscriptions, away.Connected, away.CertificateNotAfter = away.Subscriptions[:1], false, wire.Time(moment.Add(-time.Hour))
	healthy := response()
	healthy.Subscriptions, healthy.Memories = healthy.Subscriptions[:1], healthy.Memories[:1]
	healthy.Sandbox = "landlock+seccomp"
	weak := response()
	weak.Subscriptions, weak.Memories, weak.Sandbox = weak.Subscriptions[:1], weak.Memories[:1], "seccomp"
	resting := response()
	resting.Subscriptions, resting.Running, resting.Connected = resting.Subscriptions[:1], false, false
	asked := response()
	asked.Subscriptions = slices.DeleteFunc(asked.Subscriptions, func(s *syncv1.SubscriptionStatus) bool {
		return s.GetDistribution() != "shop" && s.GetDistribution() != "crm"
	})
	relayed := func(connected bool) *localv1.GetStatusResponse {
		r := response()
		r.Subscriptions, r.Memories, r.Connected, r.Via = r.Subscriptions[:1], r.Memories[:1], connected, "relay.fra.example.com:7444"
		return r
	}
	leaving := func(waits, key string) *localv1.GetStatusResponse {
		r := response()
		r.Subscriptions, r.Memories = r.Subscriptions[:1], r.Memories[:1]
		r.ReHome = &localv1.ReHome{To: "new.example.com:7443", Expires: wire.Time(moment.Add(time.Hour)), Waits: waits, KeyFingerprint: key, Pending: key != ""}
		return r
	}
	for _, c := range []struct {
		file, format string
		r            *localv1.GetStatusResponse
		noHeaders    bool
		code         int
	}{
		{"status.txt", "table", response(), false, exitcode.Failed},
		{"status-wide.txt", "wide", response(), false, exitcode.Failed},
		{"status-no-headers.txt", "table", healthy, true, exitcode.OK},
		{"status.json", "json", healthy, false, exitcode.OK},
		{"status.yaml", "yaml", healthy, false, exitcode.OK},
		{"status-weak.txt", "wide", weak, false, exitcode.OK},
		{"status-name.txt", "name", response(), false, exitcode.Failed},
		{"status-away.txt", "table", away, false, exitcode.Failed},
		{"status-asked.txt", "table", asked, false, exitcode.Waiting},
		{"status-resting.txt", "table", resting, false, exitcode.Failed},
		{"status-relayed.txt", "table", relayed(true), false, exitcode.OK},
		{"status-relayed.json", "json", relayed(true), false, exitcode.OK},
		{"status-relayed-away.txt", "table", relayed(false), false, exitcode.OK},
		{"status-moving.txt", "table", leaving("hub new.example.com:7443: it waits", "SHA256:of-the-new-key"), false, exitcode.OK},
		{"status-moving-away.txt", "table", leaving("join new.example.com:7443: the hub can't be reached", ""), false, exitcode.OK},
		{"status-moving-begins.txt", "table", leaving("", ""), false, exitcode.OK},
		{"status-empty.txt", "table", &localv1.GetStatusResponse{Cluster: "acme/eu-1", Hub: "hub:1", Running: true, Connected: true}, false, exitcode.OK},
	} {
		t.Run(c.file, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{out: &out, now: func() time.Time { return moment }}
			err := a.printStatus(&printer.Printer{Out: &out, Format: c.format, NoHeaders: c.noHeaders}, c.r)
			if got := exitcode.Of(err); got != c.code || exitcode.Message(err) != "" {
				t.Errorf("exit code %d, want %d; %v", got, c.code, err)
			}
			golden(t, c.file, out.Bytes())
		})
	}
}

// invoke runs one command as a shell does.
func invoke(t *testing.T, args ...string) (code int, out, err string) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{out: &o, err: &e, now: func() time.Time { return moment }}
	code = a.run(t.Context(), args)
	return code, o.String(), e.String()
}

func TestWhatIsWrongIsSaidWithTheNextCommand(t *testing.T) {
	t.Setenv(dataVariable, "")
	empty, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	tok := token.New(strings.Repeat("0", 64)).String()
	config := filepath.Join(t.TempDir(), "spoke.yaml")
	if err := os.WriteFile(config, []byte("version: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"status"}, 2, []string{"--data DIR", dataVariable}},
		{[]string{"status", "--data", "/nowhere"}, 2, []string{"/nowhere", "spoke join"}},
		{[]string{"status", "--data", file}, 2, []string{file, "is a file"}},
		{[]string{"status", "--data", empty}, 2, []string{empty, "not joined", "hub cluster invite"}},
		{[]string{"status", "--data", empty, "-o", "xml"}, 2, []string{"xml", "json"}},
		{[]string{"status", "--data", empty, "--probe"}, 1, []string{"no spoke runs"}},
		{[]string{"status", "--bogus"}, 2, []string{"--bogus", "spoke status --help"}},
		{[]string{"status", "shop", "mail"}, 2, []string{"distribution's name", "spoke status --help"}},
		{[]string{"diff"}, 2, []string{"distribution", "spoke diff --help"}},
		{[]string{"diff", "shop", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"diff", "shop", "--data", empty, "-o", "xml"}, 2, []string{"xml", "json"}},
		{[]string{"diff", "shop", "--data", empty, "--timeout", "0s"}, 2, []string{"--timeout"}},
		{[]string{"approve", "--data", empty}, 2, []string{"distribution", "spoke approve --help"}},
		{[]string{"approve", "shop", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"reject", "shop", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"pin", "shop", "--data", empty}, 2, []string{"a version", "spoke pin --help"}},
		{[]string{"pin", "shop", "1.0.0", "--reason", "x", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"unpin", "shop", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"unpin", "--data", empty}, 2, []string{"distribution", "spoke unpin --help"}},
		{[]string{"canary", "hold", "--data", empty}, 2, []string{"distribution", "spoke canary hold --help"}},
		{[]string{"canary", "hold", "shop", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"canary", "skip", "shop", "--yes", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"canary", "abort", "shop", "1.0.0", "--data", empty}, 2, []string{"distribution's name", "spoke canary abort --help"}},
		{[]string{"canary", "abort", "shop", "--yes", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"canary", "status", "shop", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"rollback", "shop", "1.0.0", "--data", empty}, 2, []string{"--to", "spoke rollback --help"}},
		{[]string{"rollback", "shop", "--yes", "--data", empty}, 2, []string{"no spoke runs", "spoke run --data " + empty}},
		{[]string{"rollback", "shop", "--yes", "--data", empty, "--timeout", "-1s"}, 2, []string{"--timeout"}},
		{[]string{"stauts"}, 2, []string{"stauts", "spoke --help"}},
		{[]string{"join", "--data", empty}, 2, []string{"--hub", "--token", "hub cluster invite"}},
		{[]string{"join", "--data", empty, "--hub", "h:1", "--token", "x"}, 2, []string{"join token", "hub cluster invite"}},
		{[]string{"join", "--data", empty, "--hub", l.Addr().String(), "--token", tok}, 2, []string{l.Addr().String(), "can't be reached", "hub serve"}},
		{[]string{"run", "--data", empty}, 1, []string{empty, "spoke join"}},
		{[]string{"run", "--data", empty, "--log-format", "xml"}, 2, []string{"xml", "json"}},
		{[]string{"render"}, 2, []string{"distribution", "spoke render --help"}},
		{[]string{"render", "shop", "--data", empty}, 2, []string{filepath.Join(empty, "spoke.yaml"), "--config"}},
		{[]string{"render", "shop", "--data", empty, "--config", config}, 2, []string{"not heard", "spoke run"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			code, out, err := invoke(t, c.args...)
			if code != c.code || out != "" {
				t.Errorf("exit code %d, want %d; stdout %q", code, c.code, out)
			}
			for _, s := range c.says {
				if !strings.Contains(err, s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			if strings.Contains(err, "rpc error") {
				t.Errorf("not for people: %s", err)
			}
		})
	}
	if code, out, _ := invoke(t); code != 2 || !strings.Contains(out, "spoke join") {
		t.Errorf("no command: %d %s", code, out)
	}
	if code, out, _ := invoke(t, "completion", "bash"); code != 0 || !strings.Contains(out, "__start_spoke") {
		t.Errorf("completion: %d", code)
	}
	if code, out, _ := invoke(t, "version"); code != 0 || !strings.HasPrefix(out, "client: ") {
		t.Errorf("version: %d %s", code, out)
	}
}

// Law 6: what is only remembered is not called healthy.
func TestStatusOfASpokeThatDoesNotRun(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(filepath.Join(dir, journal.File), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range installations()[:1] {
		err := j.PutRecord(journal.Record{Distribution: i.Distribution, Installation: i, Previous: []journal.Release{{Version: "1.0.1"}},
			Held: map[string]journal.Hold{"1.2.0": {Reason: "it crashed", At: moment}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	desired := &syncv1.DesiredState{Revision: 1, Distributions: []*syncv1.DistributionOffers{{Distribution: "shop", Withdrawals: []*syncv1.Withdrawal{{Version: "1.1.0", Reason: "it loses orders"}}}}}
	if err := j.PutDesired(desired); err != nil {
		t.Fatal(err)
	}
	if code, out, text := invoke(t, "status", "--data", dir); code != 2 || out != "" || !strings.Contains(text, "locked") {
		t.Errorf("the journal is taken and nobody answers: %d %s%s", code, out, text)
	}
	j.Close()
	t.Setenv(dataVariable, dir)
	code, out, text := invoke(t, "status")
	if code != 1 || !strings.Contains(out, "Recalled(1.1.0)") || !strings.Contains(out, "it loses orders; spoke rollback shop goes back to 1.0.1") || !strings.Contains(out, "Unknown") || strings.Contains(out, "Healthy") || !strings.Contains(text, "spoke run --data "+dir) {
		t.Errorf("%d\n%s%s", code, out, text)
	}
	if code, out, _ := invoke(t, "status", "shop", "-o", "wide"); code != 1 || !strings.Contains(out, "1.0.1") || !strings.Contains(out, "1.2.0") {
		t.Errorf("what is remembered: %d\n%s", code, out)
	}
	if code, out, _ := invoke(t, "status", "-o", "name"); code != 1 || out != "shop\n" {
		t.Errorf("%d %q", code, out)
	}
}

func TestARunningSpokeIsAsked(t *testing.T) {
	serve(t, newStand())
	if code, out, text := invoke(t, "status"); code != 0 || text != "" || !strings.Contains(out, "Nothing needs you.") || strings.Contains(out, "\x1b") {
		t.Errorf("%d\n%s%s", code, out, text)
	}
	if code, out, text := invoke(t, "status", "--probe"); code != 0 || out+text != "" {
		t.Errorf("probe: %d %q %q", code, out, text)
	}
	if code, out, text := invoke(t, "status", "mail"); code != 2 || out != "" || !strings.Contains(text, "[shop]") {
		t.Errorf("status of another: %d %q %q", code, out, text)
	}
	if code, out, text := invoke(t, "render", "shop", "1.1.0"); code != 0 || out != "# shop 1.1.0\n" || text != "" {
		t.Errorf("render: %d %q %q", code, out, text)
	}
	if code, out, text := invoke(t, "render", "shop", "9.9.9"); code != 1 || out != "" || !strings.Contains(text, "not on offer") {
		t.Errorf("render: %d %q %q", code, out, text)
	}
	if code, _, text := invoke(t, "render", "shop", "--config", "x.yaml"); code != 0 || !strings.Contains(text, "x.yaml") {
		t.Errorf("render with a configuration: %d %q", code, text)
	}
	if code, out, _ := invoke(t, "version"); code != 0 || !strings.Contains(out, "acme/eu-1 at hub:7443") {
		t.Errorf("version: %d %q", code, out)
	}
}
