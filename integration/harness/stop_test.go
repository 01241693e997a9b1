package harness_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
)

// processesOf lists the command lines of the processes that run in dir.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range lines {
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
		if !strings.HasPrefix(cwd, dir) {
			continue
		}
		text, _ := os.ReadFile(path)
		found = append(found, string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
	}
	return found
}

func TestNothingRemainsAfterStop(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	h, err := harness.Start(t.Context(), harness.Options{Clusters: 2, Dir: dir, Controllers: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("FIGURE harness.start-2-clusters %.1f s", time.Since(begin).Seconds())
	if got := processesOf(t, dir); len(got) != 9 {
		t.Errorf("%d processes run in %s, want etcd and four for each cluster:\n%s", len(got), dir, strings.Join(got, "\n"))
	}
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	if left := processesOf(t, dir); len(left) != 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	assets := t.TempDir()
	// An API server that ends at once, with a reason.
	for name, text := range map[string]string{
		"etcd": "#!/bin/sh\necho 'no such option --unsafe-no-fsync' >&2\nexit 2\n", "kube-apiserver": "#!/bin/sh\n", "kubectl": "#!/bin/sh\n",
	} {
		if err := os.WriteFile(filepath.Join(assets, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	_, err := harness.Start(t.Context(), harness.Options{Clusters: 1, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "no such option --unsafe-no-fsync") {
		t.Errorf("got %v, want the end of etcd's log", err)
	}
	_, err = harness.Start(t.Context(), harness.Options{Clusters: 1, Dir: t.TempDir(), Controllers: true})
	if err == nil || !strings.Contains(err.Error(), "has no kube-controller-manager") {
		t.Errorf("got %v, want the missing binary's name", err)
	}

	t.Setenv("WHEELWRIGHT_KUBECONFIGS", "one:two")
	_, err = harness.Start(t.Context(), harness.Options{Clusters: 3})
	if err == nil || !strings.Contains(err.Error(), "names 2 clusters, 3 are needed") {
		t.Errorf("got %v, want the number of clusters", err)
	}
}
