package envelope

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/pkg/rules"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	js, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(js); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return u
}

// subject is an object as the spoke would send it, for a subscription of namespace shop.
func subject(t *testing.T, text string) Subject {
	t.Helper()
	u := object(t, text)
	s := Subject{Unstructured: u, Home: "shop", Namespaced: true}
	if namespaced, known := Namespaced(u.GroupVersionKind().GroupKind()); known {
		s.Namespaced = namespaced
	}
	if s.Namespaced {
		if s.Namespace = u.GetNamespace(); s.Namespace == "" {
			s.Namespace = s.Home
		}
	}
	return s
}

// must reads texts of one sort.
func must[T any](t *testing.T, parse func(string) (T, error), texts ...string) (all []T) {
	t.Helper()
	for _, text := range texts {
		one, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

// fields are where the violations are; "-" stands for the object as a whole.
func fields(e Envelope, s Subject) string {
	var all []string
	for _, v := range e.Check(s) {
		if v.Field == "" {
			v.Field = "-"
		}
		all = append(all, v.Field)
	}
	return strings.Join(all, " ")
}

func TestPlaces(t *testing.T) {
	open := Envelope{{Namespaces: must(t, ParseNamespace, "shop", "team-*"), ClusterScoped: must(t, ParseClusterScoped, "Namespace/shop", "ClusterRole/shop:*", "IngressClass", "Widget.example.com/w")}}
	for _, c := range []struct {
		text, plain, open string
	}{
		{"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", "", ""},
		{"{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}", "", ""},
		{`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: ""}}`, "", ""},
		{"{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: team-1}}", "metadata.namespace", ""},
		{"{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: tea}}", "metadata.namespace", "metadata.namespace"},
		{"{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: kube-system}}", "metadata.namespace", "metadata.namespace"},
		{"{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop-2}}", "metadata.namespace", "metadata.namespace"},
		{"{apiVersion: v1, kind: Namespace, metadata: {name: shop}}", "kind", ""},
		{"{apiVersion: v1, kind: Namespace, metadata: {name: shop, namespace: shop}}", "kind", ""},
		{"{apiVersion: v1, kind: Namespace, metadata: {name: kube-system, namespace: shop}}", "kind", "kind"},
		{"{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: 'shop:reader'}}", "kind", ""},
		{"{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: shop}}", "kind", "kind"},
		{"{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: 'shop:reader'}}", "kind", "kind"},
		{"{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: any}}", "kind", ""},
	} {
		s := subject(t, c.text)
		if got := fields(Envelope{{}}, s); got != c.plain {
			t.Errorf("%s: outside by default: %q, want %q", c.text, got, c.plain)
		}
		if got := fields(open, s); got != c.open {
			t.Errorf("%s: outside: %q, want %q", c.text, got, c.open)
		}
		if got := fields(nil, s); got != "" {
			t.Errorf("%s: without an envelope: %q", c.text, got)
		}
	}
	// A kind of the same name in a group of others is another kind.
	for _, kind := range []string{"Namespace", "IngressClass"} {
		s := subject(t, fmt.Sprintf("{apiVersion: evil.example.com/v1, kind: %s, metadata: {name: shop}}", kind))
		if s.Namespaced, s.Namespace = false, ""; fields(open, s) != "kind" {
			t.Errorf("%s of another group is inside", kind)
		}
	}
}

func TestKinds(t *testing.T) {
	e := Envelope{{Allow: must(t, ParseAllowed, "ConfigMap", "Deployment.apps", "*.example.com", "Service.core"), Deny: must(t, ParseDenied, "Bad", "Worse.example.com", "*.rbac.authorization.k8s.io")}}
	for api, want := range map[string]string{
		"v1/ConfigMap": "", "apps/v1/Deployment": "", "v1/Service": "", "example.com/v1/Any": "", "example.com/v9/Other": "",
		"evil.example.org/v1/ConfigMap": "kind", "extensions/v1/Deployment": "kind", "serving.knative.dev/v1/Service": "kind", "v1/Secret": "kind",
		"example.com/v1/Bad": "kind", "example.com/v1/Worse": "kind", "sub.example.com/v1/Any": "kind", "rbac.authorization.k8s.io/v1/Role": "kind", "apps/v1/configmap": "kind",
	} {
		n := strings.LastIndex(api, "/")
		s := subject(t, fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: a}}", api[:n], api[n+1:]))
		if got := fields(e, s); got != want {
			t.Errorf("%s: %q, want %q", api, got, want)
		}
	}
	if got := fields(Envelope{{Deny: must(t, ParseDenied, "Secret")}}, subject(t, "{apiVersion: evil.example.com/v1, kind: Secret, metadata: {name: a}}")); got != "kind" {
		t.Errorf("a kind that is denied without a group is not denied in every group: %q", got)
	}
	for _, text := range []string{"", "*", "deployment", "Deployment.", "Widget", "Deployment.Apps", "*.*", "Deploy*", "A/b"} {
		if k, err := ParseAllowed(text); err == nil {
			t.Errorf("allowed %q: %v", text, k)
		}
	}
	for _, text := range []string{"ConfigMap", "Deployment/shop/a", "Widget/a", "ClusterRole/", "*/a", "Pod/x"} {
		if p, err := ParseClusterScoped(text); err == nil {
			t.Errorf("clusterScoped %q: %v", text, p)
		}
	}
	for _, text := range []string{"", "Shop", "a*b", "*a", "-a", "a/b", "..", strings.Repeat("a", 64)} {
		if n, err := ParseNamespace(text); err == nil {
			t.Errorf("namespace %q: %v", text, n)
		}
	}
}

const (
	sha = "@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	hex = "1111111111111111111111111111111111111111111111111111111111111111"
)

func TestImages(t *testing.T) {
	registries := must(t, ParseRegistry, "registry.example.com/acme", "registry.example.com:5000", "index.docker.io/library/", "GHCR.io/vendor/shop", "localhost:5000/a", "[::1]:5000")
	e := Envelope{{Registries: registries}}
	pinned := Envelope{{Digests: true}}
	for _, c := range []struct {
		image          string
		inside, digest bool
	}{
		{"registry.example.com/acme/web:1", true, false},
		{"registry.example.com/acme/web:1" + sha, true, true},
		{"registry.example.com/acme/web" + sha, true, true},
		{"REGISTRY.example.COM/acme/web:1", true, false}, // names of hosts have no case
		{"registry.example.com/acme:1", true, false},
		{"registry.example.com/acme-evil/web:1", false, false},
		{"registry.example.com/acm/web:1", false, false},
		{"registry.example.com/other/acme/web:1", false, false},
		{"registry.example.com:443/acme/web:1", false, false}, // another port is another registry
		{"registry.example.com:5000/any:1", true, false},
		{"registry.example.com.evil.org/acme/web:1", false, false},
		{"evil.org/registry.example.com/acme/web:1", false, false},
		{"registry.example.com/acme/../evil/web:1", false, false},
		{"registry.example.com/acme//web:1", false, false},
		{"registry.example.com./acme/web:1", false, false},
		{"evil.org@registry.example.com/acme/web:1", false, false},
		{"evil.org/web:1@registry.example.com/acme", false, false},
		{"registry.example.com/acme/web:1@sha256:12", false, false},
		{"registry.example.com/acme/web@md5:1111", false, false},
		{"registry.example.com/Acme/web:1", false, false},
		{"https://registry.example.com/acme/web:1", false, false},
		{" registry.example.com/acme/web:1", false, false},
		{"registry.example.com/acme/web:1\n", false, false},
		{"nginx", true, false},
		{"nginx:1.27" + sha, true, true},
		{"library/nginx", true, false},
		{"docker.io/nginx", true, false},
		{"docker.io/library/nginx:1", true, false},
		{"index.docker.io/library/nginx:1", true, false},
		{"index.docker.io/nginx:1", true, false},
		{"Docker.IO/library/nginx:1", true, false},
		{"registry-1.docker.io/library/nginx", false, false},
		{"evil/nginx", false, false},
		{"library/evil/nginx", true, false}, // below what is allowed
		{"docker.io/evil/nginx:1", false, false},
		{"NGINX", false, false},
		{"LIBRARY/nginx", false, false}, // a host, by its capitals
		{"library.io/nginx", false, false},
		{hex, false, false}, // an image that the node has, by its id
		{"ghcr.io/vendor/shop/web:1", true, false},
		{"ghcr.io/vendor/shopping/web:1", false, false},
		{"localhost:5000/a/b", true, false},
		{"localhost/a/b", false, false},
		{"[::1]:5000/a/b", true, false},
		{"${REGISTRY}/acme/web:1", false, false},
		{"", false, false},
	} {
		for _, place := range []string{"initContainers", "containers", "ephemeralContainers"} {
			s := subject(t, fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {template: {spec: {%s: [{name: app, image: %q}]}}}}", place, c.image))
			want := map[bool]string{false: "spec.template.spec." + place + "[app].image"}
			if got := fields(e, s); got != want[c.inside] {
				t.Errorf("%q in %s: outside %q", c.image, place, got)
			}
			if got := fields(pinned, s); got != want[c.digest] {
				t.Errorf("%q in %s: without a digest %q", c.image, place, got)
			}
		}
	}
	for _, text := range []string{"", "acme", "registry", "registry.example.com/acme:1", "registry.example.com/acme" + sha, "https://registry.example.com", "registry.example.com//a", "*", "registry.example.com/*", "registry.example.com/Acme"} {
		if r, err := ParseRegistry(text); err == nil {
			t.Errorf("registry %q: %v", text, r)
		}
	}
}

// Wherever a kind keeps a pod, its images are found; and what cannot be read is outside.
func TestEveryTemplate(t *testing.T) {
	e := Envelope{{Registries: must(t, ParseRegistry, "registry.example.com"), PodSecurity: "baseline"}}
	const pod = `{metadata: {labels: {a: b}}, spec: {hostNetwork: true, containers: [{name: a, image: evil/a, securityContext: {privileged: true}}], volumes: [{name: v, image: {reference: evil/v}}]}}`
	for kind, of := range map[string][2]string{
		"v1/PodTemplate": {"template: %s", "template"}, "v1/ReplicationController": {"spec: {template: %s}", "spec.template"},
		"apps/v1/Deployment": {"spec: {template: %s}", "spec.template"}, "apps/v1/ReplicaSet": {"spec: {template: %s}", "spec.template"},
		"apps/v1/StatefulSet": {"spec: {template: %s}", "spec.template"}, "apps/v1/DaemonSet": {"spec: {template: %s}", "spec.template"},
		"batch/v1/Job": {"spec: {template: %s}", "spec.template"}, "batch/v1/CronJob": {"spec: {jobTemplate: {spec: {template: %s}}}", "spec.jobTemplate.spec.template"},
		"argoproj.io/v1alpha1/Rollout": {"spec: {template: %s}", "spec.template"}, // made like them
	} {
		n := strings.LastIndex(kind, "/")
		s := subject(t, fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: a}, %s}", kind[:n], kind[n+1:], fmt.Sprintf(of[0], pod)))
		want := fmt.Sprintf("%[1]s.spec.containers[a].image %[1]s.spec.volumes[v].image.reference %[1]s.spec", of[1])
		if got := fields(e, s); got != want {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
	if got := fields(e, subject(t, "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: evil/a}]}}")); got != "spec.containers[a].image" {
		t.Errorf("a Pod: %q", got)
	}
	for text, want := range map[string]string{
		"spec: {template: text}": "spec",
		"spec: text":             "spec",
		"spec: {template: {spec: {containers: text}}}":                               "spec.template.spec.containers spec.template.spec",
		"spec: {template: {spec: {containers: [text]}}}":                             "spec.template.spec.containers spec.template.spec",
		"spec: {template: {spec: {containers: {a: b}}}}":                             "spec.template.spec.containers spec.template.spec",
		"spec: {template: {spec: {containers: [{name: a, image: 7}]}}}":              "spec.template.spec.containers[a].image spec.template.spec",
		"spec: {template: {spec: {hostNetwork: 'true', containers: []}}}":            "spec.template.spec",
		"spec: {template: {spec: {containers: [], volumes: {a: {image: {}}}}}}":      "spec.template.spec.volumes spec.template.spec",
		"spec: {template: {spec: {containers: [], volumes: [{name: v, image: x}]}}}": "spec.template.spec.volumes[v].image.reference spec.template.spec",
		"spec: {replicas: 3}": "",
	} {
		if got := fields(e, subject(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, "+text+"}")); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestPodSecurity(t *testing.T) {
	const safe = "runAsNonRoot: true, allowPrivilegeEscalation: false, seccompProfile: {type: RuntimeDefault}, capabilities: {drop: [ALL]}"
	for _, c := range []struct {
		name, spec           string
		baseline, restricted bool // inside
	}{
		{"safe", "containers: [{name: a, image: a, securityContext: {" + safe + "}}]", true, true},
		{"plain", "containers: [{name: a, image: a}]", true, false},
		{"security taken out by a null", "containers: [{name: a, image: a, securityContext: null}]", true, false},
		{"a null in it", "containers: [{name: a, image: a, securityContext: {" + strings.Replace(safe, "runAsNonRoot: true", "runAsNonRoot: null", 1) + "}}]", true, false},
		{"privileged", "containers: [{name: a, image: a, securityContext: {privileged: true}}]", false, false},
		{"a privileged init container", "initContainers: [{name: i, image: a, securityContext: {privileged: true}}], containers: [{name: a, image: a, securityContext: {" + safe + "}}]", false, false},
		{"a plain init container", "initContainers: [{name: i, image: a}], containers: [{name: a, image: a, securityContext: {" + safe + "}}]", true, false},
		{"a privileged ephemeral container", "ephemeralContainers: [{name: e, image: a, securityContext: {privileged: true}}], containers: [{name: a, image: a, securityContext: {" + safe + "}}]", false, false},
		{"host network", "hostNetwork: true, containers: [{name: a, image: a, securityContext: {" + safe + "}}]", false, false},
		{"host path", "volumes: [{name: v, hostPath: {path: /}}], containers: [{name: a, image: a, securityContext: {" + safe + "}}]", false, false},
		{"a capability", "containers: [{name: a, image: a, securityContext: {capabilities: {add: [SYS_ADMIN]}}}]", false, false},
		{"no seccomp", "securityContext: {seccompProfile: {type: Unconfined}}, containers: [{name: a, image: a}]", false, false},
		{"privilege as a text", "containers: [{name: a, image: a, securityContext: {privileged: 'true'}}]", false, false},
	} {
		s := subject(t, "{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {jobTemplate: {spec: {template: {spec: {"+c.spec+"}}}}}}")
		for level, inside := range map[Level]bool{"privileged": true, "baseline": c.baseline, "restricted": c.restricted} {
			if got := fields(Envelope{{PodSecurity: level}}, s); (got == "") != inside {
				t.Errorf("%s, %s: outside %q", c.name, level, got)
			}
		}
	}
	// A Namespace of the release's own must not have the API server admit more.
	e := Envelope{{PodSecurity: "baseline", ClusterScoped: must(t, ParseClusterScoped, "Namespace/shop")}}
	for label, inside := range map[string]bool{"": true, "restricted": true, "baseline": true, "privileged": false, "Restricted": false, "none": false} {
		s := subject(t, fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: %q}}}", label))
		if got := fields(e, s); (got == "") != inside {
			t.Errorf("a Namespace that enforces %q: outside %q", label, got)
		}
	}
	for version, inside := range map[string]bool{"latest": true, "v1.0": false, "v1.36": false} {
		s := subject(t, fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted, pod-security.kubernetes.io/enforce-version: %s}}}", version))
		if got := fields(e, s); (got == "") != inside {
			t.Errorf("a Namespace that enforces version %s: outside %q", version, got)
		}
	}
}

func TestRules(t *testing.T) {
	conditions, errs := rules.Conditions([]string{`object.kind != "Service" || object.?spec.?type.orValue("ClusterIP") == "ClusterIP"`, `metadata.namespace == "shop"`, `object.spec.size < 3`, `object.kind`})
	for n, err := range errs {
		if (err == nil) != (n < 3) && n != 3 {
			t.Fatalf("%d: %v", n, err)
		}
	}
	with := func(n int) Envelope { return Envelope{{Rules: []Rule{{conditions[n], "do otherwise"}}}} }
	for _, c := range []struct {
		rule   int
		text   string
		inside bool
	}{
		{0, "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ClusterIP}}", true},
		{0, "{apiVersion: v1, kind: Service, metadata: {name: a}}", true},
		{0, "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: LoadBalancer}}", false},
		{0, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", true},
		{1, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", true}, // the subscription's, as it is going to be
		{2, "{apiVersion: example.com/v1, kind: W, metadata: {name: a}, spec: {size: 2}}", true},
		{2, "{apiVersion: example.com/v1, kind: W, metadata: {name: a}, spec: {size: 3}}", false},
		{2, "{apiVersion: example.com/v1, kind: W, metadata: {name: a}, spec: {}}", false}, // cannot be answered
		{2, "{apiVersion: example.com/v1, kind: W, metadata: {name: a}, spec: {size: big}}", false},
	} {
		got := with(c.rule).Check(subject(t, c.text))
		if (len(got) == 0) != c.inside {
			t.Errorf("rule %d on %s: %v", c.rule, c.text, got)
		}
		for _, v := range got {
			if !strings.HasPrefix(v.Text(), "do otherwise") || v.Detail == "" {
				t.Errorf("it does not say what to change: %+v", v)
			}
		}
	}
	if got := (Envelope{{Rules: []Rule{{rules.Condition{}, "never read"}}}}).Check(subject(t, "{apiVersion: v1, kind: Service, metadata: {name: a}}")); len(got) != 1 {
		t.Errorf("a rule that was never read lets pass: %v", got)
	}
}

// Each layer counts; one that says nothing about namespaces and objects without one leaves them to the first.
func TestLayers(t *testing.T) {
	above := Layer{Namespaces: must(t, ParseNamespace, "shop", "team-*"), ClusterScoped: must(t, ParseClusterScoped, "Namespace"), Registries: must(t, ParseRegistry, "registry.example.com")}
	below := Layer{Namespaces: must(t, ParseNamespace, "team-1", "kube-system"), ClusterScoped: []terms.Pattern{}, Registries: must(t, ParseRegistry, "registry.example.com/acme", "evil.org")}
	at := func(ns string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: %s}}", ns)
	}
	image := func(i string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: team-1}, spec: {containers: [{name: a, image: %s}]}}", i)
	}
	namespace := "{apiVersion: v1, kind: Namespace, metadata: {name: a}}"
	for _, c := range []struct {
		text                string
		alone, silent, both bool // inside of the first, with one that says nothing, with one that says more
	}{
		{at("shop"), true, true, false}, {at("team-1"), true, true, true}, {at("team-2"), true, true, false}, {at("kube-system"), false, false, false},
		{namespace, true, true, false},
		{image("registry.example.com/acme/a"), true, true, true}, {image("registry.example.com/other/a"), true, true, false}, {image("evil.org/a"), false, false, false},
	} {
		s := subject(t, c.text)
		for e, inside := range map[string]bool{"alone": c.alone, "silent": c.silent, "both": c.both} {
			of := map[string]Envelope{"alone": {above}, "silent": {above, {}}, "both": {above, below}}[e]
			if got := fields(of, s); (got == "") != inside {
				t.Errorf("%s: %s: outside %q", c.text, e, got)
			}
		}
	}
}

// What may be told to others has no value of the object and nothing that the provider allows.
func TestTold(t *testing.T) {
	e := Envelope{{Namespaces: must(t, ParseNamespace, "quiet-place"), Allow: must(t, ParseAllowed, "Quiet.example.com"), ClusterScoped: must(t, ParseClusterScoped, "Quieter.example.com"),
		Registries: must(t, ParseRegistry, "quiet.example.com"), Digests: true}}
	for _, text := range []string{"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: secret/value}]}}", "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: SECRET/value:!}]}}", "{apiVersion: v1, kind: Namespace, metadata: {name: a}}"} {
		found := e.Check(subject(t, text))
		if len(found) < 2 {
			t.Fatalf("%s: %v", text, found)
		}
		for _, v := range found {
			if low := strings.ToLower(v.Text()); strings.Contains(low, "quiet") || strings.Contains(low, "secret/") {
				t.Errorf("told to others: %s", v.Text())
			}
			if !strings.Contains(v.Text(), "overlay") && !strings.Contains(v.Text(), "want ") {
				t.Errorf("it does not say what to change: %s", v.Text())
			}
		}
		if !slices.ContainsFunc(found, func(v Violation) bool { return strings.Contains(strings.ToLower(v.Detail), "quiet") }) {
			t.Errorf("its provider is not told what is allowed: %+v", found)
		}
	}
}
