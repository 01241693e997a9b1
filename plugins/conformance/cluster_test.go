package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/plugintest"
	"github.com/wheelwright-dev/wheelwright/plugins/conformance/internal/job"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

func TestMain(m *testing.M) { harness.Main(m) }

const twoTests = `apiVersion: batch/v1
kind: Job
metadata: {name: smoke, annotations: {wheelwright.dev/test: before-traffic}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "smoke:1"}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate-check, annotations: {helm.sh/hook: test, helm.sh/hook-weight: "-1"}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "smoke:1"}]}}}
`

// The Jobs of a release are run against its candidate, one after the other, and are gone afterwards.
func TestJobsOnACluster(t *testing.T) {
	cluster := harness.Shared(t, 1)[0]
	namespace := cluster.NewNamespace(t)
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := cluster.Kubectl(append([]string{"-n", namespace}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	subject := &pluginv1.Subject{Distribution: "shop", VersionFrom: "1.0.0", VersionTo: "1.1.0", Namespace: namespace, Objects: []byte(twoTests),
		Services: []*pluginv1.Service{{Name: "backend", Strategy: pluginv1.Strategy_STRATEGY_BLUE_GREEN}}}
	c := with(t, cluster.Kubeconfig)

	report, told := run(t, c, &pluginv1.RunRequest{Subject: subject, Moment: before})
	wantVerdict(t, report, unknown, "job migrate-check: look up Service "+namespace+"/backend-canary of the candidate: the API server answers 404")
	wantTests(t, told, map[string]pluginv1.TestState{"job migrate-check": inconclusive, "job smoke": inconclusive})

	kubectl("create", "service", "clusterip", "backend-canary", "--tcp=80:80")
	address := kubectl("get", "service", "backend-canary", "-o", "jsonpath={.spec.clusterIP}")
	var pods string
	var order []string
	report, err := c.Run(t.Context(), &pluginv1.RunRequest{Call: &pluginv1.Call{Id: "one"}, Subject: proto.CloneOf(subject), Moment: before}, func(p *pluginv1.Progress) error {
		if strings.HasSuffix(p.GetMessage(), " is made") {
			order = append(order, p.GetTest())
			pods = kubectl("get", "jobs", "-l", job.LabelTests, "-o", "jsonpath={.items[*].spec.template.spec}")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, report, pass, "")
	if got := strings.Join(order, ", "); got != "job migrate-check, job smoke" || report.GetPassed() != 2 {
		t.Errorf("ran %s: %v", got, report)
	}
	short := "backend." + namespace
	for _, part := range []string{`"ip":"` + address + `"`, fmt.Sprintf(`"hostnames":["backend","%[1]s","%[1]s.svc","%[1]s.svc.cluster.local"]`, short),
		`{"name":"WHEELWRIGHT_TARGET_BACKEND","value":"backend-canary.` + namespace + `"}`, `{"name":"WHEELWRIGHT_MOMENT","value":"before-traffic"}`, `{"name":"WHEELWRIGHT_VERSION","value":"1.1.0"}`} {
		if !strings.Contains(pods, part) {
			t.Errorf("want %s in %s", part, pods)
		}
	}

	report, told = run(t, c, &pluginv1.RunRequest{Subject: subject, Moment: after})
	wantVerdict(t, report, pass, "")
	wantTests(t, told, map[string]pluginv1.TestState{"job migrate-check": passed})

	// Nothing of a release without candidates runs before promotion.
	subject.Services[0].Strategy = pluginv1.Strategy_STRATEGY_NONE
	report, _ = run(t, c, &pluginv1.RunRequest{Subject: subject, Moment: before})
	wantVerdict(t, report, unknown, "no test was run")
	cluster.Eventually(t, "nothing is left", func() error {
		if out := kubectl("get", "jobs,pods", "-o", "name"); out != "" {
			return fmt.Errorf("left: %s", out)
		}
		return nil
	})
}

// Through the API server a Service without pods is out of reach, which is no evidence.
func TestProxyOnACluster(t *testing.T) {
	cluster := harness.Shared(t, 1)[0]
	namespace := cluster.NewNamespace(t)
	if _, err := cluster.Kubectl("-n", namespace, "create", "service", "clusterip", "backend-canary", "--tcp=80:80"); err != nil {
		t.Fatal(err)
	}
	subject := &pluginv1.Subject{Distribution: "shop", VersionFrom: "1.0.0", VersionTo: "1.1.0", Namespace: namespace,
		Objects:  []byte("apiVersion: wheelwright.dev/v1\nkind: Tests\ntests: [{name: up, service: backend, port: 80, http: {}}]\n"),
		Services: []*pluginv1.Service{{Name: "backend", Strategy: pluginv1.Strategy_STRATEGY_BLUE_GREEN}}}
	report, _ := run(t, with(t, cluster.Kubeconfig, "--via", "proxy"), &pluginv1.RunRequest{Subject: subject, Moment: before})
	wantVerdict(t, report, unknown, "the API server does not reach it: no endpoints available for service")
	subject.Services[0].Name = "nowhere"
	subject.Objects = []byte(strings.ReplaceAll(string(subject.GetObjects()), "backend", "nowhere"))
	report, _ = run(t, with(t, cluster.Kubeconfig, "--via", "proxy"), &pluginv1.RunRequest{Subject: subject, Moment: before})
	wantVerdict(t, report, unknown, `the API server does not reach it: services "nowhere-canary" not found`)
}

// A process that is asked to end takes away what it made.
func TestEndingOnACluster(t *testing.T) {
	cluster := harness.Shared(t, 1)[0]
	namespace := cluster.NewNamespace(t)
	c := with(t, cluster.Kubeconfig)
	subject := &pluginv1.Subject{Distribution: "shop", Namespace: namespace, VersionTo: "1.0.0", Objects: []byte(strings.ReplaceAll(twoTests, "smoke:1", "does-not-exist:1")),
		Services: []*pluginv1.Service{{Name: "backend"}}}
	made := 0
	report, err := c.Run(context.WithoutCancel(t.Context()), &pluginv1.RunRequest{Call: &pluginv1.Call{Id: "one"}, Subject: subject, Moment: before}, func(p *pluginv1.Progress) error {
		if strings.HasSuffix(p.GetMessage(), " is made") {
			made++
			close(c.ending)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, report, unknown, "the call ended before the test did")
	out, err := cluster.Kubectl("-n", namespace, "get", "jobs", "-o", "name")
	if err != nil || out != "" || made != 1 {
		t.Errorf("%d were made, and this is left: %s (%v)", made, out, err)
	}
}

// The built program keeps the contract with credentials too, for an application that is nowhere.
func TestContractWithCredentials(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and runs it many times")
	}
	cluster := harness.Shared(t, 1)[0]
	plugintest.Run(t, plugintest.Config{Path: build(t), Env: []string{"KUBECONFIG=" + cluster.Kubeconfig}})
}
