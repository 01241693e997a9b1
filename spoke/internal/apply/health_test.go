package apply_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// A workload that does not come up is explained by its pods.
func TestHealthExplains(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1.0.0", objects(t, configMap("a", "1"), deployment("database", "podinfo:1"), deployment("other", "podinfo:1"))))
	b.healthy(t, inv)
	explained := func(what string, health fleet.Health, parts ...string) {
		t.Helper()
		b.Eventually(t, what, func() error {
			r, err := b.hand.Health(ctx, inv, nil)
			if err != nil {
				return err
			}
			for _, p := range parts {
				if !strings.Contains(r.Message, p) {
					return fmt.Errorf("want %q in %q", p, r.Message)
				}
			}
			if r.Health != health || r.Ready != r.Objects-1 || len([]rune(r.Message)) > 300 || strings.Contains(r.Message, "\n") {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
	}
	upgrade := func(manifest string) {
		t.Helper()
		var err error
		if inv, _, err = b.hand.Apply(ctx, setOf(ns, "2.0.0", objects(t, configMap("a", "1"), manifest, deployment("other", "podinfo:1"))), inv); err != nil {
			t.Fatal(err)
		}
	}
	upgrade(deployment("database", "registry.example.com/does-not-exist:1"))
	explained("an image that is not there", fleet.InProgress,
		"Deployment "+ns+"/database: ImagePullBackOff: Back-off pulling image \"registry.example.com/does-not-exist:1\"")

	upgrade(strings.Replace(deployment("database", "registry.example.com/does-not-exist:2"), "spec:\n  selector", "spec:\n  progressDeadlineSeconds: 1\n  selector", 1))
	explained("past its deadline", fleet.Degraded, "Deployment "+ns+"/database: ImagePullBackOff: ", "does-not-exist:2")

	upgrade(deployment("database", "crash-loop:1"))
	explained("a crash loop", fleet.InProgress, "Deployment "+ns+"/database: CrashLoopBackOff: ", "container database ended with exit code 1")

	upgrade(strings.Replace(deployment("database", "podinfo:4"), "    spec:\n", "    spec:\n      nodeSelector: {no: where}\n", 1))
	explained("no node for it", fleet.InProgress, "Deployment "+ns+"/database: Unschedulable: ")

	upgrade(strings.Replace(deployment("database", "podinfo:5"), "labels: {app: database}}", "labels: {app: database}, annotations: {test.wheelwright.dev/never-ready: yes please}}", 1))
	explained("a probe that does not pass", fleet.InProgress, "Deployment "+ns+"/database: container database runs but is not ready: its readiness probe does not pass")

	upgrade(strings.Replace(deployment("database", "podinfo:6"), "    spec:\n", "    spec:\n      serviceAccountName: nobody\n", 1))
	explained("pods that cannot be made", fleet.InProgress, "Deployment "+ns+"/database: FailedCreate: ", "nobody")

	upgrade(deployment("database", "podinfo:7"))
	b.healthy(t, inv)
	b.kubectl(t, "-n", ns, "label", "deployment", "database", "wheelwright.dev/distribution-") // drift, and no illness
	b.kubectl(t, "-n", ns, "label", "configmap", "a", "wheelwright.dev/distribution-")
	b.healthy(t, inv)
	b.kubectl(t, "-n", ns, "delete", "configmap", "a")
	explained("a missing object", fleet.Degraded, "ConfigMap "+ns+"/a: it is not on the cluster")
}

// Health costs a list for each kind, whatever the number of objects, and reads no Secret.
func TestHealthIsCheap(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1.0.0", shop(t, ns, "blue")))
	b.healthy(t, inv)
	r, err := b.hand.Health(t.Context(), inv, nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("FIGURE health.requests %d requests of %d objects of 9 kinds\n", r.Requests, r.Objects)
	if r.Requests != 9 {
		t.Errorf("%d requests", r.Requests)
	}
}

// A vendor's rule says what a kind's health is: nothing else does, and its message says no values.
func TestHealthByRules(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	group := unique("x") + ".example.com"
	t.Cleanup(func() { _, _ = b.Kubectl("delete", "crd", "widgets."+group, "--wait=false", "--ignore-not-found") })
	crd := strings.Replace(fmt.Sprintf(widgets, group), "properties: {spec:", "x-kubernetes-preserve-unknown-fields: true, properties: {spec:", 1)
	inv := b.install(t, setOf(ns, "1.0.0", objects(t, crd, "apiVersion: "+group+"/v1\nkind: Widget\nmetadata: {name: big}\nspec: {size: 3}\n", configMap("a", "1"))))
	book := func(all ...rules.Rule) *rules.Book {
		t.Helper()
		book, err := rules.Compile(all)
		if err != nil {
			t.Fatal(err)
		}
		return book
	}
	widget := rules.Rule{Group: group, Kind: "Widget", Current: "status.phase == 'Ready'", Failed: "status.phase == 'Broken'", Message: "'the widget says: ' + status.phase"}
	for _, c := range []struct {
		what, phase string
		book        *rules.Book
		health      fleet.Health
		message     string
	}{
		{"no rule: there is there", "", nil, fleet.Healthy, ""},
		{"nothing said yet", "", book(widget), fleet.InProgress, "Widget " + ns + "/big: by its health rule it is not ready yet"},
		{"on its way", "Moving", book(widget), fleet.InProgress, "Widget " + ns + "/big: the widget says: Moving"},
		{"failed", "Broken", book(widget), fleet.Degraded, "Widget " + ns + "/big: the widget says: Broken"},
		{"ready", "Ready", book(widget), fleet.Healthy, ""},
		{"another group's", "Broken", book(rules.Rule{Group: "example.org", Kind: "Widget", Failed: "true"}), fleet.Healthy, ""},
		{"a rule that cannot be answered", "Ready", book(rules.Rule{Group: group, Kind: "Widget", Current: "status.phase + 1 == 2"}), fleet.InProgress, "Widget " + ns + "/big: its health cannot be told: health rule of Widget of " + group + ": current: "},
		{"a kind that says nothing by itself", "Ready", book(rules.Rule{Kind: "ConfigMap", Current: "object.data.key == '2'"}), fleet.InProgress, "ConfigMap " + ns + "/a: by its health rule it is not ready yet"},
		{"its values", "Ready", book(rules.Rule{Kind: "ConfigMap", Current: "object.data.key == '1'"}), fleet.Healthy, ""},
	} {
		if c.phase != "" {
			b.kubectl(t, "-n", ns, "patch", "widgets."+group, "big", "--type=merge", "-p", `{"status":{"phase":"`+c.phase+`"}}`)
		}
		b.Eventually(t, c.what, func() error {
			r, err := b.hand.Health(ctx, inv, c.book)
			if err != nil || r.Health != c.health || !strings.HasPrefix(r.Message, c.message) || (c.message == "") != (r.Message == "") {
				return fmt.Errorf("%+v, %v", r, err)
			}
			return nil
		})
	}
}

func eventOf(ns, uid, name, kind, reason, message, at string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Event","metadata":{"name":%q,"namespace":%q},"involvedObject":{"kind":"Deployment","namespace":%[2]q,"name":"database","uid":%[3]q},`+
		`"type":%[4]q,"reason":%[5]q,"message":%[6]q,"lastTimestamp":%[7]q}`, name, ns, uid, kind, reason, message, at)
}

// What was last said about an object that is not well, or about its pod, is told with it.
func TestHealthTellsTheLastEvent(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1.0.0", objects(t, deployment("database", "does-not-exist:1"), configMap("a", "1"))))
	says := func(hand *apply.Cluster, what, want string) {
		t.Helper()
		b.Eventually(t, what, func() error {
			r, err := hand.Health(ctx, inv, nil)
			if err != nil || !strings.HasPrefix(r.Message, "Deployment "+ns+"/database: ImagePullBackOff: ") || !strings.HasSuffix(r.Message, want) || len([]rune(r.Message)) > 300 {
				return fmt.Errorf("want %q in %+v, %v", want, r, err)
			}
			return nil
		})
	}
	var pod string
	b.Eventually(t, "a pod", func() (err error) {
		if pod, err = b.Kubectl("-n", ns, "get", "pods", "-o", "jsonpath={.items[0].metadata.uid}"); err != nil || pod == "" {
			return fmt.Errorf("%q, %w", pod, err)
		}
		return nil
	})
	deployment := uid(inv, "Deployment")
	write := func(events ...string) {
		t.Helper()
		for _, e := range events {
			if err := b.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(eventOf(ns, pod, "a", "Warning", "Failed", "cannot pull: no such image", "2035-01-01T00:00:01Z"),
		eventOf(ns, pod, "b", "Normal", "BackOff", "newer, but no warning", "2035-01-01T00:00:09Z"),
		eventOf(ns, "0-0", "c", "Warning", "Failed", "about another object", "2035-01-01T00:00:09Z"))
	says(b.hand, "of the pod", "(event: Failed: cannot pull: no such image)")
	write(eventOf(ns, deployment, "d", "Warning", "Odd", "the newest warning "+strings.Repeat("x", 300), "2035-01-01T00:00:05Z"))
	says(b.hand, "of the object", "xxx…)")
	write(eventOf(ns, pod, "e", "Warning", "Unhealthy", "Readiness probe failed: password=hunter2 is wrong", "2035-01-01T00:00:06Z"))
	says(b.hand, "without what a program printed", "(event: Unhealthy: Readiness probe failed)")

	var asked atomic.Int64
	forbidden, err := apply.New(apply.Config{Kubeconfig: b.Kubeconfig, WrapTransport: func(rt http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			if !strings.HasSuffix(r.URL.Path, "/events") {
				return rt.RoundTrip(r)
			}
			asked.Add(1)
			return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
				Body: io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no","code":403}`))}, nil
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(forbidden.Close)
	says(forbidden, "what may not be read is not told", `"does-not-exist:1": not found`)
	if asked.Load() == 0 {
		t.Error("no events were asked for")
	}
	if _, err := forbidden.Health(ctx, inv, nil); errors.Is(err, apply.ErrRefused) {
		t.Error(err)
	}
}
