package realnode_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/wheelwright-dev/wheelwright/integration/realnode"
)

// answer is one that a user got of the application.
type answer struct {
	begin, end         time.Time
	insider, candidate bool
	version            string
}

// witness looks at every answer that users get, whoever of them asked.
type witness struct {
	next http.RoundTripper

	mu       sync.Mutex
	answers  []answer
	failed   []time.Time
	complain map[string]int
}

func newWitness() *witness {
	return &witness{next: &http.Transport{DisableKeepAlives: true}, complain: map[string]int{}}
}

func (w *witness) RoundTrip(r *http.Request) (*http.Response, error) {
	begin := time.Now()
	response, err := w.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(r, response, body, begin)
	return response, nil
}

// noteLocked keeps what an answer tells, and what it lacks of what the route's own rules add.
func (w *witness) noteLocked(r *http.Request, response *http.Response, body []byte, begin time.Time) {
	if response.StatusCode >= http.StatusBadRequest {
		w.failed = append(w.failed, begin)
	}
	if response.StatusCode == http.StatusBadGateway {
		return // the gateway's own: nobody was reached
	}
	if r.URL.Path == "/headers" {
		if !strings.Contains(string(body), `"docs"`) || response.Header.Get("X-Edge") != "" {
			w.complain["an answer of the other rule was not as that rule says"]++
		}
		return
	}
	if response.Header.Get("X-Edge") != "own" {
		w.complain["an answer lacks the header that the route's own filter sets"]++
	}
	var info struct{ Hostname, Message string }
	if r.URL.Path != "/api/info" || response.StatusCode != http.StatusOK || json.Unmarshal(body, &info) != nil {
		return
	}
	w.answers = append(w.answers, answer{begin, time.Now(), r.Header.Get("X-Group") == "insider", strings.HasPrefix(info.Hostname, "backend-canary-"), info.Message})
}

// between are the answers to requests that began and ended then.
func (w *witness) between(from, to time.Time) []answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.answers), func(a answer) bool { return a.begin.Before(from) || a.end.After(to) })
}

// failures counts the answers since then that were errors.
func (w *witness) failures(since time.Time) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range w.failed {
		if !at.Before(since) {
			n++
		}
	}
	return n
}

func (w *witness) problems() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, n := range w.complain {
		all = append(all, fmt.Sprintf("%s (%d times)", what, n))
	}
	clear(w.complain)
	return all
}

// span is a while in which the gateway led in one way: it had taken that before, and nothing newer was there.
type span struct {
	how        string
	generation int64
	from, to   time.Time
}

// routeWatch looks at a route ten times a second.
type routeWatch struct {
	routes       dynamic.ResourceInterface
	name, stable string         // the route, and the Service that it leads to
	first        map[string]any // its spec

	mu       sync.Mutex
	ways     []string
	all      []span
	complain map[string]bool
}

func watchRoute(t *testing.T, node *realnode.Node, namespace, name, stable string) *routeWatch {
	t.Helper()
	client, err := dynamic.NewForConfig(node.Cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	routes := client.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"})
	w := &routeWatch{routes: routes.Namespace(namespace), name: name, stable: stable, complain: map[string]bool{}}
	o, err := w.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.first, _ = o.Object["spec"].(map[string]any)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			begin := time.Now()
			if o, err := w.get(ctx); err == nil {
				w.see(o, begin, time.Now())
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *routeWatch) get(ctx context.Context) (*unstructured.Unstructured, error) {
	return w.routes.Get(ctx, w.name, metav1.GetOptions{})
}

// see takes in what the route was at some moment between begin and end.
func (w *routeWatch) see(o *unstructured.Unstructured, begin, end time.Time) {
	spec, _ := o.Object["spec"].(map[string]any)
	how, problems := w.read(spec)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range problems {
		w.complain[fmt.Sprintf("while the route led %q, %s: %s", how, p, text(spec))] = true
	}
	if len(w.ways) == 0 || w.ways[len(w.ways)-1] != how {
		w.ways = append(w.ways, how)
	}
	if !taken(o) {
		return
	}
	if n := len(w.all); n > 0 && w.all[n-1].generation == o.GetGeneration() {
		w.all[n-1].to = begin
		return
	}
	w.all = append(w.all, span{how, o.GetGeneration(), end, end})
}

// taken tells whether the gateway leads by what the route says now.
func taken(o *unstructured.Unstructured) bool {
	parents, _, _ := unstructured.NestedSlice(o.Object, "status", "parents")
	if len(parents) == 0 {
		return false
	}
	parent, _ := parents[0].(map[string]any)
	conditions, _, _ := unstructured.NestedSlice(parent, "conditions")
	if len(conditions) == 0 {
		return false
	}
	condition, _ := conditions[0].(map[string]any)
	return condition["status"] == "True" && condition["observedGeneration"] == o.GetGeneration()
}

// read tells how a route leads, and what of the vendor's own is not there any more: "stable", a percentage,
// "header" or "mirror".
func (w *routeWatch) read(spec map[string]any) (how string, problems []string) {
	how = "stable"
	first, _, _ := unstructured.NestedSlice(w.first, "rules")
	rules, _, _ := unstructured.NestedSlice(spec, "rules")
	if text(spec["hostnames"]) != text(w.first["hostnames"]) || text(spec["parentRefs"]) != text(w.first["parentRefs"]) {
		problems = append(problems, "its hosts or parents were others")
	}
	if len(rules) == 0 || text(rules[0]) != text(first[0]) {
		problems = append(problems, "its other rule was another")
	}
	for i, one := range rules[min(1, len(rules)):] {
		rule, _ := one.(map[string]any)
		own := first[1].(map[string]any)
		filters, _, _ := unstructured.NestedSlice(rule, "filters")
		if text(rule["timeouts"]) != text(own["timeouts"]) || len(filters) == 0 || !strings.Contains(text(filters[0]), `{"name":"X-Edge","value":"own"}`) {
			problems = append(problems, fmt.Sprintf("rule %d lacked its filter or timeout", i+1))
		}
		if strings.Contains(text(filters), w.stable+"-canary") {
			how = "mirror"
		}
		weights, sum := map[string]int64{}, int64(0)
		refs, _, _ := unstructured.NestedSlice(rule, "backendRefs")
		for _, r := range refs {
			ref, _ := r.(map[string]any)
			weight, _ := ref["weight"].(int64)
			name, _ := ref["name"].(string)
			weights[name], sum = weight, sum+weight
		}
		switch share := 100 * weights[w.stable+"-canary"] / max(sum, 1); {
		case share > 0 && strings.Contains(text(rule["matches"]), "headers"):
			how = "header"
		case share > 0:
			how = fmt.Sprint(share)
		}
	}
	return how, problems
}

// forget begins a new way.
func (w *routeWatch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ways, w.all, w.complain = nil, nil, map[string]bool{}
}

// way is how the route led, one after the other.
func (w *routeWatch) way() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ways)
}

func (w *routeWatch) spans() []span {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.all)
}

func (w *routeWatch) problems() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for what := range w.complain {
		all = append(all, what)
	}
	return all
}
