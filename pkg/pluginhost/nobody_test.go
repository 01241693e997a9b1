//go:build linux

package pluginhost

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const nobodyVariable = "WHEELWRIGHT_TEST_NOBODY"

// TestAsNobody runs the bad plugins once more, without root's powers: with a user namespace where the
// machine has them.
func TestAsNobody(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("needs root, to give it up")
	}
	if testing.Short() {
		t.Skip("long")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "nobody-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	path := dir + "/example"
	copyFile(t, built.path, path)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^(TestBadPlugins|TestCalls|TestCredentials)$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir, "HOME=" + dir, "PATH=/usr/bin:/bin", nobodyVariable + "=" + path + "|" + built.sum}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "FIGURE") {
			line = strings.ReplaceAll(line, "FIGURE", "as nobody:") // root's is the figure
		}
		t.Log(strings.TrimRight(line, "\n"))
	}
	if err != nil {
		t.Error(err)
	}
}
