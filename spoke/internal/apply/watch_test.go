package apply_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// guard runs a watch until the test ends, and then looks for goroutines that it left behind.
func guard(t *testing.T, hand *apply.Cluster) *apply.Watch {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	w := hand.Watch("shop")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the watch ended with %v", err)
		}
		hand.Close()
		goleak.VerifyNone(t, leaks, goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"), goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"))
	})
	return w
}

func woken(t *testing.T, w *apply.Watch, what string) {
	t.Helper()
	select {
	case <-w.Wake():
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: nobody was woken", what)
	}
}

// settled corrects until nothing is left to correct and nobody is woken any more.
func (b bench) settled(t *testing.T, w *apply.Watch, set apply.Set, inv apply.Inventory) apply.Inventory {
	t.Helper()
	b.Eventually(t, "quiet", func() (err error) {
		var drifted []apply.Drifted
		if inv, drifted, err = b.hand.Drift(t.Context(), set, inv, true); err != nil {
			return err
		}
		w.Follow(inv)
		select {
		case <-w.Wake():
			return fmt.Errorf("woken again, after %v", told(drifted))
		default:
		}
		if n := w.Suspects(); n != 0 || len(drifted) != 0 {
			return fmt.Errorf("%d suspects, %v", n, told(drifted))
		}
		return nil
	})
	return inv
}

// What somebody deletes or changes wakes; what controllers write into statuses, and what nobody
// declared, does not.
func TestWatchWakesForDriftOnly(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	set := setOf(ns, "1.0.0", shop(t, ns, "blue"))
	inv := b.install(t, set)
	b.healthy(t, inv)
	w := guard(t, b.hand)
	b.kubectl(t, "-n", ns, "patch", "configmap", "backend", "-p", `{"data":{"key":"before anybody watched"}}`)
	w.Follow(inv)
	woken(t, w, "what changed before the watch began")
	inv = b.settled(t, w, set, inv)

	mark := b.MarkRequests(t)
	b.kubectl(t, "-n", ns, "scale", "deployment", "cache", "--replicas=2")
	b.kubectl(t, "-n", ns, "annotate", "deployment", "cache", "note=mine")
	b.healthy(t, inv) // statuses were written
	select {
	case <-w.Wake():
		t.Error("what is nobody's business wakes")
	default:
	}
	if n := w.Suspects(); n != 0 {
		t.Errorf("%d suspects after what is nobody's business", n)
	}
	b.kubectl(t, "-n", ns, "set", "image", "deployment/backend", "backend=podinfo:mine") // comes after, on the same stream
	woken(t, w, "a field of ours")
	if n := w.Suspects(); n != 1 {
		t.Errorf("%d suspects, want one", n)
	}
	for _, r := range b.Requests(t, mark, "wheelwright") {
		if r.Verb != "list" && r.Verb != "watch" {
			t.Errorf("the watch asks for more than metadata: %s %s", r.Verb, r.URI)
		}
	}
	inv = b.settled(t, w, set, inv)
	for what, spoil := range map[string][]string{
		"deleted":                {"delete", "service", "backend"},
		"without our label":      {"label", "secret", "backend", "wheelwright.dev/distribution-"},
		"the inventory deleted":  {"delete", "configmap", "wheelwright-shop"},
		"the inventory emptied":  {"patch", "configmap", "wheelwright-shop", "--type=json", "-p", `[{"op":"remove","path":"/binaryData"}]`},
		"what is in no workload": {"patch", "hpa", "backend", "-p", `{"spec":{"maxReplicas":9}}`},
	} {
		b.kubectl(t, append([]string{"-n", ns}, spoil...)...)
		woken(t, w, what)
		if w.Suspects() == 0 {
			t.Errorf("%s: nothing is suspect", what)
		}
		inv = b.settled(t, w, set, inv)
	}
	if stored, found, err := b.hand.ReadInventory(t.Context(), "shop", ns); err != nil || !found || len(stored.Items) != 10 {
		t.Errorf("the inventory was not written again: %v, %v", found, err)
	}

	b.kubectl(t, "-n", ns, "delete", "service", "backend")
	woken(t, w, "deleted")
	_, drifted, err := b.hand.Drift(t.Context(), set, inv, false)
	if err != nil || len(drifted) != 1 {
		t.Fatalf("%v, %v", told(drifted), err)
	}
	w.Follow(inv)
	select {
	case <-w.Wake():
		t.Error("what is only reported wakes again and again")
	default:
	}
	if n := w.Suspects(); n != 1 {
		t.Errorf("%d suspects, want the Service", n)
	}
	w.Follow(apply.Inventory{}) // drift is the provider's own from now on
	if n := w.Suspects(); n != 0 {
		t.Errorf("%d suspects of nothing", n)
	}
}

// gate is the way to the API server; it can be shut, and spoil what comes through.
type gate struct {
	next http.RoundTripper

	mu      sync.Mutex
	shut    bool
	expired int // watches of ConfigMaps that are still to be told that their version is too old
	cut     []context.CancelFunc
	asked   []string
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	watch := r.URL.Query().Get("watch") == "true"
	g.asked = append(g.asked, fmt.Sprintf("%s watch=%v", r.URL.Path, watch))
	if g.shut {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	if watch && g.expired > 0 && strings.HasSuffix(r.URL.Path, "/configmaps") {
		g.expired--
		body := `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}}`
		return &http.Response{StatusCode: http.StatusOK, Request: r, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
	if !watch {
		return g.next.RoundTrip(r)
	}
	ctx, cut := context.WithCancel(r.Context())
	g.cut = append(g.cut, cut)
	return g.next.RoundTrip(r.WithContext(ctx))
}

// close shuts the gate or opens it; shutting ends every stream.
func (g *gate) close(shut bool) (asked []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, cut := range g.cut {
		cut()
	}
	asked, g.cut, g.asked = g.asked, nil, nil
	return asked
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.asked)
}

func gated(t *testing.T, b bench) (*apply.Cluster, *gate) {
	t.Helper()
	g := &gate{}
	hand, err := apply.New(apply.Config{Kubeconfig: b.Kubeconfig, WrapTransport: func(next http.RoundTripper) http.RoundTripper {
		g.next = next
		return g
	}})
	if err != nil {
		t.Fatal(err)
	}
	return hand, g
}

// While the API is away few requests are made, and when it is back what happened meanwhile is noticed.
func TestWatchOutlivesTheAPI(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	set := setOf(ns, "1.0.0", objects(t, configMap("a", "1"), "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"))
	inv := b.install(t, set)
	hand, g := gated(t, b)
	w := guard(t, hand)
	w.Follow(inv)
	inv = b.settled(t, w, set, inv)
	b.Eventually(t, "three streams", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if n := len(g.cut); n != 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})

	g.close(true)
	began := time.Now()
	b.kubectl(t, "-n", ns, "patch", "configmap", "a", "-p", `{"data":{"key":"while nobody looked"}}`)
	b.kubectl(t, "-n", ns, "delete", "serviceaccount", "a")
	const streams = 3
	b.Eventually(t, "a few tries of each stream", func() error {
		if n := g.count(); n < 3*streams {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	took := time.Since(began)
	asked := g.close(false)
	if most := streams * (2 + math.Log2(took.Seconds()/0.125+1)); float64(len(asked)) > most {
		t.Errorf("%d requests in %s to an API that is away, want at most %.0f", len(asked), took, most)
	}
	woken(t, w, "what happened while the API was away")
	b.Eventually(t, "both are noticed", func() error {
		if n := w.Suspects(); n != 2 {
			return fmt.Errorf("%d suspects", n)
		}
		return nil
	})
	inv = b.settled(t, w, set, inv)

	g.mu.Lock()
	g.expired = 2
	g.mu.Unlock()
	g.close(true) // every stream starts anew
	b.kubectl(t, "-n", ns, "patch", "configmap", "a", "-p", `{"data":{"key":"while it was forgotten"}}`)
	g.close(false)
	woken(t, w, "what happened before a list anew")
	b.settled(t, w, set, inv)
	if asked := g.close(false); !slices.Contains(asked, "/api/v1/namespaces/"+ns+"/configmaps watch=false") {
		t.Errorf("a version that is too old needs a list: %q", asked)
	}
}

// A Follow that comes before the API does waits for it.
func TestWatchBeginsWithoutTheAPI(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	set := setOf(ns, "1.0.0", objects(t, configMap("a", "1")))
	inv := b.install(t, set)
	hand, g := gated(t, b)
	g.close(true)
	w := guard(t, hand)
	w.Follow(inv)
	b.Eventually(t, "a try", func() error {
		if g.count() == 0 {
			return errors.New("none")
		}
		return nil
	})
	if n := w.Suspects(); n != 0 {
		t.Errorf("%d suspects where nothing is known", n)
	}
	b.kubectl(t, "-n", ns, "delete", "configmap", "a")
	g.close(false)
	woken(t, w, "what was deleted before the API could be reached")
}

// What another manager changes or deletes on an idle
// cluster is put back, by a wake and a Drift.
func TestDriftIsCorrectedSoon(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	const each, rounds = 5, 5
	kinds := []struct {
		gvr              schema.GroupVersionResource
		manifest, change string
	}{
		{schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, configMap("NAME", "ours"), `{"data":{"key":"theirs"}}`},
		{schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, "apiVersion: v1\nkind: Secret\nmetadata: {name: NAME}\ndata: {key: b3Vycw==}\n", `{"data":{"key":"dGhlaXJz"}}`},
		{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {selector: {app: ours}, ports: [{port: 80}]}\n", `{"spec":{"selector":{"app":"theirs"}}}`},
		{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, strings.Replace(deployment("NAME", "podinfo:1"), "spec:\n  selector", "spec:\n  minReadySeconds: 1\n  replicas: 0\n  selector", 1), `{"spec":{"template":{"metadata":{"labels":{"app":"NAME","mark":"theirs"}}},"replicas":0,"minReadySeconds":7}}`},
	}
	var manifests []string
	for n := range each {
		for _, k := range kinds {
			manifests = append(manifests, strings.ReplaceAll(k.manifest, "NAME", fmt.Sprintf("thing-%d", n)))
		}
	}
	set := setOf(ns, "1.0.0", objects(t, manifests...))
	inv := b.install(t, set)
	w := guard(t, b.hand)
	w.Follow(inv)
	inv = b.settled(t, w, set, inv)

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { // as the agent does
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-w.Wake():
			}
			next, _, err := b.hand.Drift(ctx, set, inv, true)
			if err != nil && ctx.Err() == nil {
				done <- err
				return
			}
			inv = next
			w.Follow(inv)
		}
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	client, err := dynamic.NewForConfig(b.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	var times []time.Duration
	for round := range rounds {
		for n := range each {
			for _, k := range kinds {
				things, name := client.Resource(k.gvr).Namespace(ns), fmt.Sprintf("thing-%d", n)
				live, err := things.Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				uid, deletes := live.GetUID(), (round+n)%3 == 0
				if deletes {
					err = things.Delete(ctx, name, metav1.DeleteOptions{})
				} else { // a manager of its own each time: this is no fight
					_, err = things.Patch(ctx, name, types.MergePatchType, []byte(strings.ReplaceAll(k.change, "NAME", name)), metav1.PatchOptions{FieldManager: fmt.Sprintf("hostile-%d", round)})
				}
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				b.Eventually(t, k.gvr.Resource+"/"+name, func() error { return restored(ctx, things, name, uid, deletes) })
				times = append(times, time.Since(began))
			}
		}
	}
	slices.Sort(times)
	p99 := times[(len(times)*99+99)/100-1]
	fmt.Printf("FIGURE drift.correct-p99 %.2f s of %d changes and deletions of 4 kinds, median %.2f s, largest %.2f s\n", p99.Seconds(), len(times), times[len(times)/2].Seconds(), times[len(times)-1].Seconds())
	if p99 > 5*time.Second {
		t.Errorf("the slowest took %s", times[len(times)-1])
	}
}

// restored: the object is there again, or what was ours of it is ours.
func restored(ctx context.Context, things dynamic.ResourceInterface, name string, uid types.UID, deleted bool) error {
	live, err := things.Get(ctx, name, metav1.GetOptions{})
	switch {
	case err != nil:
		return err
	case deleted && live.GetUID() == uid:
		return errors.New("it is still the one that was deleted")
	case deleted:
		return nil
	}
	raw, err := live.MarshalJSON()
	if err != nil {
		return err
	}
	for _, theirs := range []string{`"key":"theirs"`, `"key":"dGhlaXJz"`, `"app":"theirs"`, `"minReadySeconds":7`} {
		if strings.Contains(string(raw), theirs) {
			return fmt.Errorf("it has %s", theirs)
		}
	}
	return nil
}
