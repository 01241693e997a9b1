package main

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestImages: the same binaries give the same images, which run as nobody in particular and hold the
// binary, the certificate authorities and the plugins that it may run, nothing else.
func TestImages(t *testing.T) {
	bin, first, second := t.TempDir(), t.TempDir(), t.TempDir()
	plugins := []string{"canary", "conformance", "notify"}
	sources := map[string]string{"hub": "../../hub/cmd/hub", "spoke": "../../spoke/cmd/spoke"}
	for _, name := range plugins {
		sources["plugins/"+name] = "../../plugins/" + name
	}
	for name, source := range sources {
		c := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(bin, name), source)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	program := filepath.Join(t.TempDir(), "image")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var told []string
	for _, out := range []string{first, second} {
		text, err := exec.CommandContext(t.Context(), program, "-bin", bin, "-out", out, "-tag", "1.2.3").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		told = append(told, strings.ReplaceAll(string(text), out, "dist"))
	}
	if told[0] != told[1] {
		t.Errorf("two runs on the same binaries:\n%s\n%s", told[0], told[1])
	}
	for _, name := range []string{"hub", "spoke"} {
		one, two := read(t, filepath.Join(first, name+".tar")), read(t, filepath.Join(second, name+".tar"))
		if string(one) != string(two) {
			t.Errorf("%s.tar differs between two runs", name)
		}
		image, err := tarball.ImageFromPath(filepath.Join(first, name+".tar"), nil)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(told[0], "wheelwright/"+name+":1.2.3  "+digest.String()) {
			t.Errorf("%s has digest %s, and it was said:\n%s", name, digest, told[0])
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if c := config.Config; c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/" + name}) || config.OS != "linux" || !config.Created.IsZero() && config.Created.Unix() != 0 {
			t.Errorf("%s: %+v of %s at %v", name, c, config.OS, config.Created)
		}
		files := contents(t, image)
		want := []string{"drwxr-xr-x etc/", "drwxr-xr-x etc/ssl/", "drwxr-xr-x etc/ssl/certs/", "-rw-r--r-- etc/ssl/certs/ca-certificates.crt"}
		want = append(want, "drwxr-xr-x plugins/")
		for _, p := range map[string][]string{"hub": {"notify"}, "spoke": plugins}[name] {
			want = append(want, "-rwxr-xr-x plugins/"+p)
		}
		want = append(want, "-rwxr-xr-x "+name)
		slices.SortFunc(want, byPath)
		if !slices.Equal(files, want) {
			t.Errorf("%s holds %q", name, files)
		}
	}
	entries := string(read(t, filepath.Join(first, "plugins.yaml")))
	for _, p := range plugins {
		want := fmt.Sprintf("- name: %[1]s\n  path: /plugins/%[1]s\n  sha256: %x\n", p, sha256.Sum256(read(t, filepath.Join(bin, "plugins", p))))
		if !strings.Contains(entries, want) {
			t.Errorf("want\n%s\nin\n%s", want, entries)
		}
	}
	missing, err := exec.CommandContext(t.Context(), program, "-bin", t.TempDir(), "-out", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(missing), "make build") {
		t.Errorf("without binaries: %v, %s", err, missing)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// contents are the files of all layers; each must belong to root, who is nobody in there.
func contents(t *testing.T, image v1.Image) []string {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, layer := range layers {
		r, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for entries := tar.NewReader(r); ; {
			h, err := entries.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
				t.Errorf("%s: owner %d:%d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
			}
			files = append(files, h.FileInfo().Mode().String()+" "+h.Name)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(files, byPath)
	return files
}

func byPath(a, b string) int { return strings.Compare(a[11:], b[11:]) }
