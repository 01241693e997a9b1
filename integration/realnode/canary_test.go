package realnode_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/load"
	"github.com/wheelwright-dev/wheelwright/integration/realnode"
	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// services of the reference distribution: each has a Canary object.
var services = [...]string{"backend", "cache", "database", "frontend"}

// shop is the reference distribution on the node, in its own namespace, with users.
type shop struct {
	t    *testing.T
	node *realnode.Node
}

// kubectl fails the test where it fails.
func (s *shop) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.node.Cluster.Kubectl(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// gone takes everything away.
func (s *shop) gone() {
	s.t.Helper()
	s.node.Cluster.Kubectl("-n", "app", "patch", "canaries", "--all", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	s.node.Cluster.Kubectl("delete", "namespace", "app", "--ignore-not-found", "--timeout=120s")
}

// users ask through the ingress, as long as the test lives.
func (s *shop) users() *load.Run {
	s.t.Helper()
	address := ""
	eventually(s.t, "the ingress answers", 2*time.Minute, func() (err error) {
		address, err = s.node.Cluster.Kubectl("-n", "app", "get", "service", "ingress", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err == nil && address == "" {
			err = fmt.Errorf("no address yet")
		}
		return err
	})
	// Frontend asks backend and cache, backend asks database: the text comes back only through all of them.
	broken := func(_ int, body []byte) bool {
		return bytes.Count(body, []byte("test")) != 2 || bytes.Contains(body, []byte("call failed"))
	}
	eventually(s.t, "an answer of all four services", time.Minute, func() error {
		r, err := http.Post("http://"+address+"/echo", "text/plain", strings.NewReader("test"))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err == nil && (r.StatusCode >= 400 || broken(0, body)) {
			err = fmt.Errorf("%s: %s", r.Status, body)
		}
		return err
	})
	run, err := load.Start(s.t.Context(), load.Config{URL: "http://" + address + "/echo", Method: http.MethodPost, Body: "test", Rate: 20, Duration: 30 * time.Minute, Failed: broken})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { run.Stop() })
	return run
}

// stable is what each service's stable workload asks of podinfo: its image and arguments, by service.
func (s *shop) stable(suffix string) map[string]string {
	out, err := s.node.Cluster.Kubectl("-n", "app", "get", "deployments", "-o",
		`jsonpath={range .items[*]}{.metadata.name}{"\t"}{.spec.template.spec.containers[0].image}{" "}{.spec.template.spec.containers[0].command}{"\n"}{end}`)
	all := map[string]string{}
	if err != nil {
		return all
	}
	for line := range strings.Lines(out) {
		name, what, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if service, ok := strings.CutSuffix(name, suffix); ok && slices.Contains(services[:], service) {
			all[service] = what
		}
	}
	return all
}

// mixture watches how long the stable workloads are on two releases at once.
type mixture struct {
	stop func()
	mu   sync.Mutex
	took time.Duration
}

func (s *shop) mixture(suffix string, version func(string) string) *mixture {
	ctx, cancel := context.WithCancel(s.t.Context())
	m := &mixture{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			seen := map[string]bool{}
			for _, what := range s.stable(suffix) {
				seen[version(what)] = true
			}
			now := time.Now()
			if len(seen) > 1 {
				m.mu.Lock()
				m.took += now.Sub(last)
				m.mu.Unlock()
			}
			last = now
		}
	}()
	m.stop = func() { cancel(); <-done }
	s.t.Cleanup(m.stop)
	return m
}

// image is what a release changes everywhere.
func image(what string) string { image, _, _ := strings.Cut(what, " "); return image }

// plugin is one of ours as spoke.yaml has it: its arguments, and what it may do in the namespace.
type plugin struct{ name, args, rules string }

// install is what a provider has of a vendor.
type install struct {
	variant, namespace, first string
	plugins                   []plugin
}

// provider is a spoke with its hub.
type provider struct {
	*shop
	install
	hub   *world.Hub
	spoke *world.Spoke
}

const candidateRules = `
    - {apiGroups: [apps], resources: [deployments], verbs: [get, list, create, patch, delete]}
    - {apiGroups: [""], resources: [services, configmaps, serviceaccounts], verbs: [get, list, create, patch, delete]}
    - {apiGroups: [""], resources: [pods], verbs: [list]}
    - {apiGroups: [autoscaling], resources: [horizontalpodautoscalers], verbs: [get, list, create, patch, delete]}`

// provider has the reference distribution, with our plugins.
func (s *shop) provider(vendor *world.Vendor) *provider {
	s.t.Helper()
	return s.providerOf(vendor, install{variant: "app-kubernetes", namespace: "app", first: "1.1.0", plugins: []plugin{
		{"canary", "[--prometheus, " + s.node.PrometheusURL + "]", candidateRules},
		{"conformance", "[]", `
    - {apiGroups: [""], resources: [services], verbs: [get]}`},
	}})
}

// built are the plugins' programs, as spoke.yaml names them.
func (s *shop) built(root, dir string, all []plugin, namespace string) string {
	s.t.Helper()
	text := ""
	for _, p := range all {
		path := filepath.Join(dir, "plugin-"+p.name)
		build := exec.CommandContext(s.t.Context(), "go", "build", "-trimpath", "-o", path, "./plugins/"+p.name)
		build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			s.t.Fatalf("%v: %s", err, out)
		}
		program, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		text += fmt.Sprintf("- name: %s\n  path: %s\n  sha256: %x\n  kinds: [%[1]s]\n  args: %[4]s\n  timeout: 2m\n  permissions:\n    namespace: %[5]s\n    rules:%[6]s\n", p.name, path, sha256.Sum256(program), p.args, namespace, p.rules)
	}
	return text
}

func (s *shop) providerOf(vendor *world.Vendor, has install) *provider {
	s.t.Helper()
	ctx, dir := s.t.Context(), s.t.TempDir()
	root, err := world.Root()
	if err != nil {
		s.t.Fatal(err)
	}
	bin, err := world.Build(ctx, root, s.t.TempDir(), false)
	if err != nil {
		s.t.Fatal(err)
	}
	plugins := s.built(root, dir, has.plugins, has.namespace)
	if bin.Spoke, err = s.node.ClusterDNSWrapper(bin.Spoke); err != nil {
		s.t.Fatal(err)
	}
	p := &provider{shop: s, install: has}
	if p.hub, err = world.NewHub(bin, s.t.TempDir()); err != nil {
		s.t.Fatal(err)
	}
	if err := p.hub.Start(ctx); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { p.hub.Stop() })
	if _, err := p.hub.Must(ctx, "distribution", "add", "app", "--git", vendor.Dir, "--interval", "1s"); err != nil {
		s.t.Fatal(err)
	}
	if p.spoke, err = world.NewSpoke(bin, dir, "acme/eu-1", s.node.Cluster.Kubeconfig); err != nil {
		s.t.Fatal(err)
	}
	if err := p.spoke.Join(ctx, p.hub); err != nil {
		s.t.Fatal(err)
	}
	p.pin(has.first, plugins)
	if err := p.spoke.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		p.spoke.Stop()
		if s.t.Failed() {
			s.t.Log(world.Tail(p.spoke.Log, 60))
		}
	})
	return p
}

// pin writes spoke.yaml; empty plugins are those that are there.
func (p *provider) pin(version, plugins string) {
	p.t.Helper()
	if plugins == "" {
		text, err := os.ReadFile(p.spoke.Config)
		if err != nil {
			p.t.Fatal(err)
		}
		_, plugins, _ = strings.Cut(string(text), "plugins:\n")
	}
	text := fmt.Sprintf("version: 1\nkubeconfig: %s\nhealthTimeout: 3m\nsubscriptions:\n- distribution: app\n  variant: %s\n  namespace: %s\n  versions: {pin: %q, pinReason: story}\nplugins:\n%s",
		p.spoke.Kubeconfig, p.variant, p.namespace, version, plugins)
	if err := os.WriteFile(p.spoke.Config, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// row is what the spoke says of itself.
type row struct {
	Running string `json:"runningVersion"`
	Target  string `json:"targetVersion"`
	Phase   string `json:"phase"`
	Reason  string `json:"reason"`
}

func (p *provider) row() row {
	r, err := p.spoke.Run(p.t.Context(), "status", "-o", "json")
	if err != nil {
		p.t.Fatal(err)
	}
	var all struct {
		Subscriptions []row `json:"subscriptions"`
	}
	if err := json.Unmarshal([]byte(r.Out), &all); err != nil || len(all.Subscriptions) != 1 {
		return row{Reason: "the spoke does not answer yet"} // it has just been started
	}
	return all.Subscriptions[0]
}

// reaches waits for an end, and says how long that took and what was said on the way.
func (p *provider) reaches(phase, target string) (time.Duration, row) {
	p.t.Helper()
	begin, said := time.Now(), ""
	var r row
	eventually(p.t, target+" to be "+phase, 6*time.Minute, func() error {
		r = p.row()
		if text := fmt.Sprintf("%s %s: %s", r.Phase, r.Target, r.Reason); text != said {
			p.t.Logf("%4.0f s  %s", time.Since(begin).Seconds(), text)
			said = text
		}
		switch {
		case r.Target == target && r.Phase == phase:
			return nil
		case r.Target == target && slices.Contains([]string{"Succeeded", "Refused", "RolledBack", "RollbackFailed", "AwaitingApproval"}, r.Phase):
			p.t.Fatalf("%s is %s: %s", target, r.Phase, r.Reason)
		}
		return fmt.Errorf("%s", said)
	})
	return time.Since(begin), r
}

// reference is the vendor's repository.
func reference(t *testing.T) *world.Vendor {
	t.Helper()
	root, err := world.Root()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(root, "..", "shared", "distributions", "app-distribution.gitbundle")
	if _, err := os.Stat(archive); err != nil {
		t.Skip("the reference distribution is not beside this checkout; the spoke's own tests tell the same with releases of their own")
	}
	vendor, err := world.CloneVendor(t.Context(), filepath.Join(t.TempDir(), "reference"), archive)
	if err != nil {
		t.Fatal(err)
	}
	return vendor
}

// One vendor, one provider, real pods and real traffic: 1.2.0 is promoted whole, 1.4.0, which only its traffic
// gives away, is taken back whole, and 1.3.0 never gets any.
func TestReleasesOnRealTraffic(t *testing.T) {
	node := realnode.Shared(t)
	s := &shop{t: t, node: node}
	vendor := reference(t)
	s.gone()
	t.Cleanup(s.gone)
	p := s.provider(vendor)
	p.reaches("Succeeded", "1.1.0")
	if _, err := node.Cluster.Kubectl("get", "crd", "canaries.flagger.app"); err == nil {
		t.Log("Flagger's definitions are on this cluster; the spoke does not need them")
	}
	users := s.users()

	m := s.mixture("", image)
	p.pin("1.2.0", "")
	took, _ := p.reaches("Succeeded", "1.2.0")
	m.stop()
	good := s.stable("")
	for name, what := range good {
		if !strings.Contains(what, "6.9.2") {
			t.Errorf("%s runs %s after 1.2.0 was promoted", name, what)
		}
	}
	t.Logf("1.2.0 was promoted after %.0f s; the services were on two releases for %.1f s; %v", took.Seconds(), m.took.Seconds(), users.Report())

	p.pin("1.4.0", "")
	took, r := p.reaches("RolledBack", "1.4.0")
	// In a bad second the release's own acceptance test catches it first; then it is taken up again by hand.
	for tries := 1; strings.Contains(r.Reason, "acceptance-test") && tries < 8; tries++ {
		if now := s.stable(""); fmt.Sprint(now) != fmt.Sprint(good) {
			t.Errorf("after the return:\n%v\nwant\n%v", now, good)
		}
		if said, err := p.spoke.Run(t.Context(), "approve", "app", "1.4.0"); err != nil || said.Code != 0 {
			t.Fatalf("%v %+v", err, said)
		}
		eventually(t, "1.4.0 is begun again", time.Minute, func() error {
			if r := p.row(); r.Phase == "RolledBack" {
				return fmt.Errorf("%s", r.Reason)
			}
			return nil
		})
		took, r = p.reaches("RolledBack", "1.4.0")
	}
	if !strings.Contains(r.Reason, "success rate") {
		t.Errorf("1.4.0 is rolled back because of %q", r.Reason)
	}
	if now := s.stable(""); fmt.Sprint(now) != fmt.Sprint(good) || r.Running != "1.2.0" {
		t.Errorf("after the return %s runs:\n%v\nwant\n%v", r.Running, now, good)
	}
	t.Logf("1.4.0 was taken back after %.0f s: %s", took.Seconds(), r.Reason)

	p.pin("1.3.0", "")
	_, r = p.reaches("RolledBack", "1.3.0")
	if now := s.stable(""); fmt.Sprint(now) != fmt.Sprint(good) || strings.Contains(r.Reason, "step ") {
		t.Errorf("1.3.0 was to get no traffic: %s\n%v", r.Reason, now)
	}
	if left := s.kubectl("-n", "app", "get", "deployments,services,horizontalpodautoscalers,configmaps", "-l", "wheelwright.dev/candidate-of", "-o", "name"); left != "" {
		t.Errorf("left of candidates: %s", left)
	}
	report := users.Stop()
	t.Logf("users: %v", report)
	// What a busy machine does not answer in time is its own affair.
	if bad := report.Failed - report.Outcomes["timeout"] - report.Outcomes["overload"]; float64(bad) > 0.005*float64(report.Sent) {
		t.Errorf("%v: users saw bad releases", report)
	}
}
