// Command image packs the static binaries into container images, without a daemon and without a base
// image: one layer with the binary and the certificate authorities that this machine believes, and the
// plugins that it may run, whose entries for spoke.yaml and hub.yaml it writes beside the images. The same binaries and
// authorities give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	bin := flag.String("bin", "bin", "`DIR` of the static binaries")
	out := flag.String("out", "dist", "`DIR` to write NAME.tar into, as `docker load` and `ctr images import` read it")
	tag := flag.String("tag", "dev", "image tag")
	arch := flag.String("arch", "amd64", "architecture of the binaries")
	flag.Parse()
	if err := run(*bin, *out, *tag, *arch); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func run(bin, out, tag, arch string) error {
	plugins, err := pluginsIn(bin)
	if err != nil {
		return err
	}
	beside := map[string][]file{"spoke": plugins, "hub": notifiers(plugins)}
	for _, binary := range []string{"hub", "spoke"} {
		if err := pack(filepath.Join(bin, binary), beside[binary], filepath.Join(out, binary+".tar"), "wheelwright/"+binary+":"+tag, arch); err != nil {
			return fmt.Errorf("%s: %w", binary, err)
		}
	}
	target := filepath.Join(out, "plugins.yaml")
	if err := os.WriteFile(target, entries(plugins), 0o644); err != nil {
		return err
	}
	fmt.Printf("%s  the plugins of both, for spoke.yaml and hub.yaml\n", target)
	return nil
}

// pluginFolder is where the images have the plugins.
const pluginFolder = "plugins"

// kinds of the plugins that are packed, by their names.
func kinds() map[string]string {
	return map[string]string{"canary": "canary", "conformance": "conformance", "notify": "notifier"}
}

// notifiers are the plugins that a hub runs.
func notifiers(all []file) (some []file) {
	for _, f := range all {
		if kinds()[path.Base(f.path)] == "notifier" {
			some = append(some, f)
		}
	}
	return some
}

func pluginsIn(bin string) (all []file, err error) {
	for _, name := range slices.Sorted(maps.Keys(kinds())) {
		program, err := os.ReadFile(filepath.Join(bin, "plugins", name))
		if err != nil {
			return nil, fmt.Errorf("plugin %s: %w; run `make build` first", name, err)
		}
		all = append(all, file{path.Join(pluginFolder, name), 0o755, program})
	}
	return all, nil
}

// entries is what stands under plugins in a spoke.yaml, the notifiers also in a hub.yaml, without what is
// each user's to say.
func entries(plugins []file) []byte {
	b := bytes.NewBufferString("# The plugins in the spoke's image, those of the kind notifier also in the hub's; what each takes beside: plugins/NAME/README.md\nplugins:\n")
	for _, f := range plugins {
		name := path.Base(f.path)
		fmt.Fprintf(b, "- name: %s\n  path: /%s\n  sha256: %x\n  kinds: [%s]\n", name, f.path, sha256.Sum256(f.data), kinds()[name])
	}
	return b.Bytes()
}

// authorities are where Linux distributions keep the bundle that TLS clients trust.
var authorities = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"}

func pack(binary string, beside []file, target, ref, arch string) error {
	program, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("%w; run `make build` first", err)
	}
	files := []file{{filepath.Base(binary), 0o755, program}}
	for _, path := range authorities {
		if pem, err := os.ReadFile(path); err == nil {
			files = append(files, file{"etc/ssl/certs/ca-certificates.crt", 0o644, pem})
			break
		}
	}
	if len(files) == 1 {
		return fmt.Errorf("this machine has none of %s, and https needs it in the image; install ca-certificates", strings.Join(authorities, ", "))
	}
	layer, err := layerOf(append(files, beside...))
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config := &v1.ConfigFile{
		Architecture: arch, OS: "linux", Created: v1.Time{Time: time.Unix(0, 0).UTC()},
		Config: v1.Config{Entrypoint: []string{"/" + filepath.Base(binary)}, User: "65532:65532", WorkingDir: "/", Env: []string{"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"}},
	}
	withLayers, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config.RootFS, config.History = withLayers.RootFS, withLayers.History
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := tarball.WriteToFile(target, tag, image); err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s  %s  %s\n", target, ref, digest)
	return nil
}

type file struct {
	path string
	mode int64
	data []byte
}

// layerOf writes the files with fixed times and owners, folders first.
func layerOf(files []file) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var all []error
	made := map[string]bool{}
	for _, f := range files {
		parts := strings.Split(filepath.Dir(f.path), "/")
		for i := range parts {
			dir := strings.Join(parts[:i+1], "/")
			if dir == "." || made[dir] {
				continue
			}
			made[dir] = true
			all = append(all, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}))
		}
		all = append(all, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.data))}))
		_, err := w.Write(f.data)
		all = append(all, err)
	}
	if err := errors.Join(append(all, w.Close())...); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}
