package agent_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/agent"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

func TestMain(m *testing.M) {
	if render.ChildMain() || pluginhost.ChildMain() || doomedMain() {
		return
	}
	code := harness.Run(m)
	for _, b := range []*binary{&built, &leads} {
		if b.dir != "" {
			os.RemoveAll(b.dir)
		}
	}
	os.Exit(code)
}

const url = "https://git.example.com/vendor/shop"

// vendor makes releases: real bundles with a real chain of git objects.
type vendor struct {
	mu    sync.Mutex
	tars  map[fleet.Digest][]byte
	offer []*syncv1.Offer
	away  atomic.Bool
	key   ssh.Signer // nil: its tags are lightweight
}

// release packs a distribution "dist" with one variant "app".
func (v *vendor) release(t *testing.T, version string, files map[string]string) {
	t.Helper()
	var all []provenance.File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, provenance.File{Path: "app/" + name, Data: []byte(files[name])})
	}
	inner := make([]provenance.File, len(all))
	for i, f := range all {
		inner[i] = provenance.File{Path: strings.TrimPrefix(f.Path, "app/"), Data: f.Data}
	}
	app := treeID(t, inner)
	dist := tree(t, "app", app)
	root := tree(t, "dist", objectID(t, "tree", dist))
	commit := fmt.Appendf(nil, "tree %s\nauthor V <v@example.com> 1700000000 +0000\ncommitter V <v@example.com> 1700000000 +0000\n\n%s\n", objectID(t, "tree", root), version)
	tar, err := bundle.Pack(all, provenance.Proof{Tag: v.tag(t, version, commit), Commit: commit, Trees: [][]byte{root, dist}, Path: "dist", TagName: version})
	if err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	d := bundle.DigestOf(tar)
	v.tars[d] = tar
	v.offer = append(v.offer, &syncv1.Offer{Version: version, Digest: string(d), Size: uint64(len(tar)), Variants: []string{"app"}})
}

func treeID(t *testing.T, files []provenance.File) string {
	t.Helper()
	id, err := provenance.TreeID(files)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func objectID(t *testing.T, kind string, content []byte) string {
	t.Helper()
	id, err := provenance.ObjectID(kind, content)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(id[:])
}

// tree is the raw tree object of one folder.
func tree(t *testing.T, name, id string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("40000 "+name+"\x00"), raw...)
}

func (v *vendor) desired() *syncv1.DesiredState {
	v.mu.Lock()
	defer v.mu.Unlock()
	return &syncv1.DesiredState{Revision: uint64(len(v.offer)), Distributions: []*syncv1.DistributionOffers{
		{Distribution: "shop", Url: url, Path: "dist", Offers: slices.Clone(v.offer)},
	}}
}

func (v *vendor) fetch(_ context.Context, d fleet.Digest) ([]byte, error) {
	if v.away.Load() {
		return nil, fmt.Errorf("the hub is away")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	tar, ok := v.tars[d]
	if !ok {
		return nil, fmt.Errorf("no such bundle")
	}
	return tar, nil
}

// app is a small distribution: what each object is of is in its label, so that a mixture shows.
func app(version, image string, extra ...string) map[string]string {
	files := map[string]string{}
	resources := "- deployment.yaml\n- settings.yaml\n"
	label := "    app.kubernetes.io/version: " + version + "\n"
	files["deployment.yaml"] = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: backend\n  labels:\n" + label +
		"spec:\n  replicas: 1\n  selector:\n    matchLabels: {app: backend}\n  template:\n    metadata:\n      labels: {app: backend}\n    spec:\n      containers:\n      - name: app\n        image: " + image + "\n"
	files["settings.yaml"] = configMap("settings", version)
	for _, name := range extra {
		files[name+".yaml"] = configMap(name, version)
		resources += "- " + name + ".yaml\n"
	}
	files["kustomization.yaml"] = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n" + resources
	return files
}

func configMap(name, version string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n  labels:\n    app.kubernetes.io/version: " + version + "\ndata:\n  release: \"" + version + "\"\n"
}

const (
	good = "registry.example.com/app:1"
	bad  = "registry.example.com/does-not-exist:1"
)

// stage is one cluster's namespace with a spoke in it that can be started, stopped and killed.
type stage struct {
	t        *testing.T
	cluster  *harness.Cluster
	ns, dir  string
	vendor   *vendor
	sub      config.Subscription
	settings *config.Config // nil: sub alone
	kube     *apply.Cluster
	requests atomic.Int64
	away     atomic.Bool // the cluster's API
	killer   atomic.Pointer[killer]
	every    agent.Intervals
	log      *logs
	plugins  []pluginhost.Plugin

	agent   *agent.Agent
	host    *pluginhost.Host
	journal *journal.Journal
	overlay folder
}

func newStage(t *testing.T) *stage {
	t.Helper()
	c := harness.Shared(t, 1)[0]
	s := &stage{t: t, cluster: c, ns: c.NewNamespace(t), dir: t.TempDir(), vendor: &vendor{tars: map[fleet.Digest][]byte{}}, log: &logs{}}
	s.sub = config.Subscription{Distribution: "shop", Variant: "app", Namespace: s.ns, HealthTimeout: 4 * time.Second, ApprovalTimeout: time.Hour, Terms: terms.Default()}
	s.every = agent.Intervals{Settle: 100 * time.Millisecond, Grace: time.Second, Health: 300 * time.Millisecond, Overlay: 100 * time.Millisecond,
		Config: time.Hour, RetryMin: 50 * time.Millisecond, RetryMax: 300 * time.Millisecond}
	kube, err := apply.New(apply.Config{Kubeconfig: c.Kubeconfig, Patience: 2 * time.Second, WrapTransport: func(next http.RoundTripper) http.RoundTripper {
		return transport{s, next}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kube.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.log)
		}
	})
	s.kube = kube
	return s
}

var errAway = errors.New("connect: connection refused")

// transport counts requests, and fails them once the spoke is dead.
type transport struct {
	s    *stage
	next http.RoundTripper
}

func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.s.requests.Add(1)
	if t.s.away.Load() {
		return nil, errAway
	}
	k := t.s.killer.Load()
	if k == nil {
		return t.next.RoundTrip(r)
	}
	before, after := k.strike(r)
	if before {
		return nil, errKilled
	}
	resp, err := t.next.RoundTrip(r)
	if after && err == nil {
		resp.Body.Close()
		return nil, errKilled
	}
	return resp, err
}

// killer ends a spoke at its n-th write to the cluster: before it is sent, or after it was done and
// before the answer is read. From then on nothing gets out.
type killer struct {
	n     int64
	after bool
	count atomic.Int64
	dead  atomic.Bool
}

func (k *killer) strike(r *http.Request) (before, after bool) {
	if k.dead.Load() {
		return true, false
	}
	writes := r.Method != http.MethodGet && !strings.Contains(r.URL.RawQuery, "dryRun")
	if !writes || k.count.Add(1) != k.n {
		return false, false
	}
	k.dead.Store(true)
	return !k.after, k.after
}

// logs are printed when a test fails.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// folder is the provider's overlay: changed by tests, read by the agent.
type folder struct {
	mu    sync.Mutex
	files map[string]string
	err   error
	seen  int
}

// looks is how often it was read.
func (f *folder) looks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

func (f *folder) write(files map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files = files
}

func (f *folder) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *folder) Close() error { return nil }

func (f *folder) Load(context.Context) (overlay.Overlay, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen++
	if f.err != nil {
		return overlay.Overlay{}, f.err
	}
	o := overlay.Overlay{Path: "."}
	for _, name := range slices.Sorted(maps.Keys(f.files)) {
		o.Files = append(o.Files, provenance.File{Path: name, Data: []byte(f.files[name])})
	}
	o.Digest = bundle.DigestOf(fmt.Append(nil, f.files))
	return o, nil
}

// fault lets a test break into the journal.
type fault struct {
	*journal.Journal
	write func(journal.Record, func() error) error
}

func (f fault) PutRecord(r journal.Record, evs ...fleet.Event) error {
	if f.write == nil {
		return f.Journal.PutRecord(r, evs...)
	}
	return f.write(r, func() error { return f.Journal.PutRecord(r, evs...) })
}

// start runs the spoke and returns what ends it. write, if any, stands between agent and journal.
func (s *stage) start(write func(journal.Record, func() error) error) (stop func()) {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(io.Writer(s.log), &slog.HandlerOptions{Level: slog.LevelDebug}))
	j, err := journal.Open(filepath.Join(s.dir, "journal.db"), log)
	if err != nil {
		s.t.Fatal(err)
	}
	r := render.New(render.Config{Log: log})
	settings := config.Config{Subscriptions: []config.Subscription{s.sub}}
	if s.settings != nil {
		settings = *s.settings
	}
	host, err := pluginhost.New(pluginhost.Config{Dir: filepath.Join(s.dir, "plugins"), Plugins: s.plugins, Credentials: admin{s.cluster.Kubeconfig}, Log: log})
	if err != nil {
		s.t.Fatal(err)
	}
	s.host = host
	a, err := agent.New(agent.Config{
		Dir: s.dir, Settings: settings, Every: s.every, Version: "test", Cluster: "acme/eu-1", Plugins: host,
		Apply: s.kube, Observe: s.kube, Mend: s.kube, Find: s.kube, Guard: func(name string) agent.Guard { return s.kube.Watch(name) }, Memory: fault{j, write}, Offers: j, Renderer: r, Fetch: s.vendor.fetch,
		Overlay: func(config.Subscription) (agent.Source, error) { return &s.overlay, nil }, Log: log,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.agent, s.journal = a, j
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		host.Close()
		if err := r.Close(); err != nil {
			s.t.Error(err)
		}
		if err := j.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

// offer tells the spoke what the vendor has.
func (s *stage) offer() {
	s.t.Helper()
	if err := s.agent.SetDesired(s.vendor.desired()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) now() fleet.Installation {
	s.t.Helper()
	all, err := s.agent.Installations()
	if err != nil || len(all) != 1 {
		s.t.Fatalf("installations: %v %v", all, err)
	}
	return all[0]
}

// reaches waits for a phase of a target, with what runs then.
func (s *stage) reaches(phase fleet.Phase, target, running string) fleet.Installation {
	s.t.Helper()
	var i fleet.Installation
	s.cluster.Eventually(s.t, fmt.Sprintf("%s %s with %q running", phase, target, running), func() error {
		if i = s.now(); i.Phase != phase || i.Target != target || i.Running != running {
			return fmt.Errorf("it is %s %s with %q running: %s", i.Phase, i.Target, i.Running, i.Reason)
		}
		return nil
	})
	return i
}

// objects are ours on the cluster: "Kind/name version".
func (s *stage) objects() []string {
	s.t.Helper()
	out, err := s.cluster.Kubectl("-n", s.ns, "get", "deployments,configmaps", "-l", "wheelwright.dev/distribution=shop", "-o",
		`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.labels.app\.kubernetes\.io/version}{"\n"}{end}`)
	if err != nil {
		s.t.Fatal(err)
	}
	all := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(all)
	return all
}

func (s *stage) whole(version string, names ...string) error {
	s.t.Helper()
	want := []string{"Deployment/backend " + version, "ConfigMap/settings " + version}
	for _, n := range names {
		want = append(want, "ConfigMap/"+n+" "+version)
	}
	slices.Sort(want)
	if got := s.objects(); !slices.Equal(got, want) {
		return fmt.Errorf("on the cluster are %v, want %v", got, want)
	}
	return nil
}

func (s *stage) mustBeWhole(version string, names ...string) {
	s.t.Helper()
	if err := s.whole(version, names...); err != nil {
		s.t.Error(err)
	}
}

// events of a kind that the journal holds for the hub.
func (s *stage) events(kind fleet.EventKind) (all []string) {
	s.t.Helper()
	events, err := s.journal.Pending(0, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == kind {
			all = append(all, e.Message)
		}
		if e.Installation == nil {
			s.t.Errorf("event %d has no installation: %s", e.Seq, e.Message)
		}
	}
	return all
}

func (s *stage) installed(version string, extra ...string) (stop func()) {
	s.t.Helper()
	s.vendor.release(s.t, version, app(version, good, extra...))
	stop = s.start(nil)
	s.offer()
	s.reaches(fleet.Succeeded, version, version)
	return stop
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func noLeaks(t *testing.T) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}
