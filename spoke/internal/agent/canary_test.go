package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

// admin gives plugins the cluster's own credentials.
type admin struct{ kubeconfig string }

func (a admin) Credentials(context.Context, string) ([]byte, time.Time, error) {
	text, err := os.ReadFile(a.kubeconfig)
	return text, time.Now().Add(time.Hour), err
}

// metrics answers as Prometheus does about every candidate, in one of four ways.
type metrics struct {
	mode  atomic.Value // good, bad, missing, flapping
	asked atomic.Int64
}

func (m *metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, mode := r.FormValue("query"), m.mode.Load().(string)
	if !strings.Contains(query, "-canary-") || mode == "missing" {
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
		return
	}
	value := "99.9"
	switch {
	case strings.HasPrefix(query, "sum(increase("):
		value = "400"
	case strings.HasPrefix(query, "max(timestamp("):
		value = fmt.Sprint(time.Now().Unix())
	case mode == "bad", mode == "flapping" && m.asked.Add(1)%3 == 0:
		value = "66.7"
	}
	fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,%q]}]}}`, time.Now().Unix(), value)
}

// shop is a distribution of four workloads: backend and frontend are led step by step, cache by blue/green,
// the database is replaced.
func led(version string, extra ...string) map[string]string {
	files := fourServices(version, extra...)
	for _, name := range []string{"backend", "frontend", "cache", "database"} {
		files[name+"-deployment.yaml"] = strings.ReplaceAll(strings.ReplaceAll(files["deployment.yaml"], "backend", name), "replicas: 1", "replicas: 2")
	}
	for name, analysis := range map[string]string{"backend": "stepWeights: [20, 33, 50]", "frontend": "stepWeights: [50]", "cache": "iterations: 1"} {
		files[name+"-canary.yaml"] = strings.NewReplacer("NAME", name, "ANALYSIS", analysis).Replace(`apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: NAME}
spec:
  provider: kubernetes
  progressDeadlineSeconds: 20
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: NAME}
  service: {port: 80}
  analysis:
    interval: 300ms
    threshold: 2
    ANALYSIS
    metrics:
    - {name: request-success-rate, interval: 1m, thresholdRange: {min: 99}}
`)
	}
	for _, name := range []string{"deployment.yaml", "frontend.yaml", "cache.yaml", "database.yaml", "service.yaml", "kustomization.yaml"} {
		delete(files, name)
	}
	return kustomized(files)
}

// walking gives the stage a plugin that leads traffic, and metrics about it.
func (s *stage) walking(mode string) *metrics {
	s.t.Helper()
	m := &metrics{}
	m.mode.Store(mode)
	server := httptest.NewServer(m)
	s.t.Cleanup(server.Close)
	path, sum := leads.of(s.t, "github.com/wheelwright-dev/wheelwright/plugins/canary")
	s.plugins = append(s.plugins, pluginhost.Plugin{
		Name: "canary", Path: path, SHA256: sum, Args: []string{"--prometheus", server.URL, "--drain", "0s"}, Timeout: time.Minute, Kubeconfig: true,
		Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CANARY},
	})
	s.sub.HealthTimeout = 20 * time.Second
	s.sub.Canary = config.Canary{Evidence: 2 * time.Second}
	return m
}

// walked installs 1.0.0 and offers 1.1.0.
func (s *stage) walked() (stop func()) {
	s.t.Helper()
	s.vendor.release(s.t, "1.0.0", led("1.0.0", "old"))
	stop = s.start(nil)
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.alone("1.0.0", "old")
	s.vendor.release(s.t, "1.1.0", led("1.1.0", "new"))
	s.offer()
	return stop
}

// alone fails unless one release is on the cluster, whole, and nothing of a canary.
func (s *stage) alone(version string, extra ...string) {
	s.t.Helper()
	for _, problem := range s.mixture(version, extra...) {
		s.t.Error(problem)
	}
}

// mixture is what keeps the cluster from being on one release, with all traffic led to it.
func (s *stage) mixture(version string, extra ...string) (problems []string) {
	s.t.Helper()
	all := s.objects()
	for _, o := range all {
		if !strings.HasSuffix(o, " "+version) {
			problems = append(problems, o+" is not of "+version)
		}
	}
	if want := 5 + len(extra); len(all) != want {
		problems = append(problems, fmt.Sprintf("on the cluster are %v, want %d objects of %s", all, want, version))
	}
	out, err := s.cluster.Kubectl("-n", s.ns, "get", "deployments,services,configmaps,secrets,horizontalpodautoscalers", "-l", "wheelwright.dev/candidate-of", "-o", "name")
	if err != nil || strings.TrimSpace(out) != "" {
		problems = append(problems, fmt.Sprintf("left of the canary: %s %v", out, err))
	}
	out, err = s.cluster.Kubectl("-n", s.ns, "get", "services", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.selector.app} {.metadata.annotations.wheelwright\.dev/led}{"\n"}{end}`)
	if err != nil {
		s.t.Fatal(out, err)
	}
	names := 0
	for line := range strings.Lines(out) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		names++
		if strings.TrimSpace(rest) != name {
			problems = append(problems, fmt.Sprintf("the Service %s leads to %q", name, rest))
		}
	}
	if names != 3 {
		problems = append(problems, fmt.Sprintf("%d Services lead to what is led:\n%s", names, out))
	}
	return problems
}

// phases of 1.1.0, each once in a row.
func (s *stage) phases(version string) string {
	var all []string
	for _, m := range s.events(fleet.EventPhase) {
		if word, rest, ok := strings.Cut(m, " "+version); ok && (rest == "" || rest[0] == ':') && (len(all) == 0 || all[len(all)-1] != word) {
			all = append(all, word)
		}
	}
	return strings.Join(all, " ")
}

func TestACanaryIsPromotedAsOneApplication(t *testing.T) {
	s := newStage(t)
	noLeaks(t)
	s.walking("good")
	defer s.walked()()
	i := s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.alone("1.1.0", "new")
	if got := s.phases("1.1.0"); !strings.Contains(got, "Checking Progressing Promoting Settling") {
		t.Errorf("phases: %s", got)
	}
	if !strings.Contains(strings.Join(s.events(fleet.EventPhase), "\n"), "step 1 of ") {
		t.Errorf("the hub does not hear of the steps:\n%s", strings.Join(s.events(fleet.EventPhase), "\n"))
	}
	if i.Health != fleet.Healthy {
		t.Errorf("it is %s", i.Health)
	}
	s.undrifted()
}

// undrifted waits until what runs was looked at, and fails where drift was told: a canary is none.
func (s *stage) undrifted() {
	s.t.Helper()
	since := time.Now()
	s.cluster.Eventually(s.t, "what runs is well", func() error {
		if i := s.now(); i.Health != fleet.Healthy || i.ObservedAt.Before(since) {
			return fmt.Errorf("%s at %s", i.Health, i.ObservedAt)
		}
		return nil
	})
	if all := s.events(fleet.EventDrift); len(all) > 0 {
		s.t.Errorf("drift: %s", all)
	}
}

func TestABadCanaryTakesTheWholeApplicationBack(t *testing.T) {
	s := newStage(t)
	s.walking("bad")
	defer s.walked()()
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.alone("1.0.0", "old")
	if !strings.Contains(i.Reason, "success rate 66.7 % < 99 %") || !strings.Contains(i.Reason, "step 1 of ") {
		t.Errorf("reason: %s", i.Reason)
	}
	if got := s.phases("1.1.0"); strings.Contains(got, "Promoting") {
		t.Errorf("stable was touched: %s", got)
	}
	s.undrifted()
}

func TestWithoutEvidenceTheProviderIsAsked(t *testing.T) {
	s := newStage(t)
	m := s.walking("missing")
	defer s.walked()()
	i := s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "Inconclusive(") || !strings.Contains(i.Reason, "no traffic") || !strings.Contains(i.Reason, "spoke approve shop") {
		t.Errorf("reason: %s", i.Reason)
	}
	m.mode.Store("bad") // it is measured while it waits, and what is bad goes back
	i = s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.alone("1.0.0", "old")
	if !strings.Contains(i.Reason, "66.7 %") {
		t.Errorf("reason: %s", i.Reason)
	}
}

func TestGatesOfACanary(t *testing.T) {
	s := newStage(t)
	s.walking("good")
	s.sub.Canary = config.Canary{Traffic: true, Increase: true, Promotion: true}
	stop := s.walked()
	defer func() { stop() }()
	for n := 0; ; n++ {
		var i fleet.Installation
		s.cluster.Eventually(t, "a gate, or the end", func() error {
			if i = s.now(); i.Phase == fleet.AwaitingApproval || i.Phase == fleet.Succeeded && i.Running == "1.1.0" {
				return nil
			}
			return fmt.Errorf("%s: %s", i.Phase, i.Reason)
		})
		if i.Phase == fleet.Succeeded {
			if n != 4 { // before traffic, before the second and third step, before promotion
				t.Errorf("%d gates", n)
			}
			break
		}
		want := []string{"asks before live traffic", "step 1 of 3 passed; asks before more traffic", "step 2 of 3 passed; asks before more traffic", "all 3 steps passed; asks before promotion"}
		if n >= len(want) || !strings.HasPrefix(i.Reason, want[n]) {
			t.Fatalf("gate %d: %s", n, i.Reason)
		}
		if n == 1 {
			stop = s.restart(t, stop, func() {})
		}
		s.cluster.Eventually(t, "the approval", func() error {
			_, err := s.agent.Approve(t.Context(), "shop", "1.1.0")
			return err
		})
	}
	s.alone("1.1.0", "new")
}

func TestSteeringACanary(t *testing.T) {
	s := newStage(t)
	m := s.walking("missing")
	s.sub.Canary = config.Canary{} // it waits for evidence without an end
	defer s.walked()()
	steer := func(how fleet.Steer) error {
		_, err := s.agent.Steer(t.Context(), "shop", "", how, "a test")
		return err
	}
	at := func(reason string) {
		t.Helper()
		s.cluster.Eventually(t, reason, func() error {
			if i := s.now(); i.Phase != fleet.Progressing || !strings.Contains(i.Reason, reason) {
				return fmt.Errorf("%s: %s", i.Phase, i.Reason)
			}
			return nil
		})
	}
	at("step 1 of 3")
	at("Inconclusive(")
	if err := steer(fleet.SteerResume); !errors.Is(err, fleet.ErrNothingWaits) {
		t.Errorf("resume of what is not held: %v", err)
	}
	if err := steer(fleet.SteerHold); err != nil {
		t.Fatal(err)
	}
	m.mode.Store("good")
	at("held by a person")
	if err := steer(fleet.SteerStep); err != nil {
		t.Fatal(err)
	}
	m.mode.Store("missing")
	at("step 2 of 3")
	s.cluster.Eventually(t, "skip", func() error { return steer(fleet.SteerSkip) })
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.alone("1.1.0", "new")
	if err := steer(fleet.SteerHold); !errors.Is(err, fleet.ErrNothingWaits) {
		t.Errorf("hold of what is over: %v", err)
	}
}

func TestACanaryIsRecalled(t *testing.T) {
	s := newStage(t)
	s.walking("missing")
	s.sub.Canary = config.Canary{}
	defer s.walked()()
	s.cluster.Eventually(t, "it is measured", func() error {
		if i := s.now(); i.Phase != fleet.Progressing || !strings.Contains(i.Reason, "step 1 of 3") {
			return fmt.Errorf("%s: %s", i.Phase, i.Reason)
		}
		return nil
	})
	if _, _, err := s.agent.RollBack(t.Context(), "shop", "", "we do not like it", false); err != nil {
		t.Fatal(err)
	}
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.alone("1.0.0", "old")
	if i.Reason != "rolled back by hand: we do not like it" {
		t.Errorf("reason: %s", i.Reason)
	}
}

// What runs is looked after while candidates stand beside it, however long that is.
func TestWhatRunsIsLookedAfterBesideACanary(t *testing.T) {
	s := newStage(t)
	s.walking("missing")
	s.sub.Canary = config.Canary{} // it waits for evidence without an end
	defer s.walked()()
	s.waitsFor(fleet.Progressing, "Inconclusive(")
	led := s.get("service/backend", ".spec.selector")
	if out, err := s.cluster.Kubectl("-n", s.ns, "label", "deployment", "database", "--overwrite", "app.kubernetes.io/version=mine"); err != nil {
		t.Fatal(out, err)
	}
	if out, err := s.cluster.Kubectl("-n", s.ns, "delete", "configmap", "old"); err != nil {
		t.Fatal(out, err)
	}
	s.cluster.Eventually(t, "both are put back", func() error {
		if v, old := s.get("deployment/database", `.metadata.labels.app\.kubernetes\.io/version`), s.get("configmap/old", ".metadata.name"); v != "1.0.0" || old == "" {
			return fmt.Errorf("version %s, ConfigMap %q", v, old)
		}
		return nil
	})
	if now := s.get("service/backend", ".spec.selector"); now != led {
		t.Errorf("what leads to the candidates was taken for drift: %s, was %s", now, led)
	}
	if told := strings.Join(s.events(fleet.EventDrift), "\n"); !strings.Contains(told, "database") || strings.Contains(told, "Service") {
		t.Errorf("told of drift: %s", told)
	}
	if out, err := s.cluster.Kubectl("-n", s.ns, "patch", "deployment", "database", "--type=merge", "-p", `{"spec":{"template":{"metadata":{"annotations":{"test.wheelwright.dev/never-ready":"yes"}}},"strategy":{"rollingUpdate":{"maxUnavailable":2}}}}`); err != nil {
		t.Fatal(out, err)
	}
	s.cluster.Eventually(t, "it is told that what runs is not well", func() error {
		if all := s.events(fleet.EventHealth); len(all) == 0 || strings.Contains(all[len(all)-1], "Healthy") {
			return fmt.Errorf("%q", all)
		}
		return nil
	})
	if i := s.now(); i.Phase != fleet.Progressing || i.Running != "1.0.0" {
		t.Errorf("it is %s with %s running", i.Phase, i.Running)
	}
}
