package integration

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// The kustomize bases of deploy are what the API server takes, and their pods are what a namespace of
// pod security "restricted" admits; so is the debug container that the README has read the hub's context.
func TestDeployBases(t *testing.T) {
	c := clusters.take(t, 1)[0]
	root, err := world.Root()
	if err != nil {
		t.Fatal(err)
	}
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := c.Kubectl(args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	for _, base := range []struct{ name, namespace string }{{"hub", "wheelwright-hub"}, {"spoke", "wheelwright"}} {
		t.Run(base.name, func(t *testing.T) {
			dir := filepath.Join(root, "deploy", base.name)
			t.Cleanup(func() {
				if _, err := c.Kubectl("delete", "-k", dir, "--ignore-not-found", "--wait=true", "--timeout=60s"); err != nil {
					t.Error(err)
				}
			})
			kubectl("apply", "-f", filepath.Join(dir, "namespace.yaml"))
			if out, err := c.Kubectl("-n", base.namespace, "run", "careless", "--image=example.com/careless:1", "--dry-run=server"); err == nil || !strings.Contains(err.Error(), "restricted") {
				t.Fatalf("a pod without any care was admitted, so that this namespace proves nothing: %s, %v", out, err)
			}
			if out := kubectl("apply", "-k", dir, "--dry-run=server"); strings.Count(out, "(server dry run)") < 4 {
				t.Errorf("dry run of deploy/%s:\n%s", base.name, out)
			}
			kubectl("apply", "-k", dir)
			if base.name == "spoke" {
				kubectl("-n", base.namespace, "create", "secret", "generic", "join", "--from-literal=hub=hub.example.com:7443", "--from-literal=token=ww1")
			}
			pod := base.name + "-0"
			c.Eventually(t, "pod "+pod, func() error {
				events, err := c.Kubectl("-n", base.namespace, "get", "events", "--field-selector=type=Warning,reason=FailedCreate", "-o", "jsonpath={.items[*].message}")
				if err != nil || events != "" {
					t.Fatalf("the controller may not create what deploy/%s asks for: %s, %v", base.name, events, err)
				}
				_, err = c.Kubectl("-n", base.namespace, "get", "pod", pod)
				return err
			})
			if base.name == "hub" {
				kubectl("-n", base.namespace, "debug", pod, "--profile=restricted", "--target=hub", "--image=busybox:1.37", "--", "cat", "/proc/1/root/data/admin.yaml")
			}
		})
	}
}

// spokeUser is whom the API server knows the spoke's Pod as.
const spokeUser = "system:serviceaccount:wheelwright:spoke"

// A spoke with the rights of deploy/spoke/rbac.yaml and no others installs, upgrades, prunes and puts
// back; without the right to one kind, a release is refused before anything is touched, and the rule to
// add is named.
func TestDeployRights(t *testing.T) {
	s := tell(t, 1)
	root, err := world.Root()
	s.must(err)
	rights := filepath.Join(root, "deploy", "spoke", "rbac.yaml")
	s.kubectl(0, "apply", "-f", filepath.Join(root, "deploy", "spoke", "namespace.yaml"))
	t.Cleanup(func() {
		if _, err := s.spokes[0].Stop(); err != nil {
			t.Error(err)
		}
		if _, err := s.real[0].Kubectl("delete", "-k", filepath.Join(root, "deploy", "spoke"), "--ignore-not-found", "--wait=true", "--timeout=60s"); err != nil {
			t.Error(err)
		}
	})
	s.kubectl(0, "-n", "wheelwright", "apply", "-f", rights)
	s.spokes[0].Kubeconfig = s.asPod(0)

	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")

	s.must(s.vendor.Replace("app-kubernetes/backend/config.env", "TIMEOUT=5s", "TIMEOUT=2s"))
	s.must(s.vendor.Replace("base/backend/kustomization.yaml", "- hpa.yaml\n", ""))
	s.release("1.2.0", "Available")
	s.runs("1.2.0")
	if got := s.kubectl(0, "-n", "shop", "get", "hpa", "-o", "name"); got != "horizontalpodautoscaler.autoscaling/frontend" {
		t.Errorf("HPAs after the upgrade: %s; want the frontend's alone", got)
	}

	image := s.image(0, "cache")
	s.kubectl(0, "-n", "shop", "set", "image", "deployment/cache", "*=example.com/by-hand:1")
	s.kubectl(0, "-n", "shop", "delete", "service", "backend")
	s.must(world.Await(s.patiently(), "what others changed to be put back", func(context.Context) error {
		if got := s.image(0, "cache"); got != image {
			return errorf("the cache's image is %s", got)
		}
		_, err := s.real[0].Kubectl("-n", "shop", "get", "service", "backend")
		return err
	}))
	s.runs("1.2.0")

	t.Run("a lost volume takes the identity and nothing else", s.withoutVolume)
	t.Run("a missing right is named and nothing is touched", func(t *testing.T) { s.withoutAutoscaling(rights) })
}

// withoutVolume joins from an empty data folder, as the Pod's first container does.
func (s *story) withoutVolume(t *testing.T) {
	old := s.spokes[0]
	_, err := old.Stop()
	s.must(err)
	before, mark := s.objects(0), s.real[0].MarkRequests(t)
	again := respawn(s, old, old.Dir+"-new")
	line, err := s.hub.Must(s.ctx, "cluster", "invite", old.Cluster, "--accept-automatically")
	s.must(err)
	for range 2 { // a Pod that starts again joins again, with a token that is used by then
		if r, err := again.RunLine(s.ctx, strings.TrimSpace(line)+" --if-needed"); err != nil || r.Code != 0 {
			t.Fatalf("join: %v, %+v", err, r)
		}
	}
	s.must(again.Start())
	s.spokes[0] = again
	s.must(world.Await(s.patiently(), "the new spoke to take over and to watch for drift", func(context.Context) error {
		if all := strings.Join(events(s), "\n"); !strings.Contains(all, "took over 1.2.0") {
			return errorf("no such event in\n%s", all)
		}
		looks := 0
		for _, r := range s.real[0].Requests(t, mark, "wheelwright") {
			if r.User == spokeUser && r.Verb == "watch" && strings.Contains(r.URI, "/namespaces/shop/deployments") {
				looks++
			}
		}
		if looks == 0 {
			return errorf("it does not watch its Deployments")
		}
		return nil
	}))
	s.runs("1.2.0")
	if after := s.objects(0); after != before {
		t.Errorf("objects changed over a lost volume:\nbefore\n%s\nafter\n%s", before, after)
	}
}

// withoutAutoscaling takes one rule away, releases 1.3.0, and gives the rule back for 1.3.1.
func (s *story) withoutAutoscaling(rights string) {
	s.t.Helper()
	const rule = "- apiGroups: [autoscaling]\n  resources: [horizontalpodautoscalers]\n  verbs: [get, list, watch, create, patch, delete]\n"
	text, err := os.ReadFile(rights)
	s.must(err)
	less := strings.Replace(string(text), rule, "", 1)
	if less == string(text) {
		s.t.Fatalf("%s does not hold the rule\n%s", rights, rule)
	}
	file := filepath.Join(s.dir, "rbac.yaml")
	s.must(os.WriteFile(file, []byte(less), 0o600))
	s.kubectl(0, "-n", "wheelwright", "apply", "-f", file)
	s.must(world.Await(s.patiently(), "the right to be gone", func(context.Context) error {
		out, _ := s.real[0].Kubectl("auth", "can-i", "patch", "horizontalpodautoscalers.autoscaling", "-n", "shop", "--as="+spokeUser)
		if strings.TrimSpace(out) != "no" {
			return errorf("can-i says %q", out)
		}
		return nil
	}))

	before := s.objects(0)
	s.must(s.vendor.Replace("app-kubernetes/backend/config.env", "TIMEOUT=2s", "TIMEOUT=3s"))
	s.must(s.vendor.Replace("base/frontend/hpa.yaml", "maxReplicas: 4", "maxReplicas: 5"))
	s.release("1.3.0", "Available")
	s.in("Refused", "1.2.0")
	screen, err := s.hub.Run(s.ctx, "status", "-o", "wide")
	s.must(err)
	provider, err := s.spokes[0].Run(s.ctx, "status", "-o", "wide")
	s.must(err)
	for _, want := range []string{spokeUser + " may not get, list, watch, create, patch, delete horizontalpodautoscalers", `rule apiGroups: ["autoscaling"], resources: ["horizontalpodautoscalers"], verbs: ["get", "list", "watch", "create", "patch", "delete"]`} {
		if !strings.Contains(screen.Out, want) {
			s.t.Errorf("hub status of a spoke without the right: exit code %d, want %q in\n%s", screen.Code, want, screen.Out)
		}
		if !strings.Contains(provider.Out, want) {
			s.t.Errorf("spoke status -o wide: want %q in\n%s", want, provider.Out)
		}
	}
	if after := s.objects(0); after != before {
		s.t.Errorf("a refused release touched objects:\nbefore\n%s\nafter\n%s", before, after)
	}

	s.kubectl(0, "-n", "wheelwright", "apply", "-f", rights)
	s.release("1.3.1", "Available")
	s.runs("1.3.1")
}

// objects of the sample distribution, with what changes when the spoke writes to them. Deployments are
// also written to by their autoscaler, who counts replicas only.
func (s *story) objects(i int) string {
	s.t.Helper()
	return s.kubectl(i, "-n", "shop", "get", "services,configmaps", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.metadata.resourceVersion}{"\n"}{end}`) + "\n" +
		s.kubectl(i, "-n", "shop", "get", "deployments,hpa", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.spec.minReplicas} {.spec.maxReplicas} {.spec.template.spec}{"\n"}{end}`)
}

// asPod writes a kubeconfig with nothing but a token of the spoke's ServiceAccount.
func (s *story) asPod(i int) string {
	s.t.Helper()
	token := s.kubectl(i, "-n", "wheelwright", "create", "token", "spoke", "--duration=1h")
	config := s.real[i].RESTConfig()
	path := filepath.Join(s.dir, "spoke.kubeconfig")
	s.must(os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: u
  user: {token: %s}
contexts:
- name: c
  context: {cluster: c, user: u}
current-context: c
`, config.Host, base64.StdEncoding.EncodeToString(config.CAData), token), 0o600))
	if who := s.kubectl(i, "--kubeconfig", path, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"); who != spokeUser {
		s.t.Fatalf("the kubeconfig speaks as %s", who)
	}
	return path
}
