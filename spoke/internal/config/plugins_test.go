package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginlist"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// The part of the example that is commented out loads too.
func TestTheExamplesPluginsLoad(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/examples/spoke.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n# plugins:\n")
	part, _, ended := strings.Cut(rest, "\n\n")
	if !ok || !ended {
		t.Fatal("the example shows no plugins")
	}
	var b strings.Builder
	b.WriteString("version: 1\nplugins:\n")
	for line := range strings.Lines(part + "\n") {
		b.WriteString(strings.TrimPrefix(line, "# "))
	}
	path := write(t, b.String())
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := []Plugin{
		{
			Plugin: pluginlist.Plugin{
				Name: "conformance", Path: "/plugins/conformance", SHA256: "4e388ab32b10dc8dbc7e28144f552830adc74787c1e2c0824032078a79f227fb",
				Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CONFORMANCE},
			},
			Permissions: &Permissions{Namespace: "shop", Rules: []PermissionRule{
				{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"get"}},
				{APIGroups: []string{"batch"}, Resources: []string{"jobs"}, Verbs: []string{"create", "get", "list", "watch", "delete"}},
				{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "get", "list", "watch", "delete"}},
				{APIGroups: []string{""}, Resources: []string{"pods/log"}, Verbs: []string{"get"}},
			}},
		},
		{
			Plugin: pluginlist.Plugin{
				Name: "phone", Path: "/plugins/notify", SHA256: "2c624232cc56c4a9f4d0eb1f3e4ca3d1dbd6b0b2a1fb9e6f4f2a3c0e3f0a7d11",
				Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_NOTIFIER}, Args: []string{"slack", "--url-from", "SLACK_URL"},
				Env: []string{"SLACK_URL=https://hooks.slack.com/services/T0/B0/secret"},
			},
		},
		{
			Plugin: pluginlist.Plugin{
				Name: "smoke", Path: filepath.Join(dir, "plugins/smoke"), SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
				Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CONFORMANCE}, Args: []string{"--url", "http://backend.shop"},
				Env: []string{"PATH=/usr/bin:/bin", "SMOKE_LEVEL=2"}, Timeout: 2 * time.Minute,
			},
			Permissions: &Permissions{Namespace: "shop", Rules: []PermissionRule{{APIGroups: []string{""}, Resources: []string{"pods", "pods/log"}, Verbs: []string{"get", "list", "watch"}}}},
		},
		{
			Plugin: pluginlist.Plugin{
				Name: "chat", Path: filepath.Join(dir, "plugins/chat"), SHA256: "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
				Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_NOTIFIER},
			},
			Permissions: &Permissions{Namespace: "shop", ServiceAccount: "chat"},
		},
		{
			Plugin: pluginlist.Plugin{
				Name: "canary", Path: filepath.Join(dir, "plugins/canary"), SHA256: "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865",
				Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CANARY}, Args: []string{"--router", "istio", "--prometheus", "http://prometheus.monitoring:9090", "--generate-load", "2"},
			},
			Permissions: &Permissions{Namespace: "shop", ServiceAccount: "canary"},
		},
	}
	if !reflect.DeepEqual(c.Plugins, want) {
		t.Errorf("got  %+v\nwant %+v", c.Plugins, want)
	}
}

func TestHowReleasesAreProven(t *testing.T) {
	const plugins = `version: 1
plugins:
- { name: smoke, path: p, sha256: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752, kinds: [conformance] }
- { name: chat, path: p, sha256: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752, kinds: [notifier] }
`
	c, err := Load(write(t, plugins+`tests: { timeout: 5m }
subscriptions:
- { distribution: shop, variant: app, namespace: shop, tests: { plugins: [smoke], onInconclusive: retry } }
- { distribution: news, variant: app, namespace: news, tests: { plugins: [] } }
- { distribution: mail, variant: app, namespace: mail }
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []Tests
	for _, s := range c.Subscriptions {
		got = append(got, s.Tests)
	}
	want := []Tests{{Plugins: []string{"smoke"}, Timeout: 5 * time.Minute, Retry: true}, {Plugins: []string{}, Timeout: 5 * time.Minute}, {Timeout: 5 * time.Minute}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if c, err = Load(write(t, "version: 1\n")); err != nil || c.Tests.Timeout != 15*time.Minute || c.Tests.Retry || c.Tests.Plugins != nil {
		t.Errorf("where the file says nothing: %+v %v", c.Tests, err)
	}
	_, err = Load(write(t, plugins+"tests: { plugins: [chat, smok], timeout: 25h, onInconclusive: accept }\n"))
	for _, want := range []string{"\"chat\": the plugin is not of the kind conformance", "\"smok\": no plugin under `plugins` has this name", `"25h": want 1s to 24h`,
		"\"accept\": want ask or retry; a release that no test proved is not taken by itself"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said: %v", want, err)
		}
	}
}

func TestAllProblemsOfPluginsAtOnce(t *testing.T) {
	path := write(t, `version: 1
plugins:
- { name: Smoke, path: p, sha256: abc, kinds: [tests, canary, canary] }
- { path: p, kinds: [], timeout: 2h, environment: {} }
- text
- name: a
  env: { KUBECONFIG: x, 1A: y, B: [z], B: w, PLUGIN_X: v }
  permissions: { serviceAccount: x, rules: [{ verbs: [get] }] }
- { name: a, path: p, sha256: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752, kinds: [canary], args: x, permissions: { namespace: n } }
`)
	_, err := Load(path)
	var all *Error
	if !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range all.Problems {
		got = append(got, strings.ReplaceAll(p.String(), filepath.Dir(path)+"/", ""))
	}
	want := []string{
		`line 3: plugins[0].name: "Smoke": want lower-case letters, digits and dashes, at most 40`,
		"line 3: plugins[0].sha256: \"abc\": want the 64 hex digits that `sha256sum PATH` prints",
		`line 3: plugins[0].kinds[0]: "tests": want one of conformance, canary, notifier`,
		`line 3: plugins[0].kinds[2]: canary is there twice`,
		`line 4: plugins[1].kinds: is empty: want some of conformance, canary, notifier`,
		`line 4: plugins[1].timeout: "2h": want 1s to 1h`,
		`line 4: plugins[1].environment: unknown key; known here: args, env, kinds, name, path, permissions, sha256, timeout`,
		`line 4: plugins[1].name: missing: what the plugin is called in logs and reports`,
		"line 4: plugins[1].sha256: missing: what `sha256sum p` prints; nothing else is run",
		`line 5: plugins[2]: want keys and values, found "text"`,
		`line 6: plugins[3].path: missing: the program's file`,
		"line 6: plugins[3].sha256: missing: what `sha256sum PATH` prints; nothing else is run",
		`line 6: plugins[3].kinds: missing: want some of conformance, canary, notifier`,
		`line 7: plugins[3].env.KUBECONFIG: is the spoke's to set`,
		`line 7: plugins[3].env.1A: want letters, digits and underscores`,
		`line 7: plugins[3].env.B: want text, found a list`,
		`line 7: plugins[3].env.B: is there twice: first on line 7`,
		`line 7: plugins[3].env.PLUGIN_X: is the spoke's to set`,
		`line 8: plugins[3].permissions.rules[0].apiGroups: missing: want a list, such as [apps], or [""] for the core`,
		`line 8: plugins[3].permissions.rules[0].resources: missing: want a list, such as [deployments]`,
		`line 8: plugins[3].permissions.namespace: missing: where the service account is`,
		"line 8: plugins[3].permissions: has `serviceAccount` and `rules`: want one of the two",
		`line 9: plugins[4].args: want a list, found "x"`,
		"line 9: plugins[4].permissions: names neither `serviceAccount: NAME` nor `rules: […]`",
		`line 9: plugins[4].name: a is the name of the plugin on line 6 already`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
