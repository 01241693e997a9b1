package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/agent"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// doomed is what a spoke in a process of its own is told: where it works, and at which write of its
// journal it kills itself with SIGKILL.
type doomed struct {
	Dir, Kubeconfig string
	Sub             config.Subscription
	Every           agent.Intervals
	Overlay         map[string]string
	Plugins         []pluginhost.Plugin
	Target          string // writes count from the first one about this release
	N               int    // 0: never
	After           bool   // the write is on the disk before the kill
}

const doomedEnv = "WHEELWRIGHT_TEST_DOOMED"

// doomedMain is the whole life of such a spoke; false: this process is none.
func doomedMain() bool {
	order := os.Getenv(doomedEnv)
	if order == "" {
		return false
	}
	var d doomed
	if err := json.Unmarshal([]byte(order), &d); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := d.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func (d doomed) run() error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	j, err := journal.Open(filepath.Join(d.Dir, "journal.db"), log)
	if err != nil {
		return err
	}
	kube, err := apply.New(apply.Config{Kubeconfig: d.Kubeconfig, Patience: 2 * time.Second})
	if err != nil {
		return err
	}
	over := make(chan struct{})
	var once sync.Once
	count := 0
	write := func(r journal.Record, write func() error) error {
		if r.Installation.Target != d.Target {
			return write()
		}
		if count++; count == d.N && !d.After {
			die()
		}
		if err := write(); err != nil {
			return err
		}
		if count == d.N {
			die()
		}
		if r.Installation.Phase.Terminal() {
			once.Do(func() { close(over) })
		}
		return nil
	}
	host, err := pluginhost.New(pluginhost.Config{Dir: filepath.Join(d.Dir, "plugins"), Plugins: d.Plugins, Credentials: admin{d.Kubeconfig}, Log: log})
	if err != nil {
		return err
	}
	defer host.Close()
	overlay := &folder{files: d.Overlay}
	a, err := agent.New(agent.Config{
		Dir: d.Dir, Settings: config.Config{Subscriptions: []config.Subscription{d.Sub}}, Every: d.Every, Version: "doomed", Plugins: host,
		Apply: kube, Observe: kube, Mend: kube, Find: kube, Memory: fault{j, write}, Offers: j, Renderer: render.New(render.Config{Log: log}),
		Guard:   func(name string) agent.Guard { return kube.Watch(name) },
		Fetch:   func(context.Context, fleet.Digest) ([]byte, error) { return nil, errors.New("the hub is away") },
		Overlay: func(config.Subscription) (agent.Source, error) { return overlay, nil }, Log: log,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-over
		cancel()
	}()
	return a.Run(ctx)
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// upgrade is one kind of change between two releases. The name of the namespace goes into what is
// cluster-scoped.
type upgrade struct {
	name     string
	old, new func(ns string) map[string]string
	end      fleet.Phase
	terms    func(*terms.Terms)
	before   func(t *testing.T, s *stage) // after the old release was installed
	tests    string                       // what the new release's tests do; empty: there are none
}

func kustomized(files map[string]string) map[string]string {
	var b strings.Builder
	b.WriteString("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n")
	for _, f := range slices.Sorted(maps.Keys(files)) {
		b.WriteString("- " + f + "\n")
	}
	out := maps.Clone(files)
	out["kustomization.yaml"] = b.String()
	return out
}

func settings(version string, n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("c%02d.yaml", i)] = configMap(fmt.Sprintf("c%02d", i), version)
	}
	return files
}

func fixed(files map[string]string) func(string) map[string]string {
	return func(string) map[string]string { return files }
}

func with(files map[string]string, extra map[string]string) map[string]string {
	all := map[string]string{}
	for name, data := range files {
		if name != "kustomization.yaml" {
			all[name] = data
		}
	}
	maps.Copy(all, extra)
	return kustomized(all)
}

func upgrades() []upgrade {
	definition := func(ns string, versions ...string) string {
		group := ns + ".example.com"
		text := "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets." + group + "}\nspec:\n  group: " + group +
			"\n  scope: Namespaced\n  names: {plural: widgets, singular: widget, kind: Widget}\n  versions:\n"
		for _, v := range versions {
			text += "  - name: " + v + "\n    served: true\n    storage: " + fmt.Sprint(v == "v1") +
				"\n    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}\n"
		}
		return text
	}
	widget := func(ns, size string) string {
		return "apiVersion: " + ns + ".example.com/v1\nkind: Widget\nmetadata: {name: one}\nspec: {size: " + size + "}\n"
	}
	selector := func(label string) string {
		return strings.ReplaceAll(app("1", good)["deployment.yaml"], "app: backend", label)
	}
	rbac := map[string]string{
		"account.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: reader}\n",
		"role.yaml":    "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader}\nrules:\n- {apiGroups: [\"\"], resources: [configmaps], verbs: [get]}\n",
		"binding.yaml": "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: reader}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}\nsubjects:\n- {kind: ServiceAccount, name: reader}\n",
	}
	hook := func(ns, path string) map[string]string {
		return map[string]string{"hook.yaml": "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: " + ns + ".example.com}\nwebhooks:\n- name: none." + ns +
			".example.com\n  failurePolicy: Ignore\n  sideEffects: None\n  admissionReviewVersions: [v1]\n  clientConfig: {url: \"https://127.0.0.1:1" + path + "\"}\n  rules:\n  - {apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [nothings]}\n"}
	}
	scaler := "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: backend}\nspec:\n  minReplicas: 1\n  maxReplicas: 3\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: backend}\n"
	quota := func(t *testing.T, s *stage) {
		if out, err := s.cluster.Kubectl("-n", s.ns, "create", "quota", "few", "--hard=count/configmaps=14"); err != nil {
			t.Fatal(out, err)
		}
	}
	return []upgrade{
		{name: "values", old: fixed(app("1.0.0", good)), new: fixed(app("1.1.0", good)), end: fleet.Succeeded},
		{name: "objects added", old: fixed(app("1.0.0", good)), new: fixed(app("1.1.0", good, "a", "b", "c")), end: fleet.Succeeded},
		{name: "objects removed", old: fixed(app("1.0.0", good, "a", "b", "c")), new: fixed(app("1.1.0", good)), end: fleet.Succeeded},
		{name: "objects renamed", old: fixed(app("1.0.0", good, "a", "b")), new: fixed(app("1.1.0", good, "c", "d")), end: fleet.Succeeded},
		{name: "another image", old: fixed(app("1.0.0", good)), new: fixed(app("1.0.0", "registry.example.com/app:2")), end: fleet.Succeeded},
		{name: "an image that is not there", old: fixed(app("1.0.0", good, "old")), new: fixed(app("1.1.0", bad, "new")), end: fleet.RolledBack},
		{name: "a new definition", old: fixed(app("1.0.0", good)), end: fleet.Succeeded, new: func(ns string) map[string]string {
			return with(app("1.1.0", good), map[string]string{"crd.yaml": definition(ns, "v1"), "widget.yaml": widget(ns, "1")})
		}},
		{name: "a definition with one more version", end: fleet.Succeeded, old: func(ns string) map[string]string {
			return with(app("1.0.0", good), map[string]string{"crd.yaml": definition(ns, "v1"), "widget.yaml": widget(ns, "1")})
		}, new: func(ns string) map[string]string {
			return with(app("1.1.0", good), map[string]string{"crd.yaml": definition(ns, "v1", "v2"), "widget.yaml": widget(ns, "2")})
		}},
		{name: "made anew with consent", end: fleet.Succeeded,
			old: fixed(kustomized(map[string]string{"d.yaml": selector("app: backend"), "c.yaml": configMap("c", "1.0.0")})),
			new: fixed(kustomized(map[string]string{"d.yaml": selector("app: frontend"), "c.yaml": configMap("c", "1.1.0")})),
			terms: func(t *terms.Terms) {
				t.Recreate = []terms.Pattern{{Kind: "Deployment", Name: "backend"}}
			}},
		{name: "rights", old: fixed(app("1.0.0", good)), new: fixed(with(app("1.1.0", good), rbac)), end: fleet.Succeeded},
		{name: "a webhook", end: fleet.Succeeded,
			old: func(ns string) map[string]string { return with(app("1.0.0", good), hook(ns, "/1")) },
			new: func(ns string) map[string]string { return with(app("1.1.0", good), hook(ns, "/2")) }},
		{name: "an autoscaler", old: fixed(app("1.0.0", good)), new: fixed(with(app("1.1.0", good), map[string]string{"hpa.yaml": scaler})), end: fleet.Succeeded},
		{name: "more than the quota", old: fixed(kustomized(settings("1.0.0", 8))), new: fixed(kustomized(settings("1.1.0", 20))), end: fleet.RolledBack, before: quota},
		{name: "tests that pass", old: fixed(fourServices("1.0.0", "old")), new: fixed(fourServices("1.1.0", "new")), end: fleet.Succeeded, tests: "pass"},
		{name: "tests that fail", old: fixed(fourServices("1.0.0", "old")), new: fixed(fourServices("1.1.0", "new")), end: fleet.RolledBack, tests: "fail"},
		{name: "forty objects", old: fixed(kustomized(settings("1.0.0", 30))), new: fixed(kustomized(settings("1.1.0", 40))), end: fleet.Succeeded},
	}
}

// TestCrashMatrix kills a spoke with SIGKILL before and after each of its journal writes, in each kind of
// upgrade, and starts it again: every object in the store is then the old release's or the new one's, and
// all of the same one (law 7). Beside `make figures` every fourth write is met, at one of the two moments.
func TestCrashMatrix(t *testing.T) {
	all := upgrades()
	if testing.Short() {
		all = all[:2]
	}
	var mu sync.Mutex
	cells, mixed := 0, 0
	t.Run("kinds", func(t *testing.T) {
		for kind, u := range all {
			t.Run(u.name, func(t *testing.T) {
				t.Parallel()
				old, want := references(t, u)
				first, stride := 1, 1
				if os.Getenv("WHEELWRIGHT_FIGURES") == "" {
					first, stride = 1+kind%4, 4
				}
				for n := first; ; n += stride {
					killed := false
					for _, after := range []bool{false, true} {
						if stride > 1 && after != ((n/4+kind/4)%2 == 0) {
							continue
						}
						did, end := u.killedAt(t, n, after)
						if !did {
							continue
						}
						killed = true
						mu.Lock()
						cells++
						if !slices.Equal(end, old) && !slices.Equal(end, want) {
							mixed++
							t.Errorf("killed at write %d, after it was done: %v: neither release is whole:\n%s\nold is\n%s\nnew is\n%s", n, after,
								strings.Join(end, "\n"), strings.Join(old, "\n"), strings.Join(want, "\n"))
						}
						mu.Unlock()
					}
					if !killed {
						if n < 7 {
							t.Errorf("only %d writes: the matrix does not reach every phase", n-1)
						}
						return
					}
				}
			})
		}
	})
	fmt.Printf("FIGURE crash.cells %d cells %d kinds of upgrade, SIGKILL before and after every journal write\n", cells, len(all))
	fmt.Printf("FIGURE crash.mixed-end-states %d states of %d cells\n", mixed, cells)
}

// references are the old and the new release's objects where nobody is killed.
func references(t *testing.T, u upgrade) (old, want []string) {
	t.Helper()
	s, stop := u.ready(t)
	stop()
	old = s.store()
	stop = s.start(nil)
	defer stop()
	s.offer()
	s.ends(u.end)
	want = s.store()
	if u.end == fleet.RolledBack && !slices.Equal(old, want) {
		t.Errorf("undisturbed it does not come back:\n%s\nwas\n%s", strings.Join(want, "\n"), strings.Join(old, "\n"))
	}
	return old, want
}

// ready has the old release installed and the new one made, and not offered yet.
func (u upgrade) ready(t *testing.T) (*stage, func()) {
	t.Helper()
	s := newStage(t)
	if u.terms != nil {
		u.terms(&s.sub.Terms)
	}
	if u.tests != "" {
		s.proven(u.tests)
	}
	s.vendor.release(t, "1.0.0", u.old(s.ns))
	stop := s.start(nil)
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	if u.before != nil {
		u.before(t, s)
	}
	if s.sub.HealthTimeout = 20 * time.Second; u.end == fleet.RolledBack { // a good one is not to be given up on a busy machine
		s.sub.HealthTimeout = 1500 * time.Millisecond
	}
	s.vendor.release(t, "1.1.0", u.new(s.ns))
	return s, stop
}

func (s *stage) ends(phase fleet.Phase) {
	s.t.Helper()
	running := "1.1.0"
	if phase == fleet.RolledBack {
		running = "1.0.0"
	}
	s.reaches(phase, "1.1.0", running)
}

// killedAt reports whether the upgrade had an n-th write to be killed at, and what is in the store in the end.
func (u upgrade) killedAt(t *testing.T, n int, after bool) (bool, []string) {
	t.Helper()
	s, stop := u.ready(t)
	stop()
	s.keepOffers()
	if !s.doom(doomed{N: n, After: after}) {
		return false, nil
	}
	stop = s.start(nil)
	defer stop()
	s.ends(u.end)
	return true, s.store()
}

// keepOffers puts what the vendor has into the journal and the cache of a spoke that does not run: one in a
// process of its own has no hub.
func (s *stage) keepOffers() {
	s.t.Helper()
	j, err := journal.Open(filepath.Join(s.dir, "journal.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(j.PutDesired(s.vendor.desired()), j.Close()); err != nil {
		s.t.Fatal(err)
	}
	for d, tar := range s.vendor.tars {
		if err := os.WriteFile(filepath.Join(s.dir, "bundles", d.Hex()+".tar"), tar, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}

// doom runs a spoke in a process of its own and reports whether it was killed.
func (s *stage) doom(d doomed) bool {
	s.t.Helper()
	d.Dir, d.Kubeconfig, d.Sub, d.Every, d.Target, d.Plugins = s.dir, s.cluster.Kubeconfig, s.sub, s.every, "1.1.0", s.plugins
	order, err := json.Marshal(d)
	if err != nil {
		s.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), doomedEnv+"="+string(order))
	cmd.Stdout, cmd.Stderr = io.Writer(s.log), io.Writer(s.log)
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && ctx.Err() == nil && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true
	}
	s.t.Fatalf("the spoke in its own process: %v\n%s", err, s.log)
	return false
}

// store is everything of ours in the cluster's store, one line an object, without what the store itself
// and the cluster's own controllers write. The namespace's name is replaced by NS.
func (s *stage) store() []string {
	s.t.Helper()
	kinds := "deployments,configmaps,serviceaccounts,roles,rolebindings,horizontalpodautoscalers,customresourcedefinitions,validatingwebhookconfigurations"
	if out, err := s.cluster.Kubectl("get", "crd", "widgets."+s.ns+".example.com", "--ignore-not-found", "-o", "name"); err != nil {
		s.t.Fatal(out, err)
	} else if out != "" {
		kinds += ",widgets." + s.ns + ".example.com"
	}
	out, err := s.cluster.Kubectl("-n", s.ns, "get", kinds, "-l", "wheelwright.dev/distribution=shop", "-o", "json")
	if err != nil {
		s.t.Fatal(out, err)
	}
	var list unstructured.UnstructuredList
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		s.t.Fatal(err)
	}
	var all []string
	for _, o := range list.Items {
		if ns := o.GetNamespace(); ns != s.ns && !strings.Contains(o.GetName(), s.ns) {
			continue // another test's
		}
		for _, f := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"} {
			unstructured.RemoveNestedField(o.Object, "metadata", f)
		}
		unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
		if len(o.GetAnnotations()) == 0 {
			unstructured.RemoveNestedField(o.Object, "metadata", "annotations")
		}
		unstructured.RemoveNestedField(o.Object, "status")
		labels := o.GetLabels()
		delete(labels, "applyset.kubernetes.io/part-of") // a digest of the namespace's name
		o.SetLabels(labels)
		line, err := json.Marshal(o.Object)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, strings.ReplaceAll(string(line), s.ns, "NS"))
	}
	slices.Sort(all)
	return all
}
