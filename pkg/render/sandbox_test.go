package render_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

// TestSandboxRefuses: nothing that a kustomization names is fetched, run, or read from this machine.
func TestSandboxRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connections atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			c.Close()
		}
	}()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a=b"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	exe := "apiVersion: someteam.example.com/v1\nkind: Sed\nmetadata:\n  name: x\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {path: /bin/true}\n"
	tests := []struct {
		name, kustomization string
		more                map[string]string
		want                string
	}{
		{"URL", "resources: [http://" + at + "/x.yaml]", nil, "is remote"},
		{"URL in capitals", "RESOURCES: ['HTTP://" + at + "/x.yaml']", nil, "is remote"},
		{"URL through an anchor", "namePrefix: &u http://" + at + "/x.yaml\nresources: [*u]", nil, "is remote"},
		{"git over https", "resources: ['https://" + at + "/org/repo?ref=main']", nil, "is remote"},
		{"git over ssh", "resources: ['git@127.0.0.1:org/repo?ref=main']", nil, "is remote"},
		{"git from a file", "resources: ['file://" + filepath.Dir(secret) + "']", nil, "is remote"},
		{"git prefix", "resources: ['git::http://" + at + "/org/repo']", nil, "is remote"},
		{"GitHub shorthand", "components: [github.com/org/repo//x]", nil, "is remote"},
		{"URL in a nested base", "resources: [inner]", map[string]string{"v/inner/kustomization.yaml": "bases: ['http://" + at + "/b']"}, "v/inner/kustomization.yaml: resources names"},
		{"patch URL", "resources: [../base]\npatches: [{path: 'http://" + at + "/p.yaml'}]", nil, "is remote"},
		{"generator URL", "configMapGenerator: [{name: x, files: ['k=http://" + at + "/f']}]", nil, "is remote"},
		{"schema URL", "resources: [../base]\nopenapi: {path: 'http://" + at + "/f'}", nil, "is remote"},
		{"transformer with URL", "resources: [../base]\ntransformers: [t.yaml]", map[string]string{"v/t.yaml": "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: x}\npath: http://" + at + "/p\n"}, "is remote"},
		{"absolute file", "configMapGenerator: [{name: x, files: [/etc/passwd]}]", nil, "outside the release"},
		{"file above", "secretGenerator: [{name: x, envs: [../.." + secret + "]}]", nil, "outside the release"},
		{"file above the kustomization", "configMapGenerator: [{name: x, files: [../base/web.yaml]}]", nil, "is not in or below"},
		{"absolute resource", "resources: [/etc]", nil, "outside the release"},
		{"exec function", "resources: [../base]\ntransformers: [t.yaml]", map[string]string{"v/t.yaml": exe}, "would run a program"},
		{"exec function in place", "resources: [../base]\ngenerators:\n- |\n  " + strings.ReplaceAll(exe, "\n", "\n  "), nil, "would run a program"},
		{"exec function in a folder", "resources: [../base]\ngenerators: [g]", map[string]string{"v/g/kustomization.yaml": "resources: [t.yaml]", "v/g/t.yaml": exe}, "would run a program"},
		{"container function", "resources: [../base]\nvalidators: [t.yaml]", map[string]string{"v/t.yaml": strings.Replace(exe, "exec: {path: /bin/true}", "container: {image: x}", 1)}, "would run a program"},
		{"Helm chart", "helmCharts: [{name: x, repo: 'http://" + at + "'}]", nil, "charts are not inflated"},
		{"Helm generator", "resources: [../base]\ngenerators: [g.yaml]", map[string]string{"v/g.yaml": "apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: x}\n"}, "no Helm"},
	}
	r := newRenderer(t, render.Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := shopSource("v")
			src.Bundle = files(with(with(shop, tt.more), map[string]string{"v/kustomization.yaml": tt.kustomization}))
			_, err := r.Render(t.Context(), src)
			var be *render.BuildError
			if !errors.As(err, &be) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a BuildError with %q", err, tt.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "v") {
				t.Errorf("%v: does not begin with the file", err)
			}
		})
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// TestSandboxConfines runs what a subverted kustomize would, inside the real sandbox.
func TestSandboxConfines(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the sandbox is Linux's")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=TestInsideSandbox", "-test.v")
	cmd.Env = append(os.Environ(), "WHEELWRIGHT_TEST_INSIDE="+l.Addr().String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Millisecond))
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("a connection was made")
	}
}

// TestSandboxCalls makes, inside the real sandbox, the system calls that a subverted kustomize would go on with.
func TestSandboxCalls(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the sandbox is Linux's")
	}
	inherited, writing, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	defer writing.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestCallsInsideSandbox$", "-test.v")
	cmd.Env = append(os.Environ(), "WHEELWRIGHT_TEST_PARENT="+strconv.Itoa(os.Getpid()))
	cmd.ExtraFiles = []*os.File{inherited}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "calls refused") && !strings.Contains(string(out), "SKIP") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
