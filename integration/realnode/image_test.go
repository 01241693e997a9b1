package realnode

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestImageArchive(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("text"), 0o755); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "image.tar")
	image := Image{Names: []string{"acme/app:1", "acme/app:2"}, Files: map[string]string{"/usr/local/bin/app": program, "home/.app/app": program},
		Links: map[string]string{"bin/sh": "bash"}, Command: []string{"app"}, Folder: "home/.app"}
	if err := image.write(archive); err != nil {
		t.Fatal(err)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(archive) })
	if err != nil || len(manifest) != 1 || len(manifest[0].RepoTags) != 2 {
		t.Fatalf("%+v, %v: want one image with two names", manifest, err)
	}
	read, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := read.ConfigFile()
	if err != nil || config.Config.WorkingDir != "/home/.app" || config.Config.Cmd[0] != "app" {
		t.Errorf("%+v, %v", config, err)
	}
	layers, err := read.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var names []string
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		if strings.HasSuffix(header.Name, "app") && header.Typeflag == tar.TypeReg && header.Mode != 0o755 {
			t.Errorf("%s has mode %o", header.Name, header.Mode)
		}
	}
	const want = "tmp/ home/ home/.app/ usr/ usr/local/ usr/local/bin/ usr/local/bin/app home/.app/app bin/ bin/sh"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the layer has\n%s, want\n%s", got, want)
	}
}

func TestMissingNamesThePackages(t *testing.T) {
	if os.Geteuid() != 0 {
		if got := Missing(); got == "" {
			t.Error("nothing is missing for who is not root")
		}
		return
	}
	t.Setenv("PATH", t.TempDir())
	got := Missing()
	for _, want := range []string{"this machine has no containerd, ctr, runc, iptables", "apt-get install --no-install-recommends bash conntrack containerd"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
	if strings.Count(got[strings.Index(got, "apt-get"):], "containerd") != 1 {
		t.Errorf("%q names a package twice", got)
	}
}
