package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

func TestMain(m *testing.M) { harness.Main(m) }

// long tells whether every cell is tried, or each of a few.
func long() bool { return os.Getenv("WHEELWRIGHT_FIGURES") != "" }

// stage is a namespace of a real cluster with the routers' own definitions, and the plugin's service on
// a connection whose requests are counted and can be cut off.
type stage struct {
	*testing.T
	namespace string
	client    *kube.Client
	wire      *wire
	canary    *canary
}

var definitions sync.Once // of the shared cluster

func newStage(t *testing.T, router string) *stage {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an API server")
	}
	c := harness.Shared(t, 1)[0]
	defineRoutes(t, c)
	return stageOn(t, router, c)
}

// defineRoutes gives the shared cluster the routers' definitions.
func defineRoutes(t *testing.T, c *harness.Cluster) {
	t.Helper()
	definitions.Do(func() {
		gateway, istio, err := controlplane.RouteCRDs(t.Context())
		if err != nil {
			t.Skipf("the definitions of routes cannot be had: %v", err)
		}
		for _, file := range []string{gateway, istio} {
			if _, err := c.Kubectl("apply", "--server-side", "-f", file); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"); err != nil {
			t.Fatal(err)
		}
	})
}

// stageOn is a stage on a cluster of its own definitions.
func stageOn(t *testing.T, router string, c *harness.Cluster) *stage {
	t.Helper()
	client, err := kube.Open(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := &stage{T: t, namespace: c.NewNamespace(t), client: client, wire: &wire{real: client}}
	s.canary = &canary{settings: settings{router: router, selectorKeys: strategy.SelectorKeys(), minimum: 20},
		open: func() (cluster.Server, func(), error) { return s.wire, func() {}, nil }, log: slog.New(slog.DiscardHandler)}
	return s
}

// wire counts requests and, where cut is not 0, ends everything after that many.
type wire struct {
	real cluster.Server
	mu   sync.Mutex
	seen []string
	cut  int
	end  context.CancelFunc
}

func (w *wire) Do(ctx context.Context, r kube.Request, into any) error {
	w.mu.Lock()
	if w.cut > 0 && len(w.seen) >= w.cut {
		w.mu.Unlock()
		return context.Canceled
	}
	w.seen = append(w.seen, r.Method+" "+r.Path)
	last := w.cut > 0 && len(w.seen) == w.cut
	w.mu.Unlock()
	err := w.real.Do(ctx, r, into)
	if last {
		w.end()
	}
	return err
}

// cutting runs one call and cuts it off after so many requests; 0: never. It answers what was asked.
func (s *stage) cutting(after int, call func(context.Context) error) (requests []string, err error) {
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	s.wire.seen, s.wire.cut, s.wire.end = nil, after, cancel
	err = call(ctx)
	s.wire.cut = 0
	return s.wire.seen, err
}

func reads(requests []string) (n int) {
	for _, r := range requests {
		if strings.HasPrefix(r, " ") || strings.HasPrefix(r, "GET ") {
			n++
		}
	}
	return n
}

// apply is what the spoke does with a release: its own fields, by its own name.
func (s *stage) apply(objects []strategy.Object) {
	s.Helper()
	for _, o := range objects {
		if g := document.Group(o); g == "flagger.app" || document.Text(o, "kind") == "Namespace" {
			continue
		}
		text, err := json.Marshal(o)
		if err != nil {
			s.Fatal(err)
		}
		kind := strings.ToLower(document.Text(o, "kind"))
		path := kube.Resource{APIVersion: document.Text(o, "apiVersion"), Plural: map[bool]string{true: kind + "es", false: kind + "s"}[strings.HasSuffix(kind, "s")]}.
			Path(s.namespace, document.Text(o, "metadata", "name"))
		var made map[string]any
		err = s.client.Do(s.Context(), kube.Request{Method: "PATCH", Path: path + "?fieldManager=spoke&force=true", Type: "application/apply-patch+yaml", Body: text}, &made)
		if err != nil {
			s.Fatalf("%s: %v", cluster.ID(o), err)
		}
	}
}

// found is everything of the kinds that a canary could touch, without what a server counts. Pods come
// and go with their workloads.
func (s *stage) found() string {
	s.Helper()
	var out []string
	for _, r := range []kube.Resource{{APIVersion: "v1", Plural: "services"}, {APIVersion: "apps/v1", Plural: "deployments"}, {APIVersion: "autoscaling/v2", Plural: "horizontalpodautoscalers"},
		{APIVersion: "v1", Plural: "configmaps"}, {APIVersion: "v1", Plural: "secrets"}, {APIVersion: "v1", Plural: "serviceaccounts"}, {APIVersion: "networking.k8s.io/v1", Plural: "ingresses"},
		{APIVersion: "gateway.networking.k8s.io/v1", Plural: "httproutes"}, {APIVersion: "networking.istio.io/v1", Plural: "virtualservices"}, {APIVersion: "networking.istio.io/v1", Plural: "destinationrules"}} {
		list, err := s.client.List(s.Context(), r, s.namespace, "")
		if err != nil {
			s.Fatal(err)
		}
		for _, o := range list {
			for _, key := range []string{"resourceVersion", "generation", "managedFields"} {
				delete(o["metadata"].(map[string]any), key)
			}
			delete(o, "status")
			text, err := yaml.Marshal(o)
			if err != nil {
				s.Fatal(err)
			}
			out = append(out, "# "+r.Plural+"\n"+string(text))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "---\n")
}

// left counts what is ours in the namespace.
func (s *stage) left() (left []string) {
	s.Helper()
	for text := range strings.SplitSeq(s.found(), "---\n") {
		if strings.Contains(text, strategy.LabelCandidateOf) || strings.Contains(text, "wheelwright.dev/led") || strings.Contains(text, course.AnnotationMadeFor) {
			left = append(left, text)
		}
	}
	pods, err := s.client.List(s.Context(), kube.Pods(), s.namespace, strategy.LabelCandidateOf)
	if err != nil {
		s.Fatal(err)
	}
	for _, p := range pods {
		left = append(left, "Pod "+p.Name())
	}
	return left
}

// keepers are the managers of every object of a kind.
func (s *stage) keepers(plural string) string {
	s.Helper()
	var out []string
	for _, o := range s.list("v1", plural) {
		for _, m := range o.Mappings("metadata", "managedFields") {
			out = append(out, o.Name()+" "+m.Text("manager")+" "+m.Text("operation"))
		}
	}
	return strings.Join(out, "\n")
}

// whole wants every rule of every route to lead all of its requests to Services that are there, and every
// Service of the release to have a ready pod. It says what is not so.
func (s *stage) whole() error {
	services, pods := map[string]kube.Object{}, s.list("v1", "pods")
	for _, o := range s.list("v1", "services") {
		services[o.Name()] = o
		ready := slices.ContainsFunc(pods, func(p kube.Object) bool {
			for key, value := range o.Texts("spec", "selector") {
				if p.Text("metadata", "labels", key) != value {
					return false
				}
			}
			return p.Condition("Ready").Text("status") == "True"
		})
		if !ready && o.At("metadata", "labels", strategy.LabelCandidateOf) == nil {
			return fmt.Errorf("Service %s selects %v, of which no pod is ready", o.Name(), o.At("spec", "selector"))
		}
	}
	check := func(route kube.Object, refs []kube.Object, name func(kube.Object) string) error {
		var total int64
		for _, ref := range refs {
			weight, given := ref.Int("weight")
			if !given {
				weight = 100
			}
			total += weight
			if weight > 0 && services[name(ref)] == nil {
				return fmt.Errorf("%s leads %d to %s, which is not there", route.Name(), weight, name(ref))
			}
		}
		if total <= 0 || total%100 != 0 && total != 1 {
			return fmt.Errorf("%s leads %d of its requests", route.Name(), total)
		}
		return nil
	}
	for _, route := range s.list("networking.istio.io/v1", "virtualservices") {
		for _, rule := range route.Mappings("spec", "http") {
			if err := check(route, rule.Mappings("route"), func(r kube.Object) string { return r.Text("destination", "host") }); err != nil {
				return err
			}
		}
	}
	for _, route := range s.list("gateway.networking.k8s.io/v1", "httproutes") {
		for _, rule := range route.Mappings("spec", "rules") {
			if err := check(route, rule.Mappings("backendRefs"), func(r kube.Object) string { return r.Text("name") }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *stage) list(version, plural string) []kube.Object {
	s.Helper()
	list, err := s.client.List(s.Context(), kube.Resource{APIVersion: version, Plural: plural}, s.namespace, "")
	if err != nil {
		s.Fatal(err)
	}
	return list
}

// settle waits until the stable workloads are as their autoscalers want them.
func (s *stage) settle() {
	s.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		waits := ""
		scalers, err := s.client.List(s.Context(), kube.Resource{APIVersion: "autoscaling/v2", Plural: "horizontalpodautoscalers"}, s.namespace, "")
		if err != nil {
			s.Fatal(err)
		}
		list, err := s.client.List(s.Context(), kube.Resource{APIVersion: "apps/v1", Plural: "deployments"}, s.namespace, "")
		if err != nil {
			s.Fatal(err)
		}
		for _, o := range list {
			generation, _ := o.Int("metadata", "generation")
			observed, _ := o.Int("status", "observedGeneration")
			want, _ := o.Int("spec", "replicas")
			have, _ := o.Int("status", "availableReplicas")
			all, _ := o.Int("status", "replicas")
			if observed < generation || have < want || all != want {
				waits = fmt.Sprintf("%s: %d of %d", o.Name(), have, want)
			}
			for _, scaler := range scalers {
				if least, _ := scaler.Int("spec", "minReplicas"); scaler.Text("spec", "scaleTargetRef", "name") == o.Name() && want < least {
					waits = o.Name() + " is to be scaled"
				}
			}
		}
		if waits == "" {
			return
		}
		if time.Now().After(deadline) {
			s.Fatal(waits)
		}
		if !sleep(s.Context(), 100*time.Millisecond) {
			s.Fatal(s.Context().Err())
		}
	}
}
