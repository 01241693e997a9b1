// Package integration tells the product's stories, one a file: built binaries, a real git repository,
// real API servers with controllers and simulated nodes, real TLS, real database files.
package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/integration/world"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Run(tidily{m}))
}

// tidily runs the tests and clears up after them.
type tidily struct{ tests *testing.M }

func (t tidily) Run() int {
	code := t.tests.Run()
	if err := errors.Join(clusters.wait(), os.RemoveAll(binFolder())); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// binFolder holds the binaries that the stories run.
func binFolder() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("wheelwright-stories-%d", os.Getpid()))
}

// patience bounds each wait of a story; the speed of things is for the figures.
const patience = 90 * time.Second

var binaries = sync.OnceValues(func() (world.Binaries, error) {
	root, err := world.Root()
	if err != nil {
		return world.Binaries{}, err
	}
	return world.Build(context.Background(), root, binFolder(), os.Getenv("WHEELWRIGHT_RACE") != "")
})

// story is the stage of one test: a vendor, a hub and a spoke for each of n clusters.
type story struct {
	t      testing.TB
	ctx    context.Context
	dir    string
	bin    world.Binaries
	vendor *world.Vendor
	hub    *world.Hub
	spokes []*world.Spoke
	real   []*harness.Cluster
}

// names of the clusters, in order.
var names = []string{"acme/eu-1", "globex/us-1", "initech/ap-1"}

// tell starts a hub and prepares a vendor's repository and n spokes on clean clusters; nothing has
// joined yet.
func tell(t testing.TB, n int) *story {
	t.Helper()
	s := &story{t: t, real: clusters.take(t, n), dir: t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	s.ctx = ctx
	var err error
	s.bin, err = binaries()
	s.must(err)
	s.hub, err = world.NewHub(s.bin, s.dir)
	s.must(err)
	t.Cleanup(func() { s.end() })
	s.must(s.hub.Start(ctx))
	root, err := world.Root()
	s.must(err)
	s.vendor, err = world.NewVendor(ctx, filepath.Join(s.dir, "vendor"), filepath.Join(root, "deploy", "examples", "shop"))
	s.must(err)
	for i, c := range s.real {
		sp, err := world.NewSpoke(s.bin, s.dir, names[i], c.Kubeconfig)
		s.must(err)
		s.spokes = append(s.spokes, sp)
	}
	return s
}

// end stops what the story started and shows the logs of a failed one.
func (s *story) end() {
	for _, sp := range s.spokes {
		if _, err := sp.Stop(); err != nil {
			s.t.Error(err)
		}
	}
	if s.hub != nil {
		if _, err := s.hub.Stop(); err != nil {
			s.t.Error(err)
		}
	}
	if s.t.Failed() {
		s.t.Logf("hub:\n%s", world.Tail(s.hub.Log, 40))
		for _, sp := range s.spokes {
			s.t.Logf("spoke of %s:\n%s", sp.Cluster, world.Tail(sp.Log, 60))
		}
	}
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// patiently bounds one wait.
func (s *story) patiently() context.Context {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	s.t.Cleanup(cancel)
	return ctx
}

// watchShop adds the sample distribution to the hub.
func (s *story) watchShop() {
	s.t.Helper()
	_, err := s.hub.Must(s.ctx, "distribution", "add", "shop", "--git", s.vendor.Dir, "--interval", "1s")
	s.must(err)
}

// joinAll lets every spoke join, each with a customisation of its own, and starts them.
func (s *story) joinAll() {
	s.t.Helper()
	for i, sp := range s.spokes {
		s.must(sp.Join(s.ctx, s.hub, "--label", fmt.Sprintf("ring=%d", i)))
		s.must(s.customise(sp, i))
		s.must(sp.Start())
	}
}

// customise gives the provider an overlay that sets the frontend's HPA minimum to 2+i, and follows 1.x.
func (s *story) customise(sp *world.Spoke, i int) error {
	if err := sp.Overlay("kustomization.yaml", fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- %s//dist/app-kubernetes
patches:
- path: hpa.yaml
`, shopURL)); err != nil {
		return err
	}
	if err := sp.Overlay("hpa.yaml", fmt.Sprintf(`apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: frontend
spec:
  minReplicas: %d
`, 2+i)); err != nil {
		return err
	}
	return sp.Configure(followShop)
}

// shopURL is the vendor's public repository, which the providers' overlays name and nobody reaches here.
const shopURL = "https://git.example.com/vendor/shop"

const followShop = `- distribution: shop
  namespace: shop
  source: [` + shopURL + `]
  overlay: {path: ./overlay}
  versions: {range: "1.x"}
`

// release tags the vendor's work tree and waits for the hub's judgement.
func (s *story) release(tag, phase string) *fleetv1.Release {
	s.t.Helper()
	s.must(s.vendor.Release(s.ctx, tag))
	return s.judged(tag, phase)
}

func (s *story) judged(tag, phase string) *fleetv1.Release {
	s.t.Helper()
	var got *fleetv1.Release
	s.must(world.Await(s.patiently(), "the judgement of "+tag, func(ctx context.Context) (err error) {
		got, err = s.hub.Release(ctx, "shop", tag)
		return err
	}))
	if got.GetPhase() != phase {
		s.t.Fatalf("release %s is %s (%v, %v), want %s", tag, got.GetPhase(), got.GetReasons(), got.GetVariants(), phase)
	}
	return got
}

// runs waits until the clusters, or all, run version, healthy and at rest.
func (s *story) runs(version string, clusters ...string) {
	s.t.Helper()
	s.must(s.hub.AwaitRows(s.patiently(), "version "+version, world.Runs(version), clusters...))
}

// in waits until the clusters, or all, are in the phase with version running.
func (s *story) in(phase, version string, clusters ...string) {
	s.t.Helper()
	s.must(s.hub.AwaitRows(s.patiently(), phase, world.In(phase, version), clusters...))
}

// kubectl asks the i-th cluster.
func (s *story) kubectl(i int, args ...string) string {
	s.t.Helper()
	out, err := s.real[i].Kubectl(args...)
	if err != nil {
		s.t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// image of a Deployment on the i-th cluster.
func (s *story) image(i int, deployment string) string {
	s.t.Helper()
	return s.kubectl(i, "-n", "shop", "get", "deployment", deployment, "-o", "jsonpath={.spec.template.spec.containers[0].image}")
}
