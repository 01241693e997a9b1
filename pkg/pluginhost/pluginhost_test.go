//go:build linux

package pluginhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// built is the plugin that these tests run; see pkg/plugintest/testdata/plugin.
var built struct{ path, sum string }

func TestMain(m *testing.M) {
	ChildMain()
	if doomed() {
		return
	}
	if text, ok := os.LookupEnv(nobodyVariable); ok {
		built.path, built.sum, _ = strings.Cut(text, "|")
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "pluginhost-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		built.path = filepath.Join(dir, "example")
		build := exec.Command("go", "build", "-o", built.path, "../plugintest/testdata/plugin")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
		if built.sum, err = sumOf(built.path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

func sumOf(path string) (string, error) {
	text, err := os.ReadFile(path)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

// lines is a log that a test can look into while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) await(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(l.String(), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log has no %q:\n%s", want, l)
		}
	}
}

func example(mode, mark string) Plugin {
	return Plugin{
		Name: "example", Path: built.path, SHA256: built.sum, Args: []string{mode, mark}, Timeout: 5 * time.Second,
		Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CONFORMANCE, pluginv1.Kind_KIND_CANARY, pluginv1.Kind_KIND_NOTIFIER},
	}
}

func host(t testing.TB, cfg Config) (*Host, *lines) {
	t.Helper()
	log := &lines{}
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "plugins")
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h, log
}

func notify(ctx context.Context, h *Host) (*pluginv1.NotifyResponse, error) {
	n, err := h.Notifier("example")
	if err != nil {
		return nil, err
	}
	return n.Notify(ctx, &pluginv1.NotifyRequest{Call: &pluginv1.Call{Id: "1"}, Event: &pluginv1.Event{Id: "e1"}})
}

var subject = &pluginv1.Subject{
	Distribution: "shop", VersionFrom: "1.0.0", VersionTo: "1.1.0", Namespace: "shop", Cluster: "acme/eu-1",
	Services: []*pluginv1.Service{{Name: "backend", Strategy: pluginv1.Strategy_STRATEGY_PROGRESSIVE, Stable: []byte("kind: Deployment\n"), Candidate: []byte("kind: Deployment\n")}},
}

func TestCalls(t *testing.T) {
	h, log := host(t, Config{Plugins: []Plugin{example("good", "")}, Version: "1.2.3"})
	ctx := t.Context()
	if got := h.Named(pluginv1.Kind_KIND_CANARY); len(got) != 1 || got[0] != "example" {
		t.Errorf("got %q", got)
	}
	hello, err := h.Describe(ctx, "example")
	if err != nil || hello.GetName() != "example" || hello.GetContract() != "1.0" || len(hello.GetKinds()) != 3 {
		t.Fatalf("got %v, %v", hello, err)
	}
	if err := h.CheckHealth(ctx, "example"); err != nil {
		t.Error(err)
	}
	tests, err := h.Conformance("example")
	if err != nil {
		t.Fatal(err)
	}
	var told []pluginv1.TestState
	report, err := tests.Run(ctx, &pluginv1.RunRequest{Call: &pluginv1.Call{Id: "1"}, Subject: subject, Moment: pluginv1.Moment_MOMENT_BEFORE_TRAFFIC},
		func(p *pluginv1.Progress) { told = append(told, p.GetState()) })
	if err != nil || report.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_PASS || len(told) != 2 || told[1] != pluginv1.TestState_TEST_STATE_PASSED {
		t.Errorf("got %v, %v, %v", report, told, err)
	}
	c, err := h.Canary("example")
	if err != nil {
		t.Fatal(err)
	}
	call := &pluginv1.Call{Id: "2"}
	planned, err := c.Plan(ctx, &pluginv1.PlanRequest{Call: call, Subject: subject})
	if err != nil || len(planned.GetCourse().GetSteps()) != 1 {
		t.Fatalf("got %v, %v", planned, err)
	}
	if call.GetDeadline() != nil {
		t.Error("the caller's message was changed")
	}
	step := planned.GetCourse().GetSteps()[0]
	if s, err := c.Step(ctx, &pluginv1.StepRequest{Call: call, Subject: subject, Course: planned.GetCourse(), Step: step}); err != nil || !s.GetSettled() {
		t.Errorf("got %v, %v", s, err)
	}
	if m, err := c.Measure(ctx, &pluginv1.MeasureRequest{Call: call, Subject: subject, Step: step}); err != nil || m.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE {
		t.Errorf("got %v, %v", m, err)
	}
	if p, err := c.Promote(ctx, &pluginv1.PromoteRequest{Call: call, Subject: subject}); err != nil || !p.GetSettled() {
		t.Errorf("got %v, %v", p, err)
	}
	if a, err := c.Abort(ctx, &pluginv1.AbortRequest{Call: call, Subject: subject}); err != nil || !a.GetSettled() {
		t.Errorf("got %v, %v", a, err)
	}
	if _, err := c.Abort(ctx, &pluginv1.AbortRequest{Subject: subject}); err == nil || !strings.Contains(err.Error(), "has no id") {
		t.Errorf("got %v", err)
	}
	if _, err := h.Canary("other"); !errors.Is(err, ErrNoPlugin) {
		t.Errorf("got %v", err)
	}
	t.Log("isolation:", h.named("example").proc.below.Isolation)
	if n := strings.Count(log.String(), "plugin started"); n != 1 {
		t.Errorf("%d processes were started:\n%s", n, log)
	}
}

func TestEnvironmentIsExplicit(t *testing.T) {
	t.Setenv("SECRET_OF_THE_SPOKE", "x")
	p := example("environment", "")
	p.Env = []string{"PATH=/nowhere", "GREETING=hello world"}
	h, _ := host(t, Config{Plugins: []Plugin{p}})
	c, _ := h.Conformance("example")
	got, err := c.Describe(t.Context(), &pluginv1.DescribeConformanceRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range got.GetWarnings() {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	want := "PATH GREETING WHEELWRIGHT_PLUGIN PLUGIN_PROTOCOL_VERSIONS PLUGIN_CLIENT_CERT PLUGIN_UNIX_SOCKET_DIR TMPDIR WHEELWRIGHT_PLUGIN_FOLDER"
	if s := strings.Join(names, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestOnlyTheHashedBytesRun(t *testing.T) {
	dir := t.TempDir()
	p := example("good", "")
	p.Path = filepath.Join(dir, "plugin")
	copyFile(t, built.path, p.Path)

	t.Run("wrong sum", func(t *testing.T) {
		p := p
		p.SHA256 = strings.Repeat("0", 64)
		h, _ := host(t, Config{Plugins: []Plugin{p}})
		_, err := notify(t.Context(), h)
		var wrong *ErrChecksum
		if !errors.As(err, &wrong) || wrong.Got != built.sum || !strings.Contains(err.Error(), "sha256sum "+p.Path) || !strings.Contains(err.Error(), p.SHA256) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("swapped after it was hashed", func(t *testing.T) {
		e, err := load(p, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if err := os.WriteFile(p.Path+".new", []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(p.Path+".new", p.Path); err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, io.NewSectionReader(e, 0, 1<<40)); err != nil || hex.EncodeToString(sum.Sum(nil)) != built.sum {
			t.Errorf("what is executed is not what was hashed: %v", err)
		}
		if _, err := e.WriteAt([]byte("x"), 0); err == nil {
			t.Error("what is executed can still be changed")
		}
		h, _ := host(t, Config{Plugins: []Plugin{p}})
		var wrong *ErrChecksum
		if _, err := notify(t.Context(), h); !errors.As(err, &wrong) {
			t.Errorf("after the swap: %v", err)
		}
	})
	t.Run("replaced while it runs", func(t *testing.T) {
		copyFile(t, built.path, p.Path)
		h, _ := host(t, Config{Plugins: []Plugin{p}})
		if _, err := notify(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		copyFile(t, "/dev/null", p.Path) // no "text file busy": what runs is another file
		if _, err := notify(t.Context(), h); err != nil {
			t.Error(err)
		}
	})
	t.Run("in a folder", func(t *testing.T) { // where the kernel does not execute from memory
		copied, err := inFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		source, err := os.Open(built.path)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		e, err := fill(copied, source, p)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if _, err := e.WriteAt([]byte("x"), 0); err == nil {
			t.Error("what is executed can still be changed")
		}
	})
	for name, path := range map[string]string{"is not there": filepath.Join(dir, "none"), "is a folder": dir, "not executable": plain(t, dir)} {
		t.Run(name, func(t *testing.T) {
			p := p
			p.Path = path
			h, _ := host(t, Config{Plugins: []Plugin{p}})
			if _, err := notify(t.Context(), h); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func plain(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "plain")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestLogsComeOut(t *testing.T) {
	h, log := host(t, Config{Plugins: []Plugin{example("log", "")}})
	if _, err := notify(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	log.await(t, "on standard output")
	log.await(t, "on standard error")
	for _, want := range []string{"level=INFO", "plugin=example", "stream=stdout", "level=ERROR", `fields.why="a \\u001b[31mred\\u001b[0m line"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
}

func TestVerdictsAreThreeState(t *testing.T) {
	for mode, want := range map[string]string{"no-verdict": "gave no verdict", "wrong-verdict": "says pass, with 1 failed"} {
		h, _ := host(t, Config{Plugins: []Plugin{example(mode, "")}})
		c, _ := h.Conformance("example")
		r, err := c.Run(t.Context(), &pluginv1.RunRequest{Call: &pluginv1.Call{Id: "1"}, Subject: subject}, nil)
		if err != nil || r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE || !strings.Contains(r.GetVerdict().GetReason(), want) {
			t.Errorf("%s: got %v, %v", mode, r, err)
		}
	}
	h, _ := host(t, Config{Plugins: []Plugin{example("guess", "")}})
	c, _ := h.Canary("example")
	m, err := c.Measure(t.Context(), &pluginv1.MeasureRequest{Call: &pluginv1.Call{Id: "1"}, Subject: subject})
	if err != nil || m.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE || m.GetVerdict().GetReason() != "success rate has no value" {
		t.Errorf("a guess: got %v, %v", m, err)
	}
	small := settled(&pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_PASS, Sample: 3, MinimumSample: 10})
	if small.GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE || small.GetReason() != "3 of at least 10 samples" {
		t.Errorf("got %v", small)
	}
}

// ticket is a kubeconfig of a short life.
type ticket struct {
	mu   sync.Mutex
	n    int
	fail error
}

func (k *ticket) Credentials(_ context.Context, plugin string) ([]byte, time.Time, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return nil, time.Time{}, k.fail
	}
	k.n++
	return []byte(fmt.Sprintf("ticket %d of %s", k.n, plugin)), time.Now().Add(400 * time.Millisecond), nil
}

// Before a first install there is no namespace for a plugin's account: it does without until there is one.
func TestCredentialsThatCannotBeYet(t *testing.T) {
	p := example("kubeconfig", "")
	p.Kubeconfig = true
	issuer := &ticket{fail: fmt.Errorf("namespace shop: %w", ErrNotYet)}
	h, _ := host(t, Config{Dir: filepath.Join(t.TempDir(), "plugins"), Plugins: []Plugin{p}, Credentials: issuer})
	c, _ := h.Conformance("example")
	read := func() (string, error) {
		d, err := c.Describe(t.Context(), &pluginv1.DescribeConformanceRequest{})
		return strings.Join(d.GetWarnings(), " "), err
	}
	if got, err := read(); err != nil || strings.Contains(got, "ticket") {
		t.Fatalf("got %q, %v", got, err)
	}
	issuer.mu.Lock()
	issuer.fail = nil
	issuer.mu.Unlock()
	if got, err := read(); err != nil || !strings.HasPrefix(got, "ticket 1 of example") {
		t.Errorf("the next call finds %q, %v", got, err)
	}
	issuer.mu.Lock()
	issuer.fail = errors.New("forbidden")
	issuer.mu.Unlock()
	if _, err := read(); err != nil {
		t.Errorf("what there is is good for as long as it lives: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	p := example("kubeconfig", "")
	p.Kubeconfig = true
	issuer := &ticket{}
	dir := filepath.Join(t.TempDir(), "plugins")
	h, _ := host(t, Config{Dir: dir, Plugins: []Plugin{p}, Credentials: issuer})
	c, _ := h.Conformance("example")
	read := func() string {
		d, err := c.Describe(t.Context(), &pluginv1.DescribeConformanceRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(d.GetWarnings(), " ")
	}
	if got := read(); got != "ticket 1 of example <nil>" {
		t.Errorf("got %q", got)
	}
	files, err := filepath.Glob(dir + "/*/kubeconfig")
	if err != nil || len(files) != 1 {
		t.Fatalf("got %v, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	for end := time.Now().Add(30 * time.Second); read() == "ticket 1 of example <nil>"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the credentials are never renewed")
		}
	}
	h.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	issuer.fail = errors.New("forbidden")
	h, _ = host(t, Config{Plugins: []Plugin{p}, Credentials: issuer})
	if _, err := notify(t.Context(), h); err == nil || !strings.Contains(err.Error(), "make its credentials for the cluster: forbidden") {
		t.Errorf("got %v", err)
	}
	if _, err := New(Config{Dir: t.TempDir(), Plugins: []Plugin{p}}); err == nil {
		t.Error("credentials that nobody makes were granted")
	}
}

// BenchmarkCall is a call with the manifests of a small application, through TLS and the process's socket.
func BenchmarkCall(b *testing.B) {
	h, _ := host(b, Config{Plugins: []Plugin{example("good", "")}})
	c, err := h.Canary("example")
	if err != nil {
		b.Fatal(err)
	}
	manifest := bytes.Repeat([]byte("kind: Deployment\n"), 600)
	request := &pluginv1.StepRequest{Call: &pluginv1.Call{Id: "1"}, Step: &pluginv1.CanaryStep{Number: 1}, Subject: &pluginv1.Subject{
		Services: []*pluginv1.Service{{Name: "backend", Stable: manifest, Candidate: manifest}}}}
	if _, err := c.Step(b.Context(), request); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, err := c.Step(b.Context(), request); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	median := took[len(took)/2]
	fmt.Printf("FIGURE plugin.call-median %d us p99 %d us, %d calls with 20 KB of manifests\n", median.Microseconds(), took[len(took)*99/100].Microseconds(), len(took))
	if median > time.Millisecond {
		b.Errorf("the median is %s", median)
	}
}
