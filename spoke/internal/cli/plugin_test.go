package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
)

func TestPluginCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "example")
	build := exec.Command("go", "build", "-o", path, "../../../pkg/plugintest/testdata/plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"good", []string{path, "--", "good"}, exitcode.OK, []string{"ok      starts and shakes hands (", ", 0 not ok, "}},
		{"bad", []string{path, "--timeout", "2s", "--", "stateful"}, exitcode.Failed, []string{"not ok  conformance: the same answers", "asked twice"}},
		{"not there", []string{path + "-none"}, exitcode.Usage, []string{"no such file"}},
		{"not executable", []string{"plugin_test.go"}, exitcode.Usage, []string{"chmod +x plugin_test.go"}},
		{"no path", nil, exitcode.Usage, []string{"want the path of one program"}},
		{"two paths", []string{path, path}, exitcode.Usage, []string{"want the path of one program"}},
		{"environment", []string{path, "--env", "x"}, exitcode.Usage, []string{"want NAME=VALUE"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := Main(append([]string{"plugin", "check"}, tt.args...), &out, &errs)
			for _, want := range tt.want {
				if code != tt.code || !strings.Contains(out.String()+errs.String(), want) {
					t.Errorf("got %d, want %d and %q:\n%s%s", code, tt.code, want, &out, &errs)
				}
			}
		})
	}
}
