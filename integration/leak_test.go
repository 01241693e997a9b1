package integration

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// Two hundred values that nobody but their provider may see stand in an overlay, in files that SOPS encrypted, in
// Secrets, and where an API server, kustomize or a pod's status quotes them. A spoke installs, fails in every way,
// upgrades, puts drift back, is killed and goes back. Then the hub's folder with its database, all that went over
// the wire, what notifiers were told and every log are searched: nothing of any of them is there. What was
// decrypted is in no file of the spoke's either, while it is on the cluster.
func TestNothingLeaks(t *testing.T) {
	s := tell(t, 1)
	sp := s.spokes[0]
	s.watchShop()
	s.must(sp.Join(s.ctx, s.hub))
	wire := tap(t, s.hub, sp)
	told := listen(t)
	good := overlayOfCanaries(t, sp)
	for name, text := range good {
		s.must(sp.Overlay(name, text))
	}
	s.must(sp.Configure(followShop + "  decryption: {age: [key.txt]}\n" + notifier(t, told.url)))
	s.denyByPolicy()
	s.must(sp.Start())
	s.release("1.1.0", "Available")
	s.runs("1.1.0")
	s.onCluster()

	last := ""
	for i, b := range breakages(good) {
		if i%3 != 0 && !thorough() {
			continue
		}
		for name, text := range b.files {
			s.must(sp.Overlay(name, text))
		}
		last = s.stops(b.what, last)
		for name := range b.files {
			if text, ok := good[name]; ok {
				s.must(sp.Overlay(name, text))
			} else {
				s.must(os.Remove(filepath.Join(sp.Folder(), "overlay", name)))
			}
		}
	}
	s.runs("1.1.0")
	s.ails()

	s.must(s.vendor.Replace("deployment.yaml", ":1.1.0", ":1.2.0"))
	s.release("1.2.0", "Available")
	s.runs("1.2.0")
	s.kubectl(0, "-n", "shop", "patch", "deployment", "backend", "--type=json", "-p", `[{"op":"replace","path":"/spec/template/spec/containers/0/env/0/value","value":"other"}]`)
	s.must(world.Await(s.patiently(), "the drift to be put back", func(context.Context) error {
		if got := s.kubectl(0, "-n", "shop", "get", "deployment", "backend", "-o", "jsonpath={.spec.template.spec.containers[0].env[*].value}"); !strings.Contains(got, canary(0)) {
			return errorf("it is %q", got)
		}
		return nil
	}))
	s.must(sp.Kill())
	s.must(sp.Start())
	s.must(world.Await(s.patiently(), "the rollback", func(ctx context.Context) error {
		r, err := sp.Run(ctx, "rollback", "shop", "--yes", "--timeout", "60s")
		if err == nil && r.Code != 0 {
			err = errorf("exit code %d: %s", r.Code, r.Err)
		}
		return err
	}))
	s.in("RolledBack", "1.1.0")
	s.onCluster()
	s.must(sp.Kill())
	s.must(s.hub.Kill())
	s.searched(wire.bytes(), told.bytes())
}

// thorough: every breakage, which takes a minute more.
func thorough() bool { return os.Getenv("WHEELWRIGHT_FIGURES") != "" }

// searched looks everywhere, and shows first that it would find something.
func (s *story) searched(wire, told []byte) {
	s.t.Helper()
	sp, all, hits := s.spokes[0], newTraces(), map[int]bool{}
	seen := map[int]bool{}
	for _, data := range files(s.t, filepath.Join(sp.Folder(), "overlay")) {
		for n := range all.find(data) {
			seen[n] = true
		}
	}
	for n := range inSOPS {
		if !seen[n] && n < firstBad {
			s.t.Errorf("canary %d was never in the overlay", n)
		}
	}
	for what, in := range map[string][]byte{"wire": wire, "notices": told} {
		if !strings.Contains(string(in), "1.2.0") || len(in) < 200 {
			s.t.Errorf("%s: %d bytes were caught", what, len(in))
		}
		all.report(s.t, "the "+what, in, hits, 0)
		if planted := all.find(append([]byte(base64.StdEncoding.EncodeToString([]byte("x"+canary(7)))), in...)); planted[7] == "" {
			s.t.Errorf("%s: what was planted is not found", what)
		}
	}
	size := len(wire) + len(told)
	for path, data := range files(s.t, s.hub.Dir) {
		all.report(s.t, path, data, hits, 0)
		size += len(data)
	}
	for _, path := range []string{s.hub.Log, sp.Log} {
		data, err := os.ReadFile(path)
		s.must(err)
		all.report(s.t, path, data, hits, 0)
		size += len(data)
	}
	for path, data := range files(s.t, sp.Dir) {
		from := inSOPS
		if filepath.Base(path) == "journal.db" {
			from = 0 // what was rendered is sealed whole
		}
		all.report(s.t, path, data, hits, from)
		size += len(data)
	}
	if !thorough() {
		return
	}
	fmt.Printf("FIGURE leak.hits %d of %d canaries, in %d KiB of hub's files, wire, notices, logs at debug and the spoke's data folder\n", len(hits), canaries, size>>10)
}

// onCluster: what is searched for did reach the cluster, decrypted.
func (s *story) onCluster() {
	s.t.Helper()
	out := s.kubectl(0, "-n", "shop", "get", "secrets,configmaps,deployments,ingresses", "-o", "yaml")
	found := newTraces().find([]byte(out))
	for n := range canaries {
		if (n < firstBad || n >= inSOPS) && found[n] == "" {
			s.t.Fatalf("canary %d is not on the cluster", n)
		}
	}
	if strings.Contains(out, "ENC[") || strings.Contains(out, "lastmodified") {
		s.t.Error("something of SOPS' own is on the cluster")
	}
}

// stops waits until the spoke has said why it goes no further, in words that it did not say before.
func (s *story) stops(what, last string) (reason string) {
	s.t.Helper()
	s.must(s.hub.AwaitRows(s.patiently(), what, func(r *fleetv1.StatusRow) error {
		reason = r.GetReason()
		if p := r.GetRawPhase(); p != "Refused" && p != "AwaitingConfig" || reason == last || reason == "" {
			return errorf("it is %s: %s", p, reason)
		}
		return nil
	}))
	s.t.Logf("%s: %s", what, reason)
	return reason
}

// ails lets a pod's status and an event quote the environment, as programs do when they die.
func (s *story) ails() {
	s.t.Helper()
	pod := strings.Fields(s.kubectl(0, "-n", "shop", "get", "pods", "-l", "app=backend", "-o", "jsonpath={.items[*].metadata.name}"))[0]
	status := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"False","reason":"ContainersNotReady","message":"DSN=%s"}],"containerStatuses":[{"name":"backend","ready":false,"restartCount":3,
		"image":"x","imageID":"x","state":{"waiting":{"reason":"CrashLoopBackOff","message":"panic: cannot reach %s with %s"}}}]}}`, canary(1), canary(2), canary(inSOPS+1))
	s.kubectl(0, "-n", "shop", "patch", "pod", pod, "--subresource=status", "--type=merge", "-p", status)
	s.must(s.real[0].ApplyIn("shop", fmt.Sprintf(`{apiVersion: v1, kind: Event, metadata: {name: quoting}, involvedObject: {apiVersion: v1, kind: Pod, name: %s, namespace: shop}, type: Warning, reason: Failed, message: "exec: %s --password %s"}`,
		pod, canary(3), canary(inSOPS+2))))
	s.must(s.hub.AwaitRows(s.patiently(), "the pod to be seen", func(r *fleetv1.StatusRow) error {
		if r.GetHealth() == "Healthy" {
			return errorf("it is healthy")
		}
		return nil
	}))
	s.kubectl(0, "-n", "shop", "delete", "pod", pod, "--grace-period=0", "--force")
	s.runs("1.1.0")
}

// denyByPolicy has the API server quote an object where it refuses one.
func (s *story) denyByPolicy() {
	s.t.Helper()
	s.must(s.real[0].Apply(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: quoting}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}]}
  validations:
  - expression: "!has(object.data) || !('refuse' in object.data)"
    messageExpression: "'not like this: ' + object.data.refuse"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: quoting}
spec: {policyName: quoting, validationActions: [Deny], matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}
`))
	s.t.Cleanup(func() {
		s.real[0].Kubectl("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "quoting", "--ignore-not-found")
	})
}

// listener is where a notifier tells what it was told.
type listener struct {
	url  string
	mu   sync.Mutex
	seen []byte
}

func (l *listener) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]byte{}, l.seen...)
}

func listen(t *testing.T) *listener {
	l := &listener{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen = append(l.seen, body...)
	}))
	t.Cleanup(server.Close)
	l.url = server.URL
	return l
}

// notifier is the entry of spoke.yaml for the product's own one.
func notifier(t *testing.T, url string) string {
	t.Helper()
	root, err := world.Root()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "notify")
	build := exec.Command("go", "build", "-o", program, "./plugins/notify")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("plugins:\n- {name: told, path: %s, sha256: %x, kinds: [notifier], args: [webhook, --url, %q, --plain-http, --tell, all]}\n", program, sha256.Sum256(data), url)
}

// firstBad is the first canary that stands in what cannot be applied.
const firstBad = 120

// overlayOfCanaries are the files of an overlay that can be applied, with the first 120 canaries, and those in files
// that the real tool encrypted.
func overlayOfCanaries(t *testing.T, sp *world.Spoke) map[string]string {
	t.Helper()
	key, err := os.ReadFile("testdata/leak/key.txt")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(sp.Folder(), "key.txt"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	list := func(from, to int, line func(n int) string) string {
		var b strings.Builder
		for n := from; n < to; n++ {
			b.WriteString(line(n) + "\n")
		}
		return b.String()
	}
	pull, _ := json.Marshal(map[string]any{"auths": map[string]any{"registry.example.com": map[string]string{"username": canary(104), "password": canary(105),
		"auth": base64.StdEncoding.EncodeToString([]byte(canary(104) + ":" + canary(105)))}}})
	out := map[string]string{
		"kustomization.yaml": `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ` + shopURL + `//dist/app-kubernetes
- secret.yaml
- ingress.yaml
- db.sops.yaml
patches:
- path: backend.yaml
configMapGenerator:
- name: plain
  namespace: shop
  literals:
` + list(30, 50, func(n int) string { return fmt.Sprintf("  - K%d=%s", n, canary(n)) }) + `secretGenerator:
- name: literals
  namespace: shop
  literals:
` + list(50, 70, func(n int) string { return fmt.Sprintf("  - K%d=%s", n, canary(n)) }) + `- name: envs
  namespace: shop
  envs: [plain.env, db.sops.env]
- name: files
  namespace: shop
  files: [conf.sops.json, blob.bin, tail.txt]
`,
		"backend.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: backend\nspec:\n  template:\n    metadata:\n      annotations:\n" +
			list(20, 30, func(n int) string { return fmt.Sprintf("        example.com/a%d: %s", n, canary(n)) }) +
			"    spec:\n      containers:\n      - name: backend\n        env:\n" +
			list(0, 20, func(n int) string { return fmt.Sprintf("        - {name: E%d, value: %s}", n, canary(n)) }),
		"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: own, namespace: shop}\nstringData:\n" +
			list(70, 85, func(n int) string { return fmt.Sprintf("  k%d: %s", n, canary(n)) }) + "data:\n" +
			list(85, 100, func(n int) string {
				return fmt.Sprintf("  k%d: %s", n, base64.StdEncoding.EncodeToString([]byte(canary(n))))
			}) + "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/dockerconfigjson\nmetadata: {name: pull, namespace: shop}\ndata:\n  .dockerconfigjson: " + base64.StdEncoding.EncodeToString(pull) + "\n",
		"ingress.yaml": "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: shop\n  namespace: shop\n  annotations:\n" +
			list(100, 104, func(n int) string { return fmt.Sprintf("    example.com/a%d: %s", n, canary(n)) }) + "spec:\n  rules:\n" +
			list(106, 110, func(n int) string {
				return fmt.Sprintf("  - {host: %s.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: backend, port: {number: 8080}}}}]}}", canary(n))
			}),
		"plain.env": list(110, 115, func(n int) string { return fmt.Sprintf("K%d=%s", n, canary(n)) }),
		"tail.txt":  list(115, 120, func(n int) string { return "a line with " + canary(n) + " in it" }),
	}
	for _, name := range []string{"db.sops.yaml", "db.sops.env", "conf.sops.json", "blob.bin"} {
		data, err := os.ReadFile(filepath.Join("testdata", "leak", name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(data)
	}
	return out
}

// breakage is what is wrong with an overlay for a while.
type breakage struct {
	what  string
	files map[string]string
}

// breakages quote the canaries from 120 to 159, and some of the others.
func breakages(good map[string]string) []breakage {
	resource := func(text string) map[string]string {
		return map[string]string{"bad.yaml": text, "kustomization.yaml": strings.Replace(good["kustomization.yaml"], "- ingress.yaml\n", "- ingress.yaml\n- bad.yaml\n", 1)}
	}
	kustomization := func(more string) map[string]string {
		return map[string]string{"kustomization.yaml": good["kustomization.yaml"] + more}
	}
	pod := func(n int, name, pod, container string) string {
		return fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: %s, namespace: shop}\nspec:\n  selector: {matchLabels: {app: %[1]s}}\n  template:\n    metadata: {labels: {app: %[1]s}}\n    spec:\n      %s\n      containers:\n      - {name: x, image: x, %s}\n---\n",
			name, strings.ReplaceAll(pod, "C", canary(n)), strings.ReplaceAll(container, "C", canary(n)))
	}
	object := func(n int, kind, name, rest string) string {
		return fmt.Sprintf("apiVersion: %s\nmetadata: {name: %s, namespace: shop}\n%s\n---\n", strings.Replace(kind, " ", "\nkind: ", 1), name, strings.ReplaceAll(rest, "C", canary(n)))
	}
	return []breakage{
		{"values of pods that the API server refuses", resource(pod(120, "b1", "", "imagePullPolicy: C") + pod(121, "b2", "", "ports: [{containerPort: 80, protocol: C}]") +
			pod(122, "b3", "", "resources: {limits: {memory: C}}") + pod(123, "b4", "restartPolicy: C", "env: []") + pod(124, "b5", "", "volumeMounts: [{name: C, mountPath: 'a:C'}]") +
			pod(125, "b6", "", "env: [{name: X, valueFrom: {fieldRef: {fieldPath: C}}}]") + pod(126, "b7", "dnsPolicy: C", "env: []") + pod(127, "b8", "nodeSelector: {a: 'C not a label'}", "env: []"))},
		{"values of other kinds", resource(object(128, "v1 Service", "b1", "spec: {type: C, ports: [{port: 80}]}") + object(129, "v1 Service", "b2", "spec: {clusterIP: C, ports: [{port: 80}]}") +
			object(130, "networking.k8s.io/v1 Ingress", "b3", "spec: {rules: [{host: UPPER_C}]}") + object(131, "batch/v1 CronJob", "b4", "spec: {schedule: 'C', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: x, image: x}]}}}}}") +
			object(132, "networking.k8s.io/v1 NetworkPolicy", "b5", "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: C}}]}]}") + object(133, "policy/v1 PodDisruptionBudget", "b6", "spec: {minAvailable: C, selector: {}}"))},
		{"what is of no type or unknown", resource(object(134, "v1 Secret", "b1", "data: {k: '%%C'}") + object(135, "v1 ConfigMap", "b2", "binaryData: {k: '%%C'}") + object(136, "v1 ConfigMap", "b3", "specC: {deep: C}") +
			object(137, "v1 ConfigMap", "b4", "data: {'bad key C': x}") + object(138, "autoscaling/v2 HorizontalPodAutoscaler", "b5", "spec: {maxReplicas: C, scaleTargetRef: {kind: Deployment, name: backend}}") +
			object(139, "v1 Secret", "b6", "type: kubernetes.io/tls\nstringData: {wrong: C}"))},
		{"a policy that quotes", resource(object(140, "v1 ConfigMap", "b1", "data: {refuse: C}"))},
		{"an immutable field", map[string]string{"backend.yaml": strings.Replace(good["backend.yaml"], "spec:\n  template:", "spec:\n  selector: {matchLabels: {more: "+canary(141)+"}}\n  template:", 1)}},
		{"no YAML", resource("a: [" + canary(142) + "\n")},
		{"no object", resource("kind: ConfigMap\nmetadata: " + canary(143) + "\n")},
		{"a patch without a target", map[string]string{"kustomization.yaml": strings.Replace(good["kustomization.yaml"], "patches:\n", "patches:\n- patch: |\n    {apiVersion: v1, kind: ConfigMap, metadata: {name: none}, data: {k: "+canary(144)+"}}\n", 1)}},
		{"a patch that cannot be laid", map[string]string{"kustomization.yaml": strings.Replace(good["kustomization.yaml"], "patches:\n", "patches:\n- target: {kind: Deployment, name: backend}\n  patch: '[{\"op\": \"replace\", \"path\": \"/spec/"+canary(145)+"\", \"value\": \""+canary(146)+"\"}]'\n", 1)}},
		{"a literal that is none", map[string]string{"kustomization.yaml": strings.Replace(good["kustomization.yaml"], "  - K30=", "  - "+canary(147)+"\n  - K30=", 1)}},
		{"an unknown key", kustomization(canary(148) + ": " + canary(149) + "\n")},
		{"an env file that is none", map[string]string{"plain.env": good["plain.env"] + "not " + canary(150) + " a line\n"}},
		{"a JSON file for a patch", map[string]string{"backend.yaml": "{\"apiVersion\": \"apps/v1\", \"kind\": \"Deployment\", \"metadata\": {\"name\": \"backend\"}, \"spec\": \"" + canary(151) + "\"}\n"}},
		{"a file that was changed after it was encrypted", map[string]string{"db.sops.yaml": strings.Replace(good["db.sops.yaml"], "name: db", "name: other", 1)}},
	}
}
