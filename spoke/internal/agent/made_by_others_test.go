package agent_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// definition is a kind as small as it can be.
func definition(group, kind, plural string, versions ...string) string {
	text := fmt.Sprintf("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: %s.%s}\nspec:\n  group: %[2]s\n  scope: Namespaced\n  names: {kind: %s, plural: %[1]s, singular: %[4]s}\n  versions:\n",
		plural, group, kind, strings.ToLower(kind))
	for i, v := range versions {
		text += fmt.Sprintf("  - {name: %s, served: true, storage: %t, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}\n", v, i == 0)
	}
	return text + "---\n"
}

// Objects that bring Secrets are applied as they are, and a release is there once their controllers have made what they
// ask for. What they made is theirs: it is neither put back nor taken away. One that cannot be opened fails the
// release, by name and without what stands in it.
func TestSecretsThatOthersMake(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	if err := s.cluster.Apply(definition("bitnami.com", "SealedSecret", "sealedsecrets", "v1alpha1") + definition("external-secrets.io", "ExternalSecret", "externalsecrets", "v1", "v1beta1")); err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := s.cluster.Kubectl(append([]string{"-n", s.ns}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	sealed := func(name string) string {
		return "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: " + name + "}\nspec: {encryptedData: {password: AgBy8hCi}}\n"
	}
	release := func(version string, more ...string) {
		files := app(version, good)
		files["kustomization.yaml"] += "- more.yaml\n"
		files["more.yaml"] = strings.Join(append(more, configMap("last", version)), "---\n")
		s.vendor.release(t, version, files)
	}
	status := func(kind, name, status string) {
		t.Helper()
		must("patch", kind, name, "--subresource=status", "--type=merge", "-p", `{"status":`+status+`}`)
	}
	says := func(parts ...string) {
		t.Helper()
		s.cluster.Eventually(t, "what is waited for is said", func() error {
			i := s.now()
			for _, p := range parts {
				if !strings.Contains(i.Reason, p) {
					return fmt.Errorf("it is %s: %s; want %q", i.Phase, i.Reason, p)
				}
			}
			return nil
		})
	}
	s.sub.HealthTimeout = 30 * time.Second
	release("1.0.0", sealed("db"), "apiVersion: external-secrets.io/v1beta1\nkind: ExternalSecret\nmetadata: {name: api}\nspec: {refreshInterval: 1h, target: {name: api}}\n")
	stop := s.start(nil)
	defer func() { stop() }()
	s.offer()
	says("ExternalSecret "+s.ns+"/api", "it is not ready yet")
	status("externalsecret", "api", `{"conditions":[{"type":"Ready","status":"False","reason":"SecretSyncedError","message":"the store says hunter2"}]}`)
	says("ExternalSecret "+s.ns+"/api", "SecretSyncedError")
	if i := s.now(); strings.Contains(i.Reason, "hunter2") || i.Running != "" {
		t.Errorf("%q runs: %s", i.Running, i.Reason)
	}
	must("create", "secret", "generic", "api", "--from-literal=token=one")
	status("externalsecret", "api", `{"syncedResourceVersion":"1-x","conditions":[{"type":"Ready","status":"True","reason":"SecretSynced","message":""}]}`)
	says("SealedSecret " + s.ns + "/db")
	must("create", "secret", "generic", "db", "--from-literal=password=one")
	status("sealedsecret", "db", `{"observedGeneration":1,"conditions":[{"type":"Synced","status":"True"}]}`)
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")

	must("patch", "secret", "db", "--type=merge", "-p", `{"stringData":{"password":"two"}}`)
	release("1.1.0") // without either
	s.offer()
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	if got := must("get", "sealedsecrets,externalsecrets", "-o", "name"); strings.TrimSpace(got) != "" {
		t.Errorf("the release does not have them any more: %s", got)
	}
	if got := must("get", "secrets", "db", "api", "-o", `jsonpath={.items[*].data}`); !strings.Contains(got, "dHdv") || !strings.Contains(got, "b25l") {
		t.Errorf("what the controllers made is touched: %s", got)
	}
	if i := s.now(); i.DriftCorrected > 0 || i.Drifted > 0 {
		t.Errorf("drift: %+v", i)
	}

	release("1.2.0", sealed("stranger"))
	s.offer()
	s.cluster.Eventually(t, "the SealedSecret", func() error {
		_, err := s.cluster.Kubectl("-n", s.ns, "patch", "sealedsecret", "stranger", "--subresource=status", "--type=merge", "-p",
			`{"status":{"observedGeneration":1,"conditions":[{"type":"Synced","status":"False","message":"no key could decrypt secret (password)"}]}}`)
		return err
	})
	i := s.reaches(fleet.RolledBack, "1.2.0", "1.1.0")
	if !strings.Contains(i.Reason, "SealedSecret "+s.ns+"/stranger") || !strings.Contains(i.Reason, "no key could decrypt") {
		t.Errorf("it is said: %s", i.Reason)
	}
	s.mustBeWhole("1.1.0", "last")
}
