package job_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/plugins/conformance/internal/job"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	pass    = pluginv1.Outcome_OUTCOME_PASS
	fail    = pluginv1.Outcome_OUTCOME_FAIL
	unknown = pluginv1.Outcome_OUTCOME_INCONCLUSIVE
)

// bench is a namespace of a real cluster.
type bench struct {
	*harness.Cluster
	t         *testing.T
	namespace string
	client    *kube.Client
}

func start(t *testing.T) bench {
	t.Helper()
	c := harness.Shared(t, 1)[0]
	client, err := kube.Open(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return bench{c, t, c.NewNamespace(t), client}
}

func (b bench) runner(call string) job.Runner {
	return job.Runner{Client: b.client, Redactor: excerpt.NewRedactor("hunter22"), Distribution: "shop", Call: call,
		Environment: []job.Variable{{Name: "WHEELWRIGHT_TARGET_BACKEND", Value: "backend-canary.shop"}}}
}

func (b bench) read(manifests string) []job.Test {
	b.t.Helper()
	objects, err := kube.ReadObjects([]byte(manifests))
	if err != nil {
		b.t.Fatal(err)
	}
	tests, problems := job.Read(objects, b.namespace, 20*time.Second)
	if len(problems) > 0 {
		b.t.Fatal(problems)
	}
	return tests
}

func (b bench) kubectl(args ...string) string {
	b.t.Helper()
	out, err := b.Kubectl(append([]string{"-n", b.namespace}, args...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// left are the names of what carries our labels; pods go a moment after their Job.
func (b bench) wantNothingLeft() {
	b.t.Helper()
	b.Eventually(b.t, "nothing is left", func() error {
		if out := b.kubectl("get", "jobs,pods", "-l", job.LabelTests, "-o", "name"); out != "" {
			return fmt.Errorf("left: %s", out)
		}
		return nil
	})
}

func want(t *testing.T, r job.Result, outcome pluginv1.Outcome, reason string) {
	t.Helper()
	if v := r.Verdict; v.GetOutcome() != outcome || !strings.Contains(v.GetReason(), reason) || (outcome == pass) != (v.GetReason() == "") {
		t.Errorf("got %s %q, want %s because %q; log:\n%s", v.GetOutcome(), v.GetReason(), outcome, reason, r.Log)
	}
}

func manifest(kind, name, image, more string) string {
	if kind == "Pod" {
		return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, annotations: {helm.sh/hook: test}, labels: {app: smoke}}\nspec:\n  containers: [{name: main, image: %q}]\n%s", name, image, more)
	}
	return fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata: {name: %s, annotations: {wheelwright.dev/test: \"true\", note: kept}}\nspec:\n  backoffLimit: 0\n%s  template:\n"+
		"    metadata: {labels: {app: smoke}}\n    spec:\n      restartPolicy: OnFailure\n      containers:\n      - name: main\n        image: %q\n        env: [{name: URL, value: http://$(WHEELWRIGHT_TARGET_BACKEND)}, {name: WHEELWRIGHT_TARGET_BACKEND, value: backend}]\n", name, more, image)
}

func quiet(string) {}

// A Job runs to its end in the namespace under a name of its own, with what it is to test in its
// environment, and is gone afterwards.
func TestJobPasses(t *testing.T) {
	b := start(t)
	tests := b.read(manifest("Job", "smoke", "smoke:1", ""))
	var seen kube.Object
	r := b.runner("call-1")
	r.Hosts = []job.Host{{IP: "10.1.2.3", Names: []string{"backend", "backend.shop"}}}
	result := r.Run(t.Context(), tests[0], func(line string) {
		if name, ok := strings.CutSuffix(line, " is made"); ok {
			_, name, _ = strings.Cut(name, "/")
			if err := json.Unmarshal([]byte(b.kubectl("get", "job", name, "-o", "json")), &seen); err != nil {
				t.Error(err)
			}
		}
	})
	want(t, result, pass, "")
	if !strings.HasPrefix(seen.Name(), "smoke-") || seen.Text("metadata", "annotations", "note") != "kept" || seen.Text("metadata", "annotations", job.Annotation) != "" {
		t.Errorf("made as %v", seen.At("metadata"))
	}
	text, err := json.Marshal(seen.At("spec"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"restartPolicy":"Never"`, `"activeDeadlineSeconds":50`, `"ttlSecondsAfterFinished":600`, `"app":"smoke"`, job.LabelRun, `"hostAliases":[{"hostnames":["backend","backend.shop"],"ip":"10.1.2.3"}]`,
		`"env":[{"name":"WHEELWRIGHT_TARGET_BACKEND","value":"backend-canary.shop"},{"name":"URL","value":"http://$(WHEELWRIGHT_TARGET_BACKEND)"}]`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("want %s in %s", part, text)
		}
	}
	b.wantNothingLeft()
}

// end makes the first pod that appears end as a kubelet would say.
func (b bench) end(phase, reason string, code int) {
	b.Eventually(b.t, "a pod to end", func() error {
		name := b.kubectl("get", "pods", "-l", job.LabelTests, "-o", "jsonpath={.items[0:1].metadata.name}")
		if name == "" {
			return fmt.Errorf("there is none")
		}
		patch := fmt.Sprintf(`{"status":{"phase":%q,"reason":%q,"containerStatuses":[{"name":"main","image":"x","imageID":"","ready":false,"restartCount":0,"state":{"terminated":{"exitCode":%d,"reason":"Error","message":"told hunter22"}}}]}}`, phase, reason, code)
		_, err := b.Kubectl("-n", b.namespace, "patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)
		return err
	})
}

// kubelet stands in for the simulated node's, which has no logs.
func (b bench) kubelet(log string) {
	b.t.Helper()
	certificate, key, err := b.ServerCertificate("stand-in-kubelet", "127.0.0.1")
	if err != nil {
		b.t.Skip(err)
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		b.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/containerLogs/"+b.namespace+"/") {
			fmt.Fprint(w, log)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	b.t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	patch := fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":"127.0.0.1"},{"type":"Hostname","address":"127.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%s}}}}`, port)
	b.kubectl("patch", "node", "sim", "--subresource=status", "--type=merge", "-p", patch)
}

// A test that fails tells the end of its log without secrets, and is gone as well.
func TestFailures(t *testing.T) {
	b := start(t)
	b.kubelet(strings.Repeat("a line of no interest\n", 5000) + "password=hunter22\nexpected 200, got 500\n")
	for _, test := range []struct {
		kind, phase, reason string
		outcome             pluginv1.Outcome
		says                string
	}{
		{"Job", "Failed", "", fail, "BackoffLimitExceeded"},
		{"Pod", "Failed", "", fail, "container main exited with 3: told ***"},
		{"Pod", "Failed", "Evicted", unknown, "the cluster ended its pod: Evicted"},
		{"Pod", "Succeeded", "", pass, ""},
	} {
		t.Run(test.kind+" "+test.phase+" "+test.reason, func(t *testing.T) {
			inner := b
			inner.t = t
			var running sync.WaitGroup
			defer running.Wait()
			running.Go(func() { inner.end(test.phase, test.reason, 3) })
			// The image keeps the simulation from ending the pod itself.
			result := b.runner(test.kind+test.phase+test.reason).Run(t.Context(), b.read(manifest(test.kind, "smoke", "does-not-exist:1", ""))[0], quiet)
			want(t, result, test.outcome, test.says)
			if (test.outcome == pass) != (result.Log == "") {
				t.Errorf("log %q", result.Log)
			}
			if test.outcome != pass && (!strings.Contains(result.Log, "expected 200, got 500") || !strings.Contains(result.Log, "password=***") || strings.Contains(result.Log, "hunter22") || len(result.Log) > 16<<10) {
				t.Errorf("%d bytes of log: …%s", len(result.Log), excerpt.End(result.Log, 300))
			}
			inner.wantNothingLeft()
		})
	}
}

// A test that never ran is no evidence; one that ran and found no end is.
func TestDeadlines(t *testing.T) {
	b := start(t)
	short := "  activeDeadlineSeconds: 2\n"
	want(t, b.runner("a").Run(t.Context(), b.read(manifest("Job", "pull", "does-not-exist:1", short))[0], quiet), unknown, "did not start within 2s")
	pod := manifest("Pod", "pull", "does-not-exist:1", short)
	want(t, b.runner("b").Run(t.Context(), b.read(pod)[0], quiet), unknown, "did not start within 2s: ImagePullBackOff: Back-off pulling image")
	want(t, b.runner("c").Run(t.Context(), b.read(manifest("Pod", "endless", "smoke:1", short))[0], quiet), fail, "no end within 2s")

	over, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	want(t, b.runner("d").Run(over, b.read(manifest("Pod", "endless", "smoke:1", ""))[0], quiet), unknown, "the call ended before the test did")
	b.wantNothingLeft()
}

func TestWhatCannotBeMade(t *testing.T) {
	b := start(t)
	invalid := manifest("Pod", "invalid", "", "")
	want(t, b.runner("a").Run(t.Context(), b.read(invalid)[0], quiet), fail, "the API server answers 422")
	absent := strings.Replace(manifest("Pod", "absent", "x", ""), "{name:", "{namespace: nowhere-at-all, name:", 1)
	want(t, b.runner("b").Run(t.Context(), b.read(absent)[0], quiet), unknown, "the API server answers 404")

	cfg, err := clientcmd.LoadFromFile(b.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range cfg.AuthInfos {
		a.ClientCertificateData, a.ClientKeyData, a.Token = nil, nil, b.kubectl("create", "token", "default")
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	weak, err := kube.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer weak.Close()
	r := b.runner("c")
	r.Client = weak
	want(t, r.Run(t.Context(), b.read(manifest("Job", "smoke", "smoke:1", ""))[0], quiet), unknown, "see permissions of this plugin")
	if _, err := r.Sweep(t.Context(), b.namespace); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("swept: %v", err)
	}
}

// A plugin that is killed leaves its Job. The same call finds it again; the next one sweeps it, and
// nothing that is not a test's.
func TestAfterACrash(t *testing.T) {
	b := start(t)
	one := b.read(manifest("Job", "smoke", "does-not-exist:1", ""))[0]
	b.kubectl("create", "job", "of-nobody", "--image=smoke:1")
	left, err := b.runner("first").Leave(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	again := b.runner("first")
	if n, err := again.Sweep(t.Context(), b.namespace); n != 0 || err != nil {
		t.Errorf("the same call swept %d of its own (%v)", n, err)
	}
	found, err := again.Leave(t.Context(), one)
	if err != nil || found.UID() != left.UID() {
		t.Errorf("the same call made another one than %s: %s (%v)", left.Name(), found.Name(), err)
	}
	if n, err := b.runner("second").Sweep(t.Context(), b.namespace); n == 0 || err != nil {
		t.Errorf("the next call swept %d (%v), want %s", n, err, left.Name())
	}
	b.wantNothingLeft()
	// What is on its way out is waited for, and then made anew.
	doomed, err := again.Leave(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	b.kubectl("patch", "job", doomed.Name(), "--type=merge", "-p", `{"metadata":{"finalizers":["test.wheelwright.dev/hold"]}}`)
	b.kubectl("delete", "job", doomed.Name(), "--wait=false")
	var running sync.WaitGroup
	running.Go(func() {
		b.kubectl("patch", "job", doomed.Name(), "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	})
	fresh, err := again.Leave(t.Context(), one)
	running.Wait()
	if err != nil || fresh.UID() == doomed.UID() {
		t.Errorf("after %s came %s (%v)", doomed.UID(), fresh.UID(), err)
	}
	if _, err := b.runner("third").Sweep(t.Context(), b.namespace); err != nil {
		t.Error(err)
	}
	b.wantNothingLeft()
	b.kubectl("get", "job", "of-nobody")
}

func TestRead(t *testing.T) {
	objects, err := kube.ReadObjects([]byte(strings.Join([]string{
		manifest("Job", "b", "x", "  activeDeadlineSeconds: 90\n"),
		strings.Replace(manifest("Pod", "late", "x", ""), "helm.sh/hook: test", `helm.sh/hook: "post-install, test-success", helm.sh/hook-weight: "5", wheelwright.dev/test-timeout: 7m`, 1),
		strings.Replace(manifest("Job", "a", "x", ""), `"true"`, "after-promotion", 1),
		strings.Replace(manifest("Job", "no", "x", ""), `"true"`, `"false"`, 1),
		"kind: Job\napiVersion: batch/v1\nmetadata: {name: plain}\n",
		strings.Replace(manifest("Job", "when", "x", ""), `"true"`, "now", 1),
		strings.Replace(manifest("Pod", "old", "x", ""), "hook: test", "hook: test-failure", 1),
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: data, annotations: {helm.sh/hook: test}}\n",
		strings.Replace(manifest("Job", "times", "x", ""), `"true"`, `"true", wheelwright.dev/test-timeout: soon, helm.sh/hook-weight: heavy`, 1),
	}, "---\n")))
	if err != nil {
		t.Fatal(err)
	}
	tests, problems := job.Read(append(objects, objects[0]), "shop", time.Minute)
	var got []string
	for _, one := range tests {
		got = append(got, fmt.Sprint(one.Namespace, " ", one.Name, " ", one.When, " ", one.Timeout, " ", one.Weight))
	}
	want := []string{"shop Job a [after-promotion] 1m0s 0", "shop Job b [before-traffic after-promotion] 1m30s 0",
		"shop Job times [before-traffic after-promotion] 1m0s 0", "shop Pod late [before-traffic after-promotion] 7m0s 5"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	text := strings.Join(problems, "\n")
	for _, part := range []string{`Job when: wheelwright.dev/test: "now": want true`, "Pod old: helm.sh/hook: test-failure", "ConfigMap data: is marked as a test and is no Job", "Job times: wheelwright.dev/test-timeout", "Job times: helm.sh/hook-weight"} {
		if !strings.Contains(text, part) {
			t.Errorf("want %q in:\n%s", part, text)
		}
	}
}
