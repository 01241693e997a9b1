package agent_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// binary is a program that is made once for all tests.
type binary struct {
	sync.Once
	dir, sum string
	err      error
}

// built is the plugin in testdata, leads the one that leads traffic, proves the one that runs tests.
var built, leads, proves binary

func (b *binary) of(t *testing.T, pkg string) (path, sum string) {
	t.Helper()
	b.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "agent-"); b.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", filepath.Join(b.dir, "plugin"), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("%w\n%s", err, out)
			return
		}
		var text []byte
		text, b.err = os.ReadFile(filepath.Join(b.dir, "plugin"))
		b.sum = fmt.Sprintf("%x", sha256.Sum256(text))
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return filepath.Join(b.dir, "plugin"), b.sum
}

func example(t *testing.T) (path, sum string) {
	t.Helper()
	return built.of(t, "./testdata/plugin")
}

// proven gives the stage a plugin that proves releases and hears of them.
func (s *stage) proven(mode string) {
	s.t.Helper()
	path, sum := example(s.t)
	s.plugins = []pluginhost.Plugin{{
		Name: "smoke", Path: path, SHA256: sum, Args: []string{s.dir}, Timeout: 30 * time.Second,
		Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CONFORMANCE, pluginv1.Kind_KIND_NOTIFIER},
	}}
	s.mode(mode)
}

func (s *stage) mode(mode string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "mode"), []byte(mode), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// noted is what the plugin wrote down.
func (s *stage) noted(name string) []string {
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func (s *stage) hears(want string) {
	s.t.Helper()
	s.cluster.Eventually(s.t, "the notifier hears "+want, func() error {
		if all := strings.Join(s.noted("events"), "\n"); !strings.Contains(all, want) {
			return fmt.Errorf("it heard\n%s", all)
		}
		return nil
	})
}

// fourServices is a distribution of four workloads, a Service and a Secret.
func fourServices(version string, extra ...string) map[string]string {
	files := with(app(version, good, extra...), map[string]string{
		"service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: backend}\nspec: {selector: {app: backend}, ports: [{port: 80}]}\n",
		"secret.yaml":  "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {name: visitor}\ndata: {password: aHVudGVyMi10aGUtcGFzc3dvcmQ=}\n",
	})
	for _, name := range []string{"frontend", "cache", "database"} {
		files[name+".yaml"] = strings.ReplaceAll(files["deployment.yaml"], "backend", name)
	}
	delete(files, "kustomization.yaml")
	return kustomized(files)
}

// mustBeAll fails unless each of the four services and everything beside is of one release.
func (s *stage) mustBeAll(version string, extra ...string) {
	s.t.Helper()
	want := 5 + len(extra)
	got := s.objects()
	for _, o := range got {
		if !strings.HasSuffix(o, " "+version) {
			s.t.Errorf("%s is not of %s", o, version)
		}
	}
	if len(got) != want {
		s.t.Errorf("on the cluster are %v, want %d objects of %s", got, want, version)
	}
}

// firstOf installs 1.0.0 with a plugin that is in a mode for all that follows.
func (s *stage) firstOf(mode string) (stop func()) {
	s.t.Helper()
	s.proven(mode)
	s.vendor.release(s.t, "1.0.0", fourServices("1.0.0", "old"))
	stop = s.start(nil)
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	return stop
}

func (s *stage) second() {
	s.t.Helper()
	s.vendor.release(s.t, "1.1.0", fourServices("1.1.0", "new"))
	s.offer()
}

func TestAReleaseIsProvenBeforeItSucceeds(t *testing.T) {
	s := newStage(t)
	noLeaks(t)
	defer s.firstOf("pass")()
	s.second()
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeAll("1.1.0", "new")
	runs := s.noted("runs")
	for i, from := range []string{"", "1.0.0"} {
		want := fmt.Sprintf("MOMENT_AFTER_PROMOTION shop from %q to 1.%d.0 in %s on acme/eu-1: backend,cache,database,frontend; has a secret: true, its value: false; call ", from, i, s.ns)
		if len(runs) != 2 || !strings.HasPrefix(runs[i], want) {
			t.Errorf("the plugin was asked\n%s\nwant\n%s", strings.Join(runs, "\n"), want)
		}
	}
	var phases []string
	for _, m := range s.events(fleet.EventPhase) {
		if word, rest, _ := strings.Cut(m, " 1.1.0"); !strings.HasPrefix(rest, ":") {
			phases = append(phases, word)
		}
	}
	if got := strings.Join(phases, " "); !strings.Contains(got, "Promoting Settling Testing") {
		t.Errorf("phases: %s", got)
	}
	if got := strings.Join(s.events(fleet.EventAgent), "\n"); !strings.Contains(got, "tests of 1.1.0: home passed") || !strings.Contains(got, "cart passed") {
		t.Errorf("the hub is not told of the tests:\n%s", got)
	}
	s.hears(`Succeeded SEVERITY_INFO from "" to 1.0.0 of ` + url + `, terminal true, OUTCOME_PASS: 1.0.0 runs, 8 objects; commit 40`)
	s.hears(`Succeeded SEVERITY_INFO from "1.0.0" to 1.1.0 of`)
}

func TestAFailedTestTakesEveryServiceBack(t *testing.T) {
	s := newStage(t)
	defer s.firstOf("fail")()
	if err := os.WriteFile(filepath.Join(s.dir, "deaf"), []byte("3"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.second()
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.mustBeAll("1.0.0", "old")
	if i.Reason != "tests of smoke: cart: 401 for …" {
		t.Errorf("reason: %s", i.Reason)
	}
	for _, kind := range []fleet.EventKind{fleet.EventPhase, fleet.EventAgent} {
		if all := strings.Join(s.events(kind), "\n"); strings.Contains(all, "hunter2") || strings.Contains(all, "own words") {
			t.Errorf("law 10: a secret or a test's log leaves the cluster:\n%s", all)
		}
	}
	if !strings.Contains(s.log.String(), "the test's own words") {
		t.Error("the spoke's log does not have the test's")
	}
	s.hears(`RolledBack SEVERITY_WARNING from "1.0.0" to 1.1.0`) // at the fourth try
	if n := len(s.noted("runs")); n != 2 {
		t.Errorf("%d runs", n)
	}
	s.offer()
	s.mode("pass")
	s.vendor.release(t, "1.1.1", fourServices("1.1.1"))
	s.offer()
	s.reaches(fleet.Succeeded, "1.1.1", "1.1.1")
	s.mustBeAll("1.1.1")
}

// asked waits until the provider is asked about what is on the cluster.
func (s *stage) asked(why string) {
	s.t.Helper()
	i := s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	if !strings.HasPrefix(i.Reason, "Inconclusive("+why) || !strings.Contains(i.Reason, "spoke approve shop 1.1.0") {
		s.t.Errorf("reason: %s, want %s", i.Reason, why)
	}
	if got := strings.Join(s.objects(), "\n"); !strings.Contains(got, "ConfigMap/old 1.0.0") || !strings.Contains(got, "Deployment/cache 1.1.0") {
		s.t.Errorf("on the cluster are\n%s\nwant 1.1.0, and nothing pruned", got)
	}
}

func TestWithoutAVerdictTheProviderIsAsked(t *testing.T) {
	s := newStage(t)
	stop := s.firstOf("none")
	defer func() { stop() }()
	s.second()
	s.asked("no test ran); it is on the cluster")
	s.hears(`AwaitingApproval SEVERITY_WARNING from "1.0.0" to 1.1.0`)
	stop = s.restart(t, stop, func() {})
	s.vendor.release(t, "1.2.0", fourServices("1.2.0"))
	s.offer() // nothing else is begun before there is an answer
	s.asked("no test ran)")
	s.cluster.Eventually(t, "the approval to be taken", func() error {
		_, err := s.agent.Approve(t.Context(), "shop", "1.1.0")
		return err
	})
	s.cluster.Eventually(t, "1.1.0 succeeds and 1.2.0 is asked about", func() error {
		if i := s.now(); i.Running != "1.1.0" || i.Target != "1.2.0" || i.Phase != fleet.AwaitingApproval {
			return fmt.Errorf("%s of %s, %s runs", i.Phase, i.Target, i.Running)
		}
		return nil
	})
	if rejected, err := s.agent.Reject(t.Context(), "shop", "", "not without tests"); err != nil || rejected != "1.2.0" {
		t.Fatal(rejected, err)
	}
	i := s.reaches(fleet.RolledBack, "1.2.0", "1.1.0")
	s.mustBeAll("1.1.0", "new")
	if i.Reason != "rejected by its provider: not without tests" {
		t.Errorf("reason: %s", i.Reason)
	}
}

func TestTheHubsAnswerCountsForTests(t *testing.T) {
	s := newStage(t)
	s.sub.FromHub.Decisions = true
	defer s.firstOf("unsure")()
	s.second()
	s.asked("smoke: cart: no traffic)")
	s.hear(func(d *syncv1.DistributionOffers) {
		d.Decisions = append(d.Decisions, &syncv1.HubDecision{Version: "1.1.0", Approved: true, Author: "ines", At: timestamppb.New(time.Now().Add(time.Second))})
	})
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeAll("1.1.0", "new")
}

func TestPluginsThatHangOrCrashDecideNothing(t *testing.T) {
	for _, c := range []struct{ mode, why string }{{"hang", "plugin smoke did not answer Run within 1"}, {"crash", "plugin smoke ended during Run: exit status 7"}} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			stop := s.firstOf(c.mode)
			defer func() { stop() }()
			stop = s.restart(t, stop, func() { s.plugins[0].Timeout, s.sub.ApprovalTimeout = time.Second, 3*time.Second })
			s.second()
			s.asked(c.why)
			i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0") // nobody answers
			s.mustBeAll("1.0.0", "old")
			if !strings.Contains(i.Reason, "(no answer after 3s)") {
				t.Errorf("reason: %s", i.Reason)
			}
		})
	}
}

func TestTestsAreRunAgain(t *testing.T) {
	t.Run("after one crash", func(t *testing.T) {
		s := newStage(t)
		defer s.firstOf("crash-once")()
		s.second()
		s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	})
	t.Run("until there is a verdict", func(t *testing.T) {
		s := newStage(t)
		s.sub.Tests.Retry, s.sub.Tests.Timeout = true, time.Minute
		defer s.firstOf("unsure")()
		s.second()
		s.cluster.Eventually(t, "three tries", func() error {
			if n := len(s.noted("runs")); n < 4 {
				return fmt.Errorf("%d runs", n)
			}
			return nil
		})
		s.mode("pass")
		s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	})
	t.Run("until the time is up", func(t *testing.T) {
		s := newStage(t)
		s.sub.Tests.Retry, s.sub.Tests.Timeout = true, 3*time.Second
		defer s.firstOf("unsure")()
		s.second()
		s.asked("smoke: ")
	})
	t.Run("after a restart", func(t *testing.T) {
		s := newStage(t)
		stop := s.firstOf("slow")
		defer func() { stop() }()
		s.second()
		s.testing(2)
		stop = s.restart(t, stop, func() {})
		s.testing(3)
		s.mode("pass")
		s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
		var calls []string
		for _, r := range s.noted("runs") {
			if _, id, ok := strings.Cut(r, "; call "); ok {
				calls = append(calls, id)
			}
		}
		if len(calls) != 3 || calls[1] != calls[2] || calls[0] == calls[1] {
			t.Errorf("the repeat of a call has the same id, another call another: %v", calls)
		}
	})
}

// testing waits until the plugin has begun so many runs, and the worker waits for the last.
func (s *stage) testing(runs int) {
	s.t.Helper()
	s.cluster.Eventually(s.t, "it tests", func() error {
		n := 0
		for _, r := range s.noted("runs") {
			if r != "cancelled" {
				n++
			}
		}
		if i := s.now(); i.Phase != fleet.Testing || n != runs {
			return fmt.Errorf("%s, %d runs", i.Phase, n)
		}
		return nil
	})
}

func TestTestingIsInterrupted(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		do           func(*testing.T, *stage)
	}{
		{"by a person", "rolled back by hand: no", func(t *testing.T, s *stage) {
			if _, to, err := s.agent.RollBack(t.Context(), "shop", "", "no", false); err != nil || to != "1.0.0" {
				t.Fatal(to, err)
			}
		}},
		{"by a recall", "recalled by the vendor", func(_ *testing.T, s *stage) { s.hear(recalled("1.1.0", "")) }},
		{"by ill health", "cache", func(t *testing.T, s *stage) {
			if out, err := s.cluster.Kubectl("-n", s.ns, "set", "image", "deployment/cache", "app="+bad); err != nil {
				t.Fatal(out, err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			defer s.firstOf("slow")()
			s.second()
			s.testing(2)
			s.cluster.Eventually(t, "the reason says how it gets on", func() error {
				if i := s.now(); i.Reason != "1 of 2: home passed" {
					return errors.New(i.Reason)
				}
				return nil
			})
			c.do(t, s)
			i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
			s.mustBeAll("1.0.0", "old")
			if !strings.Contains(i.Reason, c.reason) {
				t.Errorf("reason: %s", i.Reason)
			}
			s.cluster.Eventually(t, "the tests end too", func() error {
				if runs := s.noted("runs"); runs[len(runs)-1] != "cancelled" {
					return errors.New(runs[len(runs)-1])
				}
				return nil
			})
		})
	}
}

func TestAFirstInstallThatFailsItsTestsStaysAndIsHeld(t *testing.T) {
	s := newStage(t)
	s.proven("fail")
	s.vendor.release(t, "1.0.1", fourServices("1.0.1"))
	stop := s.start(nil)
	defer func() { stop() }()
	s.offer()
	s.reaches(fleet.RollbackFailed, "1.0.1", "")
	stop = s.restart(t, stop, func() {})
	for range 3 { // it is healthy, and that changes nothing
		s.cluster.Eventually(t, "its health is looked at", func() error {
			if i := s.now(); i.Health != fleet.Healthy || time.Since(i.ObservedAt) > s.every.Health {
				return fmt.Errorf("%s %s", i.Health, i.ObservedAt)
			}
			return nil
		})
	}
	s.reaches(fleet.RollbackFailed, "1.0.1", "")
	s.mustBeAll("1.0.1")
	s.mode("pass")
	if _, err := s.agent.Approve(t.Context(), "shop", "1.0.1"); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Succeeded, "1.0.1", "1.0.1")
}

// A plugin that is not there as spoke.yaml says keeps releases waiting, and neither spoke nor what runs.
func TestAPluginThatIsNotThereWaitsForItsProvider(t *testing.T) {
	s := newStage(t)
	s.proven("pass")
	path := s.plugins[0].Path
	s.plugins[0].Path = filepath.Join(t.TempDir(), "smoke")
	s.vendor.release(t, "1.0.0", fourServices("1.0.0"))
	defer s.start(nil)()
	s.offer()
	says := func(want string) {
		t.Helper()
		s.cluster.Eventually(t, "AwaitingConfig: "+want, func() error {
			if i := s.now(); i.Phase != fleet.AwaitingConfig || !strings.Contains(i.Reason, want) {
				return fmt.Errorf("%s: %s", i.Phase, i.Reason)
			}
			return nil
		})
	}
	says("no such file or directory; set its path under `plugins`")
	if err := os.WriteFile(s.plugins[0].Path, []byte("another"), 0o700); err != nil {
		t.Fatal(err)
	}
	says("it is not run; where the file is the one that you want, put what `sha256sum " + s.plugins[0].Path + "` prints under its sha256")
	mended := s.plugins[0]
	mended.Path = path
	if err := s.host.Use([]pluginhost.Plugin{mended}); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	if n := len(s.noted("runs")); n != 1 {
		t.Errorf("%d runs", n)
	}
}
