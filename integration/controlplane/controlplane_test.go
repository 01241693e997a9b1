package controlplane

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPinnedVersions(t *testing.T) {
	for _, p := range pins() {
		if version, err := pinnedVersion(p.folder, p.module); err != nil || !strings.HasPrefix(version, "v") {
			t.Errorf("%s: %q, %v", p.folder, version, err)
		}
	}
	_, err := pinnedVersion("etcd", "example.org/absent")
	if err == nil || !strings.Contains(err.Error(), "etcd/go.mod does not require it") {
		t.Errorf("a module that is not there: %v", err)
	}
}

// The Flagger CRDs stand for everything that is made into the cache: they cost a small download, not
// a build.
func TestFlaggerCRDIsTakenOnce(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("WHEELWRIGHT_CACHE", cache)
	first, err := FlaggerCRD(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(first, cache) {
		t.Errorf("%s is not in %s", first, cache)
	}
	data, err := os.ReadFile(first)
	if err != nil || !strings.Contains(string(data), "name: canaries.flagger.app") {
		t.Errorf("%.60q, %v", data, err)
	}
	t.Setenv("PATH", "") // no go command: the second time nothing runs
	if second, err := FlaggerCRD(t.Context()); err != nil || second != first {
		t.Errorf("the second time: %s, %v", second, err)
	}
	entries, err := filepath.Glob(filepath.Join(cache, "controlplane", "*", "*"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the cache: %v, %v", entries, err)
	}
}

func TestGivenAssetsAreUsed(t *testing.T) {
	given := t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		if err := os.WriteFile(filepath.Join(given, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBEBUILDER_ASSETS", given)
	d, err := Binaries(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Path("etcd"); got != filepath.Join(given, "etcd") {
		t.Errorf("etcd is %s", got)
	}
	if got := Built("etcd"); got != d.Path("etcd") {
		t.Errorf("etcd is there as %s", got)
	}
	if got := Built("prometheus"); got != "" {
		t.Errorf("prometheus is there as %s, want none: the folder has none", got)
	}
	if got := d.Path("kwok"); got != "" {
		t.Errorf("kwok is %s, want none: the folder has none", got)
	}
}

// What only a real node needs is built when it is asked for by name, and not by those who want all the rest.
func TestOnDemand(t *testing.T) {
	all := map[string]bool{}
	for _, p := range pins() {
		for name, path := range p.onDemand {
			if p.packages[name] != "" {
				t.Errorf("%s is built on demand, and always", name)
			}
			if p.binaries()[name] != path {
				t.Errorf("%s cannot be built", name)
			}
			all[name] = true
		}
	}
	for _, name := range []string{"kubelet", "kube-proxy", "coredns", "podinfo", "podcli", "loadtester", "hey", "flagger"} {
		if !all[name] {
			t.Errorf("%s is not built on demand", name)
		}
	}
	given := t.TempDir()
	if err := os.WriteFile(filepath.Join(given, "kubelet"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBEBUILDER_ASSETS", given)
	d, err := Binaries(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Path("kubelet"); got != "" {
		t.Errorf("kubelet is %s, and nobody asked for it", got)
	}
	if d, err = Binaries(t.Context(), io.Discard, "kubelet"); err != nil || d.Path("kubelet") != filepath.Join(given, "kubelet") {
		t.Errorf("asked for by name, kubelet is %q, %v", d.Path("kubelet"), err)
	}
}

func TestBuiltMakesNothing(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("WHEELWRIGHT_CACHE", cache)
	t.Setenv("KUBEBUILDER_ASSETS", "")
	t.Setenv("PATH", "") // no go command
	if got := Built("prometheus"); got != "" {
		t.Errorf("%s in an empty cache", got)
	}
	version, err := pinnedVersion("prometheus", "github.com/prometheus/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "controlplane", "prometheus-"+version, "prometheus")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := Built("prometheus"); got != path {
		t.Errorf("%q, want %s", got, path)
	}
}

func TestOneBuilderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var said strings.Builder
	if _, err := lockFile(ctx, path, &said); err == nil || !strings.Contains(said.String(), "another process is building") {
		t.Errorf("a second holder: %v, said %q", err, said.String())
	}
	unlock()
	again, err := lockFile(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestAlternatives(t *testing.T) {
	if got := alternatives("a/{b,c}/*.yaml"); !slices.Equal(got, []string{"a/b/*.yaml", "a/c/*.yaml"}) {
		t.Error(got)
	}
}
