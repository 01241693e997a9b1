package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// scaler is an autoscaler of the backend. Without metrics the cluster's controller still keeps to the
// bounds, so that each change of them makes it scale.
func scaler(least, most int) string {
	return fmt.Sprintf("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: backend}\nspec:\n  minReplicas: %d\n  maxReplicas: %d\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: backend}\n", least, most)
}

// counts are all the values that a Deployment's replicas had, in order.
type counts struct {
	mu     sync.Mutex
	last   string // the resource version that was seen last
	values []int64
	resets []string // changes of the number that the autoscaler did not make
}

// watchReplicas watches the backend until the test ends.
func (s *stage) watchReplicas(t *testing.T) *counts {
	t.Helper()
	client, err := dynamic.NewForConfig(s.cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	deployments := client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(s.ns)
	now, err := deployments.Get(t.Context(), "backend", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w, err := deployments.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=backend", ResourceVersion: now.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	c, done := &counts{}, make(chan struct{})
	c.see(now)
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			o, ok := e.Object.(*unstructured.Unstructured)
			if ctx.Err() != nil {
				return
			}
			if !ok || e.Type != watch.Modified {
				t.Errorf("the watch brought %s: %v", e.Type, e.Object)
				continue
			}
			c.see(o)
		}
		if ctx.Err() == nil {
			t.Error("the watch ended too early: values may have been missed")
		}
	}()
	t.Cleanup(func() {
		cancel()
		w.Stop()
		<-done
	})
	return c
}

// see notes a value where it is another one. The autoscaler made it where it has the field, by the scale
// subresource.
func (c *counts) see(o *unstructured.Unstructured) {
	n, found, err := unstructured.NestedInt64(o.Object, "spec", "replicas")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = o.GetResourceVersion()
	switch {
	case !found || err != nil:
		n = -1
	case len(c.values) > 0 && c.values[len(c.values)-1] == n:
		return
	}
	if len(c.values) > 0 && !scaledLast(o) {
		c.resets = append(c.resets, fmt.Sprintf("%d -> %d", c.values[len(c.values)-1], n))
	}
	c.values = append(c.values, n)
}

func scaledLast(o *unstructured.Unstructured) bool {
	return slices.ContainsFunc(o.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool {
		return e.Subresource == "scale" && e.FieldsV1 != nil && strings.Contains(e.FieldsV1.GetRawString(), `"f:replicas"`)
	})
}

// read waits until the watch has brought all there is.
func (c *counts) read(t *testing.T, s *stage) (values []int64, resets []string) {
	t.Helper()
	s.cluster.Eventually(t, "the watch to be up to date", func() error {
		now := s.kubectl(t, "get", "deployment", "backend", "-o", "jsonpath={.metadata.resourceVersion}")
		c.mu.Lock()
		defer c.mu.Unlock()
		values, resets = slices.Clone(c.values), slices.Clone(c.resets)
		if c.last != now {
			return fmt.Errorf("it is at %s, the Deployment at %s", c.last, now)
		}
		return nil
	})
	return values, resets
}

// scaledTo waits for the autoscaler.
func (s *stage) scaledTo(t *testing.T, n int) {
	t.Helper()
	s.cluster.Eventually(t, fmt.Sprintf("%d replicas", n), func() error {
		if got := s.kubectl(t, "get", "deployment", "backend", "-o", "jsonpath={.spec.replicas} {.status.readyReplicas}"); got != fmt.Sprintf("%d %[1]d", n) {
			return fmt.Errorf("wanted and ready are %s", got)
		}
		return nil
	})
}

// spoil changes the Deployment in two ways, and waits until both are put back. It is somebody else each
// time: this is no fight.
func (s *stage) spoil(t *testing.T, image, version string) {
	t.Helper()
	by := "--field-manager=hand-" + version
	s.kubectl(t, "set", "image", by, "deployment/backend", "app=registry.example.com/app:mine")
	s.putBack(t, "{.spec.template.spec.containers[0].image}", image)
	s.kubectl(t, "label", "--overwrite", by, "deployment", "backend", "app.kubernetes.io/version=mine")
	s.putBack(t, `{.metadata.labels.app\.kubernetes\.io/version}`, version)
}

func (s *stage) putBack(t *testing.T, path, want string) {
	t.Helper()
	s.cluster.Eventually(t, path+" to be put back", func() error {
		if got := s.kubectl(t, "get", "deployment", "backend", "-o", "jsonpath="+path); got != want {
			return fmt.Errorf("it is %s, want %s", got, want)
		}
		return nil
	})
}

// autoscaled is a cluster where an autoscaler has its bounds moved; how is the provider's or the vendor's.
type autoscaled struct {
	name string
	// release is what comes with a release when the bounds are to be these.
	release func(files map[string]string, least, most int) map[string]string
	// beside moves the bounds of an autoscaler that is not the release's.
	beside func(t *testing.T, s *stage, least, most int)
}

// TestAutoscalerKeepsItsReplicas upgrades and corrects what an autoscaler scales, whose release declares
// one replica: a watch sees every number there ever is.
func TestAutoscalerKeepsItsReplicas(t *testing.T) {
	var mu sync.Mutex
	resets, changes := 0, 0
	t.Run("whose", func(t *testing.T) {
		for _, a := range []autoscaled{
			{name: "of the release", release: func(files map[string]string, least, most int) map[string]string {
				return with(files, map[string]string{"hpa.yaml": scaler(least, most)})
			}},
			{name: "beside the release", beside: func(t *testing.T, s *stage, least, most int) {
				file := filepath.Join(t.TempDir(), "hpa.yaml")
				if err := os.WriteFile(file, []byte(scaler(least, most)), 0o600); err != nil {
					t.Fatal(err)
				}
				s.kubectl(t, "apply", "-f", file)
			}},
		} {
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				r, n := a.run(t)
				mu.Lock()
				defer mu.Unlock()
				resets, changes = resets+r, changes+n
			})
		}
	})
	fmt.Printf("FIGURE autoscaler.replica-resets %d resets of %d changes\n", resets, changes)
}

// run reports how often replicas were taken from the autoscaler, of how many upgrades and corrections.
func (a autoscaled) run(t *testing.T) (resets, changes int) {
	t.Helper()
	s := newStage(t)
	s.sub.HealthTimeout, s.every.Grace = time.Minute, time.Minute // every release is good: none waits for it
	version, image, patch := "", "", 0
	next := func(least, most int) {
		t.Helper()
		version, image = fmt.Sprintf("1.%d.0", patch), "registry.example.com/app:"+strconv.Itoa(patch)
		patch++
		files := app(version, image)
		if a.release != nil {
			files = a.release(files, least, most)
		}
		s.vendor.release(t, version, files)
		s.offer()
		s.reaches(fleet.Succeeded, version, version)
		changes++
	}
	s.vendor.release(t, "0.9.0", app("0.9.0", good))
	defer s.start(nil)()
	s.offer()
	s.reaches(fleet.Succeeded, "0.9.0", "0.9.0")
	seen := s.watchReplicas(t)
	want := []int64{1}
	// The last bounds make it scale down: that is the autoscaler's good right.
	for _, b := range []struct{ least, most, want int }{{1, 6, 1}, {3, 6, 3}, {5, 6, 5}, {2, 4, 4}} {
		if a.beside != nil {
			a.beside(t, s, b.least, b.most)
		} else {
			next(b.least, b.most)
		}
		s.scaledTo(t, b.want)
		if want[len(want)-1] != int64(b.want) {
			want = append(want, int64(b.want))
		}
		next(b.least, b.most)
		s.spoil(t, image, version)
		next(b.least, b.most)
		s.spoil(t, image, version)
		changes += 4
		s.scaledTo(t, b.want)
	}
	values, taken := seen.read(t, s)
	if !slices.Equal(values, want) {
		t.Errorf("replicas were %v, want %v", values, want)
	}
	if len(taken) > 0 {
		t.Errorf("not by the autoscaler: %v", taken)
	}
	return len(taken), changes
}

// TestAFightIsStopped: somebody who takes the same field again and again has it in the end, until another
// release, and both are named.
func TestAFightIsStopped(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	file := filepath.Join(t.TempDir(), "hostile.yaml")
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {release: hostile}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	value := func() string { return s.kubectl(t, "get", "configmap", "settings", "-o", "jsonpath={.data.release}") }
	flips := 0
	for left := false; !left; flips++ {
		if flips > 6 {
			t.Fatal("it is put back again and again")
		}
		s.kubectl(t, "apply", "--server-side", "--force-conflicts", "--field-manager=hostile", "-f", file)
		s.cluster.Eventually(t, "an answer to the change", func() error {
			if left = s.now().Drifted > 0; left || value() == "1.0.0" {
				return nil
			}
			return errors.New("neither put back nor left")
		})
	}
	i := s.now()
	if flips != 4 || i.Drifted != 1 || value() != "hostile" || i.DriftCorrected != 3 {
		t.Errorf("after %d flips, of which %d were put back, %d are left, and the value is %s: want 4, 3, 1 and hostile", flips, i.DriftCorrected, i.Drifted, value())
	}
	told := s.events(fleet.EventDrift)
	if len(told) != 4 {
		t.Fatalf("want an event of each correction and one of the end: %q", told)
	}
	for _, text := range []string{i.DriftMessage, told[len(told)-1]} {
		for _, name := range []string{"wheelwright", "hostile", "ConfigMap " + s.ns + "/settings", "data.release"} {
			if !strings.Contains(text, name) {
				t.Errorf("%q is not named in: %s", name, text)
			}
		}
	}
	// Other drift is corrected as before, also of the same object, and this is left.
	s.kubectl(t, "label", "--overwrite", "configmap", "settings", "app.kubernetes.io/version=mine")
	s.cluster.Eventually(t, "the label to be put back", func() error { return s.whole("1.0.0") })
	if got := value(); got != "hostile" {
		t.Errorf("the value is %s again", got)
	}
	s.upgraded(t, "1.1.0")
	if got := value(); got != "1.1.0" {
		t.Errorf("after another release the value is %s", got)
	}
}
