package config

import (
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
	text, err := os.ReadFile("../../../deploy/examples/hub.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n# plugins:\n")
	if !ok {
		t.Fatal("the example shows no plugins")
	}
	part, _, _ := strings.Cut(rest, "\n\n")
	file := filepath.Join(t.TempDir(), "hub.yaml")
	c, err := Parse(file, []byte("version: 1\nplugins:\n"+strings.ReplaceAll("\n"+part, "\n# ", "\n")))
	if err != nil {
		t.Fatal(err)
	}
	want := []pluginlist.Plugin{
		{
			Name: "commits", Path: "/plugins/notify", SHA256: "2c624232cc56c4a9f4d0eb1f3e4ca3d1dbd6b0b2a1fb9e6f4f2a3c0e3f0a7d11",
			Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_NOTIFIER}, Args: []string{"github", "--token-from", "TOKEN"}, Env: []string{"TOKEN=github_pat_1.10"},
		},
		{
			Name: "chat", Path: filepath.Join(filepath.Dir(file), "plugins/notify"), SHA256: "2c624232cc56c4a9f4d0eb1f3e4ca3d1dbd6b0b2a1fb9e6f4f2a3c0e3f0a7d11",
			Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_NOTIFIER}, Args: []string{"slack", "--url-from", "SLACK_URL"},
			Env: []string{"SLACK_URL=https://hooks.slack.com/services/T0/B0/secret"}, Timeout: 30 * time.Second,
		},
	}
	if !reflect.DeepEqual(c.Plugins, want) {
		t.Errorf("got  %+v\nwant %+v", c.Plugins, want)
	}
}

func TestAllProblemsOfPluginsAtOnce(t *testing.T) {
	_, err := Parse("hub.yaml", []byte(`version: 1
poll: soon
plugins:
- { name: chat, path: p, sha256: abc, kinds: [notifier, canary], permissions: { namespace: shop } }
- { path: p, kinds: [], timeout: 2h }
- text
- name: chat
  env: { KUBECONFIG: x, B: [z], LEVEL: 1.10 }
`))
	want := []string{
		"hub.yaml has 15 problems:",
		`poll: "soon": want a duration such as 30s or 5m`,
		"plugins[0].sha256: \"abc\": want the 64 hex digits that `sha256sum PATH` prints",
		`plugins[0].kinds[1]: "canary": want notifier, the only kind that the hub runs`,
		`plugins[0].permissions: unknown key; known here: args, env, kinds, name, path, sha256, timeout`,
		`plugins[1].kinds: is empty: want [notifier]`,
		`plugins[1].timeout: "2h": want 1s to 1h`,
		`plugins[1].name: missing`,
		"plugins[1].sha256: missing: what `sha256sum p` prints",
		`plugins[2]: want keys and values, found "text"`,
		`plugins[3].env.KUBECONFIG: is the hub's to set`,
		`plugins[3].env.B: want text, found a list`,
		`plugins[3].kinds: missing: want [notifier]`,
		`plugins[3].name: chat is the name of the plugin on line 4 already`,
	}
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
	for text, want := range map[string]string{"plugins: chat": "plugins: want a list", "plugins: {}": "plugins: want a list"} {
		if _, err := Parse("hub.yaml", []byte("version: 1\n"+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"", "plugins:\n", "plugins: []\n"} {
		if c, err := Parse("hub.yaml", []byte("version: 1\n"+text)); err != nil || c.Plugins != nil {
			t.Errorf("%q: %v %v", text, c.Plugins, err)
		}
	}
}
