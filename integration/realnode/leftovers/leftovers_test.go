// Package leftovers_test is apart from package realnode's other tests because it needs the machine without a node.
package leftovers_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/realnode"
)

// traces are what a node left on this machine: links, mounts, routes, iptables rules, cgroups, processes, folders.
func traces(t *testing.T, temporary string) (found []string) {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if strings.HasPrefix(i.Name, "ww") || strings.HasPrefix(i.Name, "cni") || strings.HasPrefix(i.Name, "veth") {
			found = append(found, "link "+i.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, temporary) || strings.Contains(line, "wheelwright-node") {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	for _, command := range [][]string{{"ip", "route"}, {"iptables-save"}} {
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", command, err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "198.18.24") || strings.Contains(line, "10.244.0") || strings.Contains(line, "10.100.0") {
				found = append(found, command[0]+" "+strings.TrimSpace(line))
			}
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/wheelwright-node", "/sys/fs/cgroup/*/wheelwright-node", temporary + "/wheelwright-node-*", "/run/wheelwright-node.dir", "/run/wheelwright-node.hidden"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	return append(found, processes(t, temporary)...)
}

// processes are those whose command line names the folder.
func processes(t *testing.T, folder string) (found []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		text, _ := os.ReadFile(path)
		if bytes.Contains(text, []byte(folder)) && filepath.Base(filepath.Dir(path)) != fmt.Sprint(os.Getpid()) {
			found = append(found, "process "+filepath.Base(filepath.Dir(path))+" "+string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// settings are the kernel's that a kubelet likes to change.
func settings(t *testing.T) string {
	t.Helper()
	var all []string
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward", "kernel/keys/root_maxkeys"} {
		text, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, name+"="+strings.TrimSpace(string(text)))
	}
	return strings.Join(all, " ")
}

// fixed are the folders that have to be there for containerd and kubelet, and went if they had not been there.
func fixed() (there []string) {
	for _, folder := range []string{"/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers"} {
		if _, err := os.Stat(folder); err == nil {
			there = append(there, folder)
		}
	}
	return there
}

// withPod starts a node and a pod on it.
func withPod(ctx context.Context) (*realnode.Node, error) {
	node, err := realnode.Start(ctx, realnode.Options{Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	if _, err = node.Cluster.Kubectl("create", "serviceaccount", "default"); err != nil && !strings.Contains(err.Error(), "already exists") {
		return node, err
	}
	if _, err = node.Cluster.Kubectl("run", "web", "--image="+realnode.PodinfoImage("6.9.2")); err != nil {
		return node, err
	}
	_, err = node.Cluster.Kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/web")
	return node, err
}

const holding = "the node is up"

// TestHold is not a test of its own: TestNothingRemains starts it in another process, and kills that.
func TestHold(t *testing.T) {
	if os.Getenv("WHEELWRIGHT_HOLD") == "" {
		t.Skip("only for TestNothingRemains")
	}
	if _, err := withPod(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Println(holding)
	select {}
}

// A node that is stopped leaves nothing; one whose process is killed leaves no process, link or mount, and what it
// leaves is gone after the next.
func TestNothingRemains(t *testing.T) {
	realnode.Need(t)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	kernel, folders := settings(t), fixed()
	if before := traces(t, temporary); len(before) > 0 {
		t.Skipf("this machine has something like a node already:\n%s", strings.Join(before, "\n"))
	}

	cmd := exec.Command(os.Args[0], "-test.run=^TestHold$", "-test.v")
	cmd.Env = append(os.Environ(), "WHEELWRIGHT_HOLD=1")
	var out output
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !out.contains(holding) {
		select {
		case err := <-ended:
			t.Fatalf("the process that was to hold a node ended: %v\n%s", err, out.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
	if running := processes(t, temporary); len(running) < 8 {
		t.Errorf("with a node only these run:\n%s", strings.Join(running, "\n"))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	var left []string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left = traces(t, temporary)
		left = slices.DeleteFunc(left, func(s string) bool { return strings.HasPrefix(s, "/") }) // folders and cgroups: the next run's
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if len(left) > 0 {
		t.Errorf("left of a killed run:\n%s", strings.Join(left, "\n"))
	}

	begin := time.Now()
	node, err := withPod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("FIGURE e2e.node-ready %.1f s from nothing to a node with a ready pod, binaries cached", time.Since(begin).Seconds())
	begin = time.Now()
	if err := node.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("FIGURE e2e.node-stop %.1f s", time.Since(begin).Seconds())
	left = slices.DeleteFunc(traces(t, temporary), func(s string) bool { return logsOnly(s) })
	if len(left) > 0 {
		t.Errorf("left of a stopped node:\n%s", strings.Join(left, "\n"))
	}
	if now := settings(t); now != kernel {
		t.Errorf("the kernel's settings are %s, they were %s", now, kernel)
	}
	if now := fixed(); !slices.Equal(now, folders) {
		t.Errorf("of the fixed folders there are %v, there were %v", now, folders)
	}
}

// logsOnly tells whether a killed run's folder has nothing but what a person may want to read.
func logsOnly(folder string) bool {
	entries, err := os.ReadDir(folder)
	return err == nil && !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "state" || e.Name() == "images" || e.Name() == "cni" })
}
