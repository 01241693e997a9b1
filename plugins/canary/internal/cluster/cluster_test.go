package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

// server answers by method and path; what is not there is 404.
type server struct {
	answers map[string]string // a number alone is a status
	asked   []kube.Request
}

func (s *server) Do(_ context.Context, r kube.Request, into any) error {
	s.asked = append(s.asked, r)
	method := r.Method
	if method == "" {
		method = "GET"
	}
	text, ok := s.answers[method+" "+r.Path]
	switch {
	case !ok:
		return &kube.StatusError{Code: http.StatusNotFound}
	case text == "409":
		return &kube.StatusError{Code: http.StatusConflict, Reason: "Conflict"}
	}
	return json.Unmarshal([]byte(text), into)
}

func object(t *testing.T, text string) course.Object {
	t.Helper()
	read, err := kube.ReadObjects([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return read[0]
}

// Only what is different is sent, and only to what was read.
func TestPatch(t *testing.T) {
	was := object(t, `{apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop, resourceVersion: "7", annotations: {x: "1"}}, spec: {selector: {app: a}, ports: [{port: 80}]}}`)
	is := document.Clone(was)
	delete(document.Mapping(is, "metadata"), "annotations")
	document.Mapping(is, "spec")["selector"] = course.Object{"b": "c"}
	s := &server{answers: map[string]string{"PATCH /api/v1/namespaces/shop/services/a": `{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","namespace":"shop","resourceVersion":"8"}}`}}
	verb, err := New(s).Do(t.Context(), course.Effect{Verb: course.Patch, Was: was, Object: is})
	if err != nil || verb != "patch" {
		t.Fatal(verb, err)
	}
	const want = `{"metadata":{"annotations":null,"resourceVersion":"7"},"spec":{"selector":{"app":null,"b":"c"}}}`
	if got := string(s.asked[0].Body); got != want || s.asked[0].Type != "application/merge-patch+json" {
		t.Errorf("got %s, want %s", got, want)
	}
	s.answers = map[string]string{"PATCH /api/v1/namespaces/shop/services/a": "409"}
	if _, err := New(s).Do(t.Context(), course.Effect{Verb: course.Patch, Was: was, Object: is}); !errors.Is(err, ErrStale) {
		t.Errorf("got %v", err)
	}
	if _, err := New(&server{}).Do(t.Context(), course.Effect{Verb: course.Patch, Was: was, Object: is}); !errors.Is(err, ErrStale) {
		t.Errorf("got %v", err)
	}
}

// What is read is known, what is done is known too, and a kind that the cluster does not have is empty.
func TestView(t *testing.T) {
	s := &server{answers: map[string]string{
		"GET /apis/apps/v1/namespaces/shop/deployments":                              `{"items":[{"metadata":{"name":"a","namespace":"shop"}}]}`,
		"GET /apis/networking.istio.io/v1beta1/namespaces/shop/virtualservices":      `{"items":[{"metadata":{"name":"v","namespace":"shop"}}]}`,
		"PATCH /apis/apps/v1/namespaces/shop/deployments/b":                          `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"b","namespace":"shop"}}`,
		"DELETE /apis/apps/v1/namespaces/shop/deployments/b":                         `{"kind":"Status"}`,
		"DELETE /apis/networking.istio.io/v1beta1/namespaces/shop/virtualservices/v": "409",
	}}
	v := New(s)
	deployments := course.Query{Kind: route.Kind{Group: "apps", Kind: "Deployment"}, Namespace: "shop"}
	queries := []course.Query{deployments, {Kind: route.Kind{Group: "networking.istio.io", Kind: "VirtualService"}, Namespace: "shop"}, {Kind: route.Kind{Group: "linkerd.io", Kind: "ServiceProfile"}, Namespace: "shop"}}
	read := func() []course.Object {
		t.Helper()
		live, err := v.Read(t.Context(), queries)
		if err != nil {
			t.Fatal(err)
		}
		return live
	}
	live := read()
	if len(live) != 2 || document.Text(live[0], "kind") != "Deployment" || document.Text(live[1], "apiVersion") != "networking.istio.io/v1beta1" {
		t.Fatalf("got %v", live)
	}
	asked := len(s.asked)
	b := object(t, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: shop, uid: u}}`)
	if verb, err := v.Do(t.Context(), course.Effect{Verb: course.Apply, Object: b}); err != nil || verb != "apply" || len(read()) != 3 || len(s.asked) != asked+1 {
		t.Errorf("got %q, %v, %d requests", verb, err, len(s.asked)-asked)
	}
	if _, err := v.Do(t.Context(), course.Effect{Verb: course.Remove, Object: b}); err != nil || len(read()) != 2 {
		t.Errorf("got %v", err)
	}
	var options struct {
		PropagationPolicy string
		Preconditions     struct{ UID string }
	}
	for _, r := range s.asked {
		if r.Method == http.MethodDelete {
			if err := json.Unmarshal(r.Body, &options); err != nil || options.PropagationPolicy != "Foreground" || options.Preconditions.UID != "u" {
				t.Errorf("got %s", r.Body)
			}
		}
	}
	if _, err := v.Do(t.Context(), course.Effect{Verb: course.Remove, Object: live[1]}); !errors.Is(err, ErrStale) {
		t.Errorf("got %v", err)
	}
}

// What a candidate borrows has to be what the release says; who has made it does not matter.
func TestLend(t *testing.T) {
	const path = "/api/v1/namespaces/shop/configmaps"
	want := object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: shop}, data: {a: "1"}}`)
	for text, wrong := range map[string]string{
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"shop","uid":"x"},"data":{"a":"1"}}`: "",
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"shop","uid":"x"},"data":{"a":"2"}}`: "ConfigMap shop/c: data: exists and is not what the release makes of it",
	} {
		s := &server{answers: map[string]string{"POST " + path: "409", "GET " + path + "/c": text}}
		verb, err := New(s).Do(t.Context(), course.Effect{Verb: course.Lend, Object: want})
		if verb != "" || (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("got %q, %v", verb, err)
		}
	}
}

// A released object keeps what others apply; where nobody else does, our part in it stays.
func TestRelease(t *testing.T) {
	const path = "PATCH /api/v1/namespaces/shop/configmaps/c"
	for managers, want := range map[string]string{
		`[{manager: wheelwright-canary, operation: Update}, {manager: spoke, operation: Apply}]`: `{"metadata":{"labels":{"wheelwright.dev/candidate-of":null},"managedFields":[{"manager":"spoke","operation":"Apply"}],"resourceVersion":"7"}}`,
		`[{manager: wheelwright-canary, operation: Update}]`:                                     `{"metadata":{"labels":{"wheelwright.dev/candidate-of":null},"resourceVersion":"7"}}`,
	} {
		s := &server{answers: map[string]string{path: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"shop"}}`}}
		o := object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: shop, resourceVersion: "7", labels: {wheelwright.dev/candidate-of: web}, managedFields: `+managers+`}}`)
		if _, err := New(s).Do(t.Context(), course.Effect{Verb: course.Release, Object: o}); err != nil || string(s.asked[0].Body) != want {
			t.Errorf("got %s, %v", s.asked[0].Body, err)
		}
	}
}
