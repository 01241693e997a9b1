package reversal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/reversal"
)

// Every pair is carried out on a real API server: the old release and an object of it, the next release
// and what it writes, and back as the verdict says. Then the old release has to find its object as it
// was, and to be able to write it and others. Where definitions are kept, putting the old one back has to
// fail or to lose what was written since; where the verdict is OneWay, the way through next has to fail.
func TestTheVerdictsAreRightOnARealAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server")
	}
	h, err := harness.Start(t.Context(), harness.Options{Clusters: 1, Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := h.Clusters()[0]
	config := c.RESTConfig()
	config.QPS = -1
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	namespace := c.NewNamespace(t)
	right := 0
	for _, p := range pairs {
		t.Run(p.name, func(t *testing.T) {
			u := &upgrade{pair: p, client: client, host: config.Host, namespace: namespace}
			t.Cleanup(u.clean)
			if u.carryOut(t) && !t.Failed() {
				right++
			}
		})
	}
	fmt.Printf("FIGURE reversibility.right %d verdicts of %d each carried out on a real API server\n", right, len(pairs))
}

// upgrade is one pair under way.
type upgrade struct {
	pair
	client          *http.Client
	host, namespace string
	applied         int
}

// carryOut tells whether the API server agrees with the verdict.
func (u *upgrade) carryOut(t *testing.T) bool {
	old, next := u.definition(t, u.old), u.definition(t, u.next)
	if old != nil {
		u.mustDefine(t, old[0])
		if err := u.oldRelease("first"); err != nil {
			t.Fatalf("the old release does not work: %v", err)
		}
	}
	verdict := reversal.Judge(old, next, map[string][]string{u.crd(): u.storedVersions()})
	if verdict.Verdict != u.want {
		t.Errorf("got %s, want %s: %q", verdict.Verdict, u.want, verdict.Reasons)
		return false
	}
	refused := error(nil)
	if next != nil {
		if refused = u.define(t, next[0]); refused == nil {
			u.newRelease(t)
		}
	}
	if verdict.Verdict == fleet.OneWay {
		if refused == nil {
			refused = u.oldRelease("after")
		}
		t.Logf("one way: %v", refused)
		if refused == nil {
			t.Error("called OneWay, and the old release works on")
		}
		return refused != nil
	}
	if refused != nil {
		t.Fatalf("next is refused: %v", refused)
	}
	if verdict.Verdict == fleet.Reversible && next != nil {
		u.mustDefine(t, old[0])
	}
	if err := u.oldRelease("after"); err != nil && old != nil {
		t.Errorf("called %s, and the old release does not work: %v", verdict.Verdict, err)
	}
	if verdict.Verdict == fleet.ReversibleKeepingCRDs && old != nil {
		u.wantLoss(t, old[0])
	}
	return true
}

// newRelease writes as the next release would: what it adds to the old object, and at least a label, so
// that the object is stored anew. A write that next's own schema refuses is not this test's matter.
func (u *upgrade) newRelease(t *testing.T) {
	version := u.stored(u.next)
	if strings.Contains(u.next, "Webhook") {
		version = u.uses() // there is nobody to convert
	}
	if u.old == "" {
		if _, err := u.apply(version, "first"); err != nil {
			t.Fatalf("an object of the new definition: %v", err)
		}
		return
	}
	patch := u.newer
	if patch == "" {
		patch = "{}"
	}
	for _, body := range []string{patch, `{"metadata":{"labels":{"release":"next"}}}`} {
		if _, err := u.do(http.MethodPatch, u.path(version, "first"), "application/merge-patch+json", []byte(body)); err != nil {
			t.Logf("next writes: %v", err)
		}
	}
}

// wantLoss puts the old definition back all the same: it is refused, or does not take what next took.
func (u *upgrade) wantLoss(t *testing.T, old *unstructured.Unstructured) {
	if err := u.define(t, old); err != nil {
		t.Logf("kept, for the old definition is refused: %v", err)
		return
	}
	got, err := u.write(u.uses(), "other", u.newer)
	if err == nil {
		err = contains(got, u.newer)
	}
	t.Logf("kept, for the old definition loses: %v", err)
	if err == nil {
		t.Error("kept, and the old definition could have been put back")
	}
}

// oldRelease reads its object, writes it again, and makes another one.
func (u *upgrade) oldRelease(stage string) error {
	if stage != "first" {
		got, err := u.do(http.MethodGet, u.path(u.uses(), "first"), "", nil)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if u.newer == "" { // else the next release changed it
			if err := contains(got, u.spec()); err != nil {
				return fmt.Errorf("read: %w", err)
			}
		}
	}
	for _, name := range []string{"first", stage} {
		got, err := u.apply(u.uses(), name)
		if err == nil {
			err = contains(got, u.spec())
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func (u *upgrade) spec() string {
	if u.pair.object == "" {
		return `{"spec":{"notes":"mine","size":"small"}}`
	}
	return u.pair.object
}

func (u *upgrade) apply(version, name string) (map[string]any, error) {
	return u.write(version, name, u.spec())
}

func (u *upgrade) write(version, name, spec string) (map[string]any, error) {
	body := strings.Replace(spec, "{", fmt.Sprintf(`{"apiVersion":"%s/%s","kind":"Widget","metadata":{"name":%q},`, u.group(), version, name), 1)
	return u.do(http.MethodPatch, u.path(version, name)+"?fieldManager=old&force=true", "application/apply-patch+yaml", []byte(body))
}

func (u *upgrade) list(version string) string {
	return "/apis/" + u.group() + "/" + version + "/namespaces/" + u.namespace + "/widgets"
}

func (u *upgrade) path(version, name string) string { return u.list(version) + "/" + name }

const definitionsPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"

func (u *upgrade) mustDefine(t *testing.T, crd *unstructured.Unstructured) {
	t.Helper()
	if err := u.define(t, crd); err != nil {
		t.Fatalf("definition refused: %v", err)
	}
}

// define applies a definition and waits until requests are answered by it: each one has a column of its
// own, which tables show.
func (u *upgrade) define(t *testing.T, crd *unstructured.Unstructured) error {
	t.Helper()
	u.applied++
	column := fmt.Sprintf("definition-%d", u.applied)
	crd = crd.DeepCopy()
	versions := crd.Object["spec"].(map[string]any)["versions"].([]any)
	served := ""
	for _, item := range versions {
		v := item.(map[string]any)
		v["additionalPrinterColumns"] = []any{map[string]any{"name": column, "type": "string", "jsonPath": ".spec.size"}}
		if v["served"] == true && v["storage"] == true || served == "" && v["served"] == true {
			served = v["name"].(string)
		}
	}
	body, err := json.Marshal(crd.Object)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.do(http.MethodPatch, definitionsPath+u.crd()+"?fieldManager=release&force=true", "application/apply-patch+yaml", body); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		table, err := u.do(http.MethodGet, u.list(served), "", nil)
		if err == nil && strings.Contains(fmt.Sprint(table["columnDefinitions"]), column) {
			return nil
		}
		if err != nil && strings.Contains(u.next, "Webhook") && strings.Contains(err.Error(), "conversion webhook") {
			return nil // nobody converts here: objects stored in another version stop this one's lists
		}
		if time.Now().After(deadline) {
			t.Fatalf("definition %s is not answered by: %v", u.crd(), err)
		}
	}
}

// stored is the storage version of a definition's text.
func (u *upgrade) stored(text string) string {
	if before, _, ok := strings.Cut(text, ", served: true, storage: true"); ok {
		return before[strings.LastIndex(before, " ")+1:]
	}
	return u.uses()
}

func (u *upgrade) storedVersions() (names []string) {
	crd, err := u.do(http.MethodGet, definitionsPath+u.crd(), "", nil)
	if err != nil {
		return nil
	}
	names, _, _ = unstructured.NestedStringSlice(crd, "status", "storedVersions")
	return names
}

func (u *upgrade) clean() { _, _ = u.do(http.MethodDelete, definitionsPath+u.crd(), "", nil) }

// do sends one request; the answer's error is the server's own words. Lists come as tables.
func (u *upgrade) do(method, path, contentType string, body []byte) (map[string]any, error) {
	request, err := http.NewRequestWithContext(context.Background(), method, u.host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	if strings.HasSuffix(path, "/widgets") {
		request.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	}
	response, err := u.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("%s: %.200s", response.Status, raw)
	}
	if response.StatusCode >= 300 {
		return nil, fmt.Errorf("%s: %v", response.Status, answer["message"])
	}
	return answer, nil
}

// contains tells which field of the wanted spec is not in the object.
func contains(object map[string]any, want string) error {
	var w map[string]map[string]any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		return err
	}
	for field, value := range w["spec"] {
		if got, _, _ := unstructured.NestedFieldNoCopy(object, "spec", field); got != value {
			return fmt.Errorf("spec.%s is %v, want %v", field, got, value)
		}
	}
	return nil
}
