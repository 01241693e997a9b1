package realnode

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// Variable asks for the tests that need a real node; empty, they are skipped. `make e2e` sets it. Who asks for every
// figure asks for them too.
const (
	Variable = "WHEELWRIGHT_E2E"
	figures  = "WHEELWRIGHT_FIGURES"
)

// packages are what Debian calls the programs that the node or its images need and that are not built here.
var packages = [...]struct{ program, name string }{
	{"containerd", "containerd"}, {"ctr", "containerd"}, {"runc", "runc"},
	{"iptables", "iptables"}, {"conntrack", "conntrack"}, {"ipset", "ipset"}, {"ip", "iproute2"},
	{"nsenter", "util-linux"}, {"mount", "mount"}, {"ldd", "libc-bin"},
	{"bash", "bash"}, {"curl", "curl"}, {"wget", "wget"}, {"grep", "grep"}, {"cat", "coreutils"},
}

// Need skips a test that a real node cannot be had for, and says why.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(Variable) == "" && os.Getenv(figures) == "" {
		t.Skipf("needs a real node: run `make e2e` as root on Linux (it sets %s=1)", Variable)
	}
	if missing := Missing(); missing != "" {
		t.Skip("needs a real node: " + missing)
	}
}

// Missing says what a real node lacks here and how to get it; empty where nothing.
func Missing() string {
	if runtime.GOOS != "linux" {
		return "pods are Linux processes, this is " + runtime.GOOS
	}
	if os.Geteuid() != 0 {
		return "only root can make namespaces, mounts and cgroups: run it as root"
	}
	var programs, names []string
	for _, p := range packages {
		if _, err := exec.LookPath(p.program); err != nil {
			programs, names = append(programs, p.program), append(names, p.name)
		}
	}
	if pluginFolder() == "" {
		programs, names = append(programs, "the CNI plugins"), append(names, "containernetworking-plugins")
	}
	if len(programs) == 0 {
		return ""
	}
	slices.Sort(names)
	return fmt.Sprintf("this machine has no %s: on Debian `apt-get install --no-install-recommends %s`",
		strings.Join(programs, ", "), strings.Join(slices.Compact(names), " "))
}

// pluginFolder is where the distribution keeps CNI's plugins; empty where it has none.
func pluginFolder() string {
	for _, folder := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"} {
		if _, err := os.Stat(folder + "/bridge"); err == nil {
			return folder
		}
	}
	return ""
}
