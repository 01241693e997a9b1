package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// troupe is a stage on which a real controller leads. Its Prometheus is a stand-in of the test: it answers
// how many errors a workload makes, by what the test decided.
type troupe struct {
	*stage
	cluster *harness.Cluster
	yields  []*pluginv1.Yield
	subject *pluginv1.Subject
	course  *pluginv1.Course
	since   *timestamppb.Timestamp

	mu      sync.Mutex
	bad     string         // the workload that makes errors
	queries map[string]int // how often each was asked for
}

func newTroupe(t *testing.T, leader string) *troupe {
	t.Helper()
	if testing.Short() || os.Getenv("WHEELWRIGHT_E2E") != "1" {
		t.Skip("runs Flagger's and Argo Rollouts' own controllers, whose builds take minutes: set WHEELWRIGHT_E2E=1")
	}
	c := harness.Shared(t, 2)[1] // the first one has no definitions of theirs
	rollouts, err := controlplane.RolloutsCRD(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl("apply", "--server-side", "-f", rollouts); err != nil {
		t.Fatal(err)
	}
	c.Eventually(t, "Argo Rollouts' definitions", func() error {
		_, err := c.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/rollouts.argoproj.io", "crd/analysisruns.argoproj.io", "crd/analysistemplates.argoproj.io")
		return err
	})
	c.Eventually(t, "Flagger's definitions", func() error { return c.InstallFlaggerCRD(t.Context()) })
	tr := &troupe{stage: stageOn(t, strategy.RouterNone, c), cluster: c, queries: map[string]int{}}
	tr.canary.settings.handOver = leader
	tr.wire.real = scoped(t, tr.stage, c) // what README.md asks for is enough
	return tr
}

// prometheus is the stand-in.
func (tr *troupe) prometheus() string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.FormValue("query")
		tr.mu.Lock()
		value := "0"
		if query != "" && tr.bad != "" && strings.Contains(query, `"`+tr.bad+`"`) {
			value = "100"
		}
		tr.queries[query]++
		tr.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,%q]}]}}`, time.Now().Unix(), value)
	}))
	tr.Cleanup(server.Close)
	return server.URL
}

func (tr *troupe) spoil(workload string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.bad = workload
}

// measured counts what was asked of the stand-in about workloads.
func (tr *troupe) measured() (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for query, times := range tr.queries {
		if strings.Contains(query, "errors") {
			n += times
		}
	}
	return n
}

// run starts a controller for as long as the test runs.
func (tr *troupe) run(program string, args ...string) {
	tr.Helper()
	bin, err := controlplane.Binaries(tr.Context(), os.Stderr, program)
	if err != nil {
		tr.Fatal(err)
	}
	path := filepath.Join(tr.TempDir(), program+".log")
	log, err := os.Create(path)
	if err != nil {
		tr.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin.Path(program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		tr.Fatal(err)
	}
	tr.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if text, err := os.ReadFile(path); err == nil && tr.Failed() {
			tr.Logf("the end of %s's log:\n%s", program, text[max(0, len(text)-6000):])
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// release applies objects as a spoke does under hand-over: what is yielded is declared once.
func (tr *troupe) release(objects []strategy.Object) {
	tr.Helper()
	var sent []strategy.Object
	for _, o := range objects {
		o = document.Clone(o)
		id := document.Text(o, "kind") + " " + tr.namespace + "/" + document.Text(o, "metadata", "name")
		for _, y := range tr.yields {
			for _, field := range y.GetFields() {
				keys := strings.Split(field, ".")
				if y.GetObject() == id && tr.subject.GetVersionFrom() != "" {
					delete(document.Mapping(o, keys[:len(keys)-1]...), keys[len(keys)-1])
				}
			}
		}
		sent = append(sent, o)
	}
	if err := tr.cluster.Apply(string(stream(tr.T, sent))); err != nil {
		tr.Fatal(err)
	}
	tr.since = timestamppb.Now()
}

// plan tells the troupe of the next release.
func (tr *troupe) plan(from, to string, stable, next []strategy.Object) *pluginv1.PlanResponse {
	tr.Helper()
	tr.subject = handedSubject(tr.T, from, to, stable, next, tr.namespace)
	plan, err := tr.canary.Plan(tr.Context(), &pluginv1.PlanRequest{Call: aCall(), Subject: tr.subject})
	if err != nil || len(plan.GetProblems()) > 0 || !plan.GetCourse().GetFollows() || len(plan.GetCourse().GetSteps()) > 0 || len(plan.GetConsumed()) > 0 {
		tr.Fatalf("the plan is %v, %v", plan, err)
	}
	tr.course, tr.yields = plan.GetCourse(), plan.GetYields()
	return plan
}

// handedSubject cuts releases as a spoke does: a service for each workload.
func handedSubject(t *testing.T, from, to string, stable, next []strategy.Object, namespace string) *pluginv1.Subject {
	t.Helper()
	out := &pluginv1.Subject{Distribution: "app", VersionFrom: from, VersionTo: to, Namespace: namespace, Cluster: "acme/eu-1"}
	rest := slices.Clone(next)
	for _, name := range []string{"web", "api"} {
		own := func(o strategy.Object) bool { return strings.HasPrefix(document.Text(o, "metadata", "name"), name) }
		declared := func(o strategy.Object) bool { return own(o) && isCanary(o) }
		part := func(o strategy.Object) bool { return own(o) && !isCanary(o) }
		out.Services = append(out.Services, &pluginv1.Service{Name: name, Declared: stream(t, filter(next, declared)), Stable: stream(t, filter(stable, part)), Candidate: stream(t, filter(next, part))})
		rest = filter(rest, func(o strategy.Object) bool { return !own(o) })
	}
	out.Objects = stream(t, rest)
	return out
}

// follow asks until there is a verdict that is none of waiting. see, where given, looks at every answer.
func (tr *troupe) follow(see func(*pluginv1.FollowResponse)) *pluginv1.FollowResponse {
	tr.Helper()
	said := ""
	for until := time.Now().Add(5 * time.Minute); ; {
		r, err := tr.ask()
		if err != nil {
			tr.Fatal(err)
		}
		if now := fmt.Sprint(r.GetServices()) + r.GetWaitingFor(); now != said {
			said = now
			tr.Logf("%.0f s: %v", time.Since(tr.since.AsTime()).Seconds(), r)
		}
		if see != nil {
			see(r)
		}
		switch r.GetVerdict().GetOutcome() {
		case pluginv1.Outcome_OUTCOME_PASS, pluginv1.Outcome_OUTCOME_FAIL:
			return r
		}
		if time.Now().After(until) || !sleep(tr.Context(), 500*time.Millisecond) {
			tr.Fatalf("no verdict: %v", r)
		}
	}
}

func (tr *troupe) ask() (*pluginv1.FollowResponse, error) {
	return tr.canary.Follow(tr.Context(), &pluginv1.FollowRequest{Call: aCall(), Subject: tr.subject, Course: tr.course, Since: tr.since})
}

// killed cuts Follow off after each of its requests: the next answer, another process's, is the same.
func (tr *troupe) killed(want *pluginv1.FollowResponse) {
	tr.Helper()
	for after := 1; ; after++ {
		requests, _ := tr.cutting(after, func(ctx context.Context) error {
			_, err := tr.canary.Follow(ctx, &pluginv1.FollowRequest{Call: aCall(), Subject: tr.subject, Course: tr.course, Since: tr.since})
			return err
		})
		again, err := tr.ask()
		if err != nil || !proto.Equal(again, want) {
			tr.Fatalf("killed after request %d, it answers %v, %v, not %v", after, again, err, want)
		}
		if reads(requests) != len(requests) {
			tr.Fatalf("Follow changes something: %v", requests)
		}
		if len(requests) < after {
			return
		}
	}
}

// giveBack restores the old release and aborts, killed after each of its requests at first.
func (tr *troupe) giveBack(old []strategy.Object) {
	tr.Helper()
	abort := func(ctx context.Context) (*pluginv1.AbortResponse, error) {
		return tr.canary.Abort(ctx, &pluginv1.AbortRequest{Call: aCall(), Subject: tr.subject, Course: tr.course, Reason: "a test"})
	}
	// Before anything is restored there is nothing to be done, least of all a promotion of what is bad.
	short, cancel := context.WithTimeout(tr.Context(), margin+100*time.Millisecond)
	r, err := abort(short)
	cancel()
	if err != nil || r.GetSettled() || len(r.GetChanges()) > 0 || !strings.Contains(r.GetWaitingFor(), "to be restored to the old release") {
		tr.Fatalf("abort before the old release is restored: %v, %v", r, err)
	}
	tr.release(old)
	for after := range 6 {
		_, _ = tr.cutting(after+1, func(ctx context.Context) error {
			_, err := abort(ctx)
			return err
		})
	}
	for begin := time.Now(); ; {
		r, err := abort(tr.Context())
		if err != nil || time.Since(begin) > 4*time.Minute {
			tr.Fatal(r, err)
		}
		tr.Logf("abort, %.0f s: %v", time.Since(begin).Seconds(), r)
		if r.GetSettled() {
			break
		}
	}
	if r, err := abort(tr.Context()); err != nil || !r.GetSettled() || len(r.GetChanges()) > 0 {
		tr.Fatalf("abort, told twice: %v, %v", r, err)
	}
}

// images are those that pods run with, of workloads that have any.
func (tr *troupe) images() map[string]string {
	tr.Helper()
	out := map[string]string{}
	for _, p := range tr.list("v1", "pods") {
		if p.At("metadata", "deletionTimestamp") == nil {
			for _, c := range p.Mappings("spec", "containers") {
				out[c.Text("image")] += p.Name() + " "
			}
		}
	}
	return out
}

// only wants pods of one version, and nothing else, in the end.
func (tr *troupe) only(version string) {
	tr.Helper()
	tr.cluster.Eventually(tr.T, "only pods of "+version, func() error {
		images := tr.images()
		for image := range images {
			if !strings.HasSuffix(image, ":"+version) {
				return fmt.Errorf("pods run %v", images)
			}
		}
		if len(images) != 2 {
			return fmt.Errorf("pods run %v", images)
		}
		return nil
	})
}

func (tr *troupe) get(version, plural, name string) kube.Object {
	tr.Helper()
	o, err := tr.client.Get(tr.Context(), kube.Resource{APIVersion: version, Plural: plural}, tr.namespace, name)
	if err != nil {
		tr.Fatal(err)
	}
	return o
}

func text(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}
