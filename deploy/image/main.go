// Command image packs the static binaries into container images, without a daemon and without a base
// image: one layer with the binary and the certificate authorities that this machine believes. The same
// binaries and authorities give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	for _, binary := range []string{"hub", "spoke"} {
		if err := pack(filepath.Join(*bin, binary), filepath.Join(*out, binary+".tar"), "wheelwright/"+binary+":"+*tag, *arch); err != nil {
			fmt.Fprintf(os.Stderr, "image: %s: %v\n", binary, err)
			os.Exit(1)
		}
	}
}

// authorities are where Linux distributions keep the bundle that TLS clients trust.
var authorities = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"}

func pack(binary, target, ref, arch string) error {
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
	layer, err := layerOf(files)
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
