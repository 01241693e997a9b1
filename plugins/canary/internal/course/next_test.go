package course_test

import (
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, generation: 1}
spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "web:1"}]}}}
status: {observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 2}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web, namespace: shop}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  progressDeadlineSeconds: 60
  service: {port: 80}
  analysis: {interval: 1s, threshold: 1, iterations: 2, metrics: [{name: request-success-rate, thresholdRange: {min: 99}}]}
`

func objects(t *testing.T, text string) []course.Object {
	t.Helper()
	read, err := kube.ReadObjects([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var out []course.Object
	for _, o := range read {
		out = append(out, o)
	}
	return out
}

// member is the Service web, blue/green without a router.
func member(t *testing.T) (course.Member, []course.Object) {
	t.Helper()
	all := objects(t, web)
	release, err := strategy.Read(all, strategy.Options{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	none, err := route.For(strategy.RouterNone)
	if err != nil {
		t.Fatal(err)
	}
	return course.Member{Service: release.Services[0], Version: "2", Running: all, Coming: all, Routers: []route.Router{none}, Led: true}, all[:2]
}

// made is what the cluster has once the effects are done, with so many of two pods ready.
func made(live []course.Object, n course.Next, ready int) []course.Object {
	for _, e := range n.Effects {
		o := document.Clone(e.Object)
		if o["kind"] == "Deployment" {
			o["status"] = course.Object{"replicas": 2, "updatedReplicas": 2, "availableReplicas": ready}
		}
		live = append(live, o)
	}
	return live
}

func verbs(n course.Next) string {
	var out []string
	for _, e := range n.Effects {
		out = append(out, string(e.Verb)+" "+document.Text(e.Object, "kind")+" "+document.Text(e.Object, "metadata", "name"))
	}
	return strings.Join(out, ", ")
}

// A candidate is made, its Deployment last, with as many pods as the stable side has, since it is to have
// everything; it is waited for, led to, and made no second time.
func TestForward(t *testing.T) {
	m, live := member(t)
	members, now := []course.Member{m}, time.Now()
	all := map[string]route.Traffic{"web": {Weight: 100}}
	n, err := course.Forward(members, all, now, live)
	if err != nil || n.Settled || verbs(n) != "apply Service web-canary, apply Deployment web-canary" {
		t.Fatal(verbs(n), n, err)
	}
	if pods, _ := document.Number(document.At(n.Effects[1].Object, "spec", "replicas")); pods != 2 {
		t.Errorf("%v pods", pods)
	}
	first := n
	n, err = course.Forward(members, all, now, made(live, first, 1))
	if err != nil || n.Settled || len(n.Effects) > 0 || n.Waits != "Deployment shop/web-canary has 1 of 2 pods ready" || n.Failed != "" {
		t.Fatal(verbs(n), n, err)
	}
	ready := made(live, first, 2)
	document.Mapping(ready[len(ready)-1], "status")["readyReplicas"] = 2
	n, err = course.Forward(members, all, now, ready)
	if err != nil || !n.Settled || verbs(n) != "patch Service web" {
		t.Fatal(verbs(n), n, err)
	}
	n, err = course.Forward(members, nil, now, ready)
	if err != nil || !n.Settled || len(n.Effects) > 0 {
		t.Fatal(verbs(n), n, err)
	}
}

// A candidate that was ready and is not any more is waited for as long as one that is coming up; then it
// has failed.
func TestFailsForGood(t *testing.T) {
	m, live := member(t)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	first, err := course.Forward([]course.Member{m}, nil, now, live)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ available, progressing, reason, want string }{
		{"False", "True", "NewReplicaSetAvailable", "has 0 of 2 pods ready for longer than its deadline"},
		{"False", "True", "ReplicaSetUpdated", ""},
		{"True", "True", "NewReplicaSetAvailable", ""},
		{"False", "False", "ProgressDeadlineExceeded", "has 0 of 2 pods ready after its deadline"},
	} {
		cluster := made(live, first, 0)
		document.Mapping(cluster[len(cluster)-1], "status")["conditions"] = []any{
			course.Object{"type": "Available", "status": test.available, "lastTransitionTime": "2026-05-01T11:58:59Z"},
			course.Object{"type": "Progressing", "status": test.progressing, "reason": test.reason}}
		n, err := course.Forward([]course.Member{m}, nil, now, cluster)
		if err != nil || n.Settled || !strings.HasSuffix(n.Failed, test.want) || (n.Failed == "") != (test.want == "") {
			t.Errorf("%+v: got %+v, %v", test, n, err)
		}
		n, err = course.Forward([]course.Member{m}, nil, now.Add(-10*time.Second), cluster)
		if err != nil || n.Failed != "" && test.reason != "ProgressDeadlineExceeded" {
			t.Errorf("too early: %+v: got %+v, %v", test, n, err)
		}
	}
	somebody := append(live, objects(t, strings.ReplaceAll(web, "name: web,", "name: web-canary,"))[0])
	if _, err := course.Forward([]course.Member{m}, nil, now, somebody); err == nil || !strings.Contains(err.Error(), "Deployment shop/web-canary: has the name of the candidate and is somebody else's") {
		t.Errorf("got %v", err)
	}
}

// What a workload of the new release has begun to read is left to it, also on the way back.
func TestNeedsOnTheWayBack(t *testing.T) {
	m, live := member(t)
	need := objects(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: web-2, namespace: shop, labels: {wheelwright.dev/candidate-of: web}}, data: {a: b}}`)
	for image, want := range map[string]string{"web:1": "delete ConfigMap web-2", "web-2": "release ConfigMap web-2"} {
		cluster := objects(t, strings.ReplaceAll(web, `image: "web:1"`, `image: web, envFrom: [{configMapRef: {name: "`+image+`"}}]`))[:2]
		n, err := course.Back([]course.Member{m}, course.Way{Now: time.Now()}, append(cluster, need...))
		if err != nil || !n.Settled || verbs(n) != want {
			t.Errorf("%s: got %s, %+v, %v", image, verbs(n), n, err)
		}
	}
	n, err := course.Back([]course.Member{m}, course.Way{Now: time.Now(), Promoted: true}, append(live, need...))
	if err != nil || !n.Settled || verbs(n) != "release ConfigMap web-2" {
		t.Errorf("got %s, %+v, %v", verbs(n), n, err)
	}
}
