package apply_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// through connects with a transport that may answer by itself: it does where answer returns one.
func (b bench) through(t *testing.T, patience time.Duration, answer func(*http.Request) *http.Response) *apply.Cluster {
	t.Helper()
	hand, err := apply.New(apply.Config{Kubeconfig: b.Kubeconfig, Patience: patience, WrapTransport: func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			if resp := answer(r); resp != nil {
				resp.Request = r
				return resp, nil
			}
			return next.RoundTrip(r)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hand.Close)
	return hand
}

func answered(code int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for n := 0; n+1 < len(header); n += 2 {
		h.Set(header[n], header[n+1])
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(bytes.NewBufferString(body)), ProtoMajor: 1, ProtoMinor: 1}
}

// A webhook that is down is named. Where every object runs into it, it is waited for once.
func TestWebhookIsDown(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	t.Cleanup(func() { _, _ = b.Kubectl("delete", "validatingwebhookconfiguration", ns) })
	if err := b.Apply(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: ` + ns + `}
webhooks:
- name: police.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 1
  clientConfig: {url: "https://127.0.0.1:1/"}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ` + ns + `}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [services]}]
`); err != nil {
		t.Fatal(err)
	}
	set := setOf(ns, "1", objects(t, configMap("a", "1")))
	for n := range 40 {
		set.Objects = append(set.Objects, objects(t, strings.Replace(service(""), "web", fmt.Sprint("web", n), 1))...)
	}
	told := "admission webhook police.example.com does not answer: "
	b.Eventually(t, "the webhook is known", func() error {
		report, err := b.hand.Check(t.Context(), set, apply.Inventory{})
		if err != nil || report.Err() == nil || len(report.Problems) != 40 {
			return fmt.Errorf("%d problems, %v", len(report.Problems), err)
		}
		wantText(t, report.Problems[0].String(), "Service "+ns+"/web0: ", told, "connection refused", "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations")
		return nil
	})
	hasty, _ := connect(t, apply.Config{Kubeconfig: b.Kubeconfig, Patience: 2 * time.Second})
	begin := time.Now()
	_, _, err := hasty.Apply(t.Context(), set, apply.Inventory{})
	if !errors.Is(err, apply.ErrRefused) {
		t.Fatal(err)
	}
	wantText(t, err.Error(), told)
	if d := time.Since(begin); d > 10*time.Second { // forty times two seconds, eight at once
		t.Errorf("waited for %s", d)
	}
}

// Objects that do not fit into the store are found before anything is sent.
func TestObjectsThatAreTooLarge(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	set := setOf(ns, "1", objects(t, configMap("fine", "1"), configMap("large", strings.Repeat("x", 1100<<10)),
		strings.ReplaceAll(deployment("huge", "podinfo:1"), "image:", "env: [{name: X, value: "+strings.Repeat("x", 1600<<10)+"}], image:")))
	report, err := b.hand.Check(t.Context(), set, apply.Inventory{})
	if err != nil || len(report.Problems) != 2 {
		t.Fatalf("%d problems, %v", len(report.Problems), err)
	}
	wantText(t, report.Err().Error(), "ConfigMap "+ns+"/large: ", "Too long: may not be more than 1048576 bytes; split it, or let an overlay take it out",
		"Deployment huge: it takes 1600 KiB, more than the 1536 KiB")
}

// An API server that says "later" is asked again, as often as is reasonable.
func TestTooManyRequests(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	set := setOf(ns, "1", objects(t, configMap("a", "1")))
	const body = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"TooManyRequests","message":"too many requests, please try again later","code":429}`
	var busy, asked atomic.Int64
	hand := b.through(t, time.Second, func(r *http.Request) *http.Response {
		if asked.Add(1); busy.Add(-1) < 0 {
			return nil
		}
		return answered(http.StatusTooManyRequests, body, "Retry-After", "0")
	})
	busy.Store(3)
	inv, _, err := hand.Apply(t.Context(), set, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	busy.Store(1000)
	asked.Store(0)
	_, _, err = hand.Apply(t.Context(), setOf(ns, "2", objects(t, configMap("a", "2"))), inv)
	if !errors.Is(err, apply.ErrUnreachable) || errors.Is(err, apply.ErrRefused) {
		t.Fatal(err)
	}
	wantText(t, err.Error(), "too many requests", "kubectl get --raw /readyz")
	if n := asked.Load(); n < 4 || n > 10 {
		t.Errorf("asked %d times", n)
	}
}

// What the API server cannot list is asked for verb by verb; what has no namespace is asked for too.
func TestRightsThatAreNotListed(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	hand := b.through(t, time.Second, func(r *http.Request) *http.Response {
		if strings.HasSuffix(r.URL.Path, "/selfsubjectrulesreviews") {
			return answered(http.StatusCreated, `{"status":{"incomplete":true,"evaluationError":"a webhook decides","resourceRules":[]}}`)
		}
		return nil
	})
	role := "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: " + ns + "}\nrules: []\n"
	set := setOf(ns, "1", objects(t, configMap("a", "1"), role))
	report, err := hand.Check(t.Context(), set, apply.Inventory{})
	if err != nil || report.Err() != nil {
		t.Fatal(err, report.Err())
	}

	if err := b.Apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: spoke, namespace: " + ns + "}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}\nsubjects: [{kind: ServiceAccount, name: spoke, namespace: " + ns + "}]\n"); err != nil {
		t.Fatal(err)
	}
	narrow, _ := connect(t, apply.Config{Kubeconfig: as(t, b.Cluster, "system:serviceaccount:"+ns+":spoke")})
	if report, err = narrow.Check(t.Context(), set, apply.Inventory{}); err != nil || len(report.Problems) != 1 {
		t.Fatalf("%v, %v", report.Err(), err)
	}
	wantText(t, report.Err().Error(), "ClusterRole: system:serviceaccount:"+ns+":spoke may not get, list, watch, create, patch, delete clusterroles",
		`for the whole cluster; add to its ClusterRole the rule apiGroups: ["rbac.authorization.k8s.io"], resources: ["clusterroles"]`)
}
