package cli

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// released makes a vendor's repository with one release and returns its URL and the release's bundle.
func released(t *testing.T, version string) (url string, tar []byte) {
	t.Helper()
	repo := t.TempDir()
	put(t, filepath.Join(repo, "dist/app/kustomization.yaml"), "resources: [settings.yaml]\n")
	put(t, filepath.Join(repo, "dist/app/settings.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: red, release: "+version+"}\n")
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"commit", "-q", "-m", "x"}, {"tag", "-a", "-m", version, version}} {
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=v", "-c", "user.email=v@example.com"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %s", args, out)
		}
	}
	r, err := gitrepo.Open(t.Context(), gitrepo.Config{URL: repo, Dir: filepath.Join(t.TempDir(), "bare"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Fetch(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	s, err := r.Snapshot(version, "dist")
	if err != nil {
		t.Fatal(err)
	}
	if tar, err = bundle.Pack(s.Files, s.Proof); err != nil {
		t.Fatal(err)
	}
	return repo, tar
}

// With no spoke running and no hub at all, the data folder is enough.
func TestRenderOfASpokeThatDoesNotRun(t *testing.T) {
	url, tar := released(t, "1.0.0")
	digest := bundle.DigestOf(tar)
	dir := t.TempDir()
	j, err := journal.Open(filepath.Join(dir, journal.File), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = j.PutDesired(&syncv1.DesiredState{Revision: 1, Distributions: []*syncv1.DistributionOffers{{Distribution: "shop", Url: url, Path: "dist",
		Offers: []*syncv1.Offer{
			{Version: "1.0.0", Digest: string(digest), Size: uint64(len(tar)), Variants: []string{"app"}},
			{Version: "1.1.0", Digest: "sha256:" + strings.Repeat("0", 64), Size: 1, Variants: []string{"app"}},
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.PutRecord(journal.Record{Distribution: "shop", Installation: fleet.Installation{Distribution: "shop", Running: "1.0.0"}}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "bundles", digest.Hex()+".tar"), string(tar))
	put(t, filepath.Join(dir, configName), "version: 1\nsubscriptions:\n- {distribution: shop, namespace: shop, overlay: {path: mine}, source: [\"https://git.example.com/vendor/shop\"]}\n")
	put(t, filepath.Join(dir, "mine/kustomization.yaml"), "namespace: shop\nresources: [\"https://git.example.com/vendor/shop//dist/app\"]\npatches: [{path: colour.yaml}]\n")
	put(t, filepath.Join(dir, "mine/colour.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}\n")

	code, out, text := invoke(t, "render", "shop", "--data", dir)
	if code != 0 || text != "" || !strings.Contains(out, "colour: blue") || !strings.Contains(out, "release: 1.0.0") || !strings.Contains(out, "namespace: shop") {
		t.Errorf("%d\n%s%s", code, out, text)
	}
	if again, same, _ := invoke(t, "render", "shop", "1.0.0", "--data", dir); again != 0 || same != out {
		t.Errorf("the same version by name differs: %s", same)
	}
	if code, out, text := invoke(t, "render", "shop", "9.9.9", "--data", dir); code != 1 || out != "" || !strings.Contains(text, "not on offer") {
		t.Errorf("%d %s%s", code, out, text)
	}
	if code, _, text := invoke(t, "render", "shop", "1.1.0", "--data", dir); code != 1 || !strings.Contains(text, "spoke join") {
		t.Errorf("a bundle that is not there, and no hub to ask: %d %s", code, text)
	}
	put(t, filepath.Join(dir, "bounded.yaml"), "version: 1\nenvelope: {kinds: {allow: [Secret]}}\nsubscriptions:\n- {distribution: shop, namespace: shop, overlay: {path: mine}, source: [\"https://git.example.com/vendor/shop\"]}\n")
	if code, same, text := invoke(t, "render", "shop", "--data", dir, "--config", filepath.Join(dir, "bounded.yaml")); code != 1 || same != out ||
		!strings.HasPrefix(text, "spoke: outside of the envelope: v1 ConfigMap shop/settings: kind: ConfigMap.core is not among the kinds that are allowed") || !strings.Contains(text, "allowed are Secret.core") {
		t.Errorf("outside of the envelope: %d %s%s", code, same, text)
	}
	if code, _, text := invoke(t, "render", "mail", "--data", dir); code != 1 || !strings.Contains(text, "not in spoke.yaml") {
		t.Errorf("%d %s", code, text)
	}
}
