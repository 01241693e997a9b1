package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

func TestMain(m *testing.M) {
	render.ChildMain()
	os.Exit(m.Run())
}

// run runs a command line as a shell would.
func run(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(args, &o, &e)
	return code, o.String(), e.String()
}

func TestWrongWordsSayWhatToType(t *testing.T) {
	t.Setenv(contextVariable, "")
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"frobnicate"}, []string{`"frobnicate"`, "hub --help"}},
		{[]string{"get", "sandwiches"}, []string{`"sandwiches"`, "hub get --help"}},
		{[]string{"status", "-o", "xml"}, []string{`"xml"`, "table, wide, json, yaml, name"}},
		{[]string{"status", "--nope"}, []string{"--nope", "hub status --help"}},
		{[]string{"status"}, []string{"--context", contextVariable, "hub serve"}},
		{[]string{"--context", "/does/not/exist", "status"}, []string{"/does/not/exist"}},
		{[]string{"serve"}, []string{"--data DIR"}},
		{[]string{"distribution", "add", "shop"}, []string{"--git URL"}},
		{[]string{"distribution", "add", "shop", "--git", "x", "--interval", "1ms"}, []string{"1ms", "1s"}},
		{[]string{"distribution", "add", "shop", "--git", "x", "--preflight", "25h"}, []string{"--preflight 25h", "24h"}},
		{[]string{"distribution", "add", "shop", "--git", "x", "--preflight", "-1s"}, []string{"--preflight -1s", "0s to 24h"}},
		{[]string{"cluster", "invite", "eu-1"}, []string{`"eu-1"`, "PROVIDER/NAME"}},
		{[]string{"cluster", "invite", "acme/eu-1", "--ttl", "-5s"}, []string{"--ttl -5s", "10m"}},
		{[]string{"cluster", "invite", "acme/eu-1", "--ttl", "300ms"}, []string{"--ttl 300ms", "1s"}},
		{[]string{"cluster", "remove", "acme/eu-1"}, []string{"--yes"}},
		{[]string{"cluster", "accept", "acme/eu-1", "--fingerprint", "SHA256:abc"}, []string{`"SHA256:abc"`, "spoke join"}},
		{[]string{"cluster", "accept"}, []string{"PROVIDER/NAME"}},
		{[]string{"cluster", "reject", "acme/eu-1"}, []string{"--reason"}},
		{[]string{"cluster", "reject", "acme/eu-1", "--reason", "x"}, []string{"--yes"}},
		{[]string{"release", "describe", "shop"}, []string{"DISTRIBUTION and VERSION"}},
		{[]string{"validate", "/does/not/exist"}, []string{"/does/not/exist", "URL@TAG"}},
	} {
		code, out, errOut := run(t, c.args...)
		if code != exitcode.Usage || out != "" {
			t.Errorf("hub %s: exit code %d, output %q; want %d and none", strings.Join(c.args, " "), code, out, exitcode.Usage)
		}
		for _, w := range c.want {
			if !strings.Contains(errOut, w) {
				t.Errorf("hub %s: the error does not mention %q: %s", strings.Join(c.args, " "), w, errOut)
			}
		}
	}
}

func TestValidateSaysWhatPublicationWould(t *testing.T) {
	code, out, errOut := run(t, "validate", filepath.Join("..", "..", "..", "deploy", "examples", "shop"))
	if code != exitcode.OK || strings.Count(out, "builds, 15 objects") != 3 {
		t.Errorf("the sample distribution: exit code %d\n%s%s", code, out, errOut)
	}
	broken := t.TempDir()
	if err := os.CopyFS(broken, os.DirFS(filepath.Join("..", "..", "..", "deploy", "examples", "shop"))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(broken, "dist", "base", "cache", "deployment.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte("cache:1.1.0"), []byte("cache:latest"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, _ = run(t, "validate", broken)
	if code != exitcode.Failed || !strings.Contains(out, "cache:latest") || !strings.Contains(out, "would be Rejected") {
		t.Errorf("an image tagged latest: exit code %d\n%s", code, out)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(broken, "dist", "link")); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut = run(t, "validate", broken); code != exitcode.Usage || !strings.Contains(errOut, "link") {
		t.Errorf("a symbolic link: exit code %d: %s", code, errOut)
	}
}

func TestCompletionForEveryShell(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, out, errOut := run(t, "completion", shell); code != exitcode.OK || out == "" {
			t.Errorf("%s: exit code %d: %s", shell, code, errOut)
		}
	}
}
