package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

// What README.md asks a provider to permit is what it takes, from the first step to the end.
func TestPermissions(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	limited := scoped(t, s, harness.Shared(t, 1)[0])
	st := tell(s, "1.1.0", "1.2.0", shop(t, "1.1.0", "istio", s.namespace), shop(t, "1.2.0", "istio", s.namespace))
	s.wire.real = limited
	st.step(0, 0)
	st.abort(0)
	st.asBefore("abort")
	st.step(1, 0)
	s.apply(st.next)
	st.promote(0)
	st.nothingLeft("promotion")
}

// scoped is a client of a service account that may do what README.md says.
func scoped(t *testing.T, s *stage, c *harness.Cluster) *kube.Client {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(readme)
	if block == nil {
		t.Fatal("README.md has no example")
	}
	var example struct {
		Plugins []struct {
			Args        []string
			Permissions struct{ Rules []any }
		}
	}
	if err := yaml.UnmarshalStrict(block[1], &example); err != nil && !strings.Contains(err.Error(), "unknown field") {
		t.Fatal(err)
	}
	if _, err := parse(example.Plugins[0].Args, os.Getenv, os.ReadFile, os.Stderr); err != nil {
		t.Error(err)
	}
	rules, err := json.Marshal(example.Plugins[0].Permissions.Rules)
	if err != nil || len(rules) < 100 {
		t.Fatalf("%s, %v", rules, err)
	}
	const name = "canary-plugin"
	err = c.Apply(strings.NewReplacer("NAME", name, "NS", s.namespace, "RULES", string(rules)).Replace(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: NAME, namespace: NS}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: NAME, namespace: NS}
rules: RULES
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: NAME, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: NAME}
subjects: [{kind: ServiceAccount, name: NAME, namespace: NS}]
`))
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.Kubectl("-n", s.namespace, "create", "token", name)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	admin, err := os.ReadFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(admin, &config); err != nil {
		t.Fatal(err)
	}
	config["users"].([]any)[0].(map[string]any)["user"] = map[string]any{"token": strings.TrimSpace(token)}
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kube.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
