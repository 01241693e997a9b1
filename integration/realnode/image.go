package realnode

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image is one to be packed from files of this machine, in one layer.
type Image struct {
	Names   []string          // what manifests call it, as stefanprodan/podinfo:6.9.2
	Files   map[string]string // path in the image -> file here; they keep whether they can be executed
	Links   map[string]string // path in the image -> where the link leads
	Command []string          // where the manifest has none
	Folder  string            // the working folder; empty: /
}

// Import makes images known to the node, as if it had pulled them.
func (n *Node) Import(ctx context.Context, images ...Image) error {
	for _, image := range images {
		archive := n.file("images", strings.NewReplacer("/", "-", ":", "-").Replace(image.Names[0])+".tar")
		if err := image.write(archive); err != nil {
			return fmt.Errorf("pack image %s: %w", image.Names[0], err)
		}
		if _, err := n.ctr(ctx, "images", "import", archive); err != nil {
			return fmt.Errorf("import image %s: %w", image.Names[0], err)
		}
		if err := os.Remove(archive); err != nil {
			return err
		}
	}
	return nil
}

// write packs the image as `docker save` does.
func (i Image) write(target string) error {
	data, err := i.layer()
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Created = runtime.GOARCH, "linux", v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config = v1.Config{Cmd: i.Command, WorkingDir: path.Join("/", i.Folder), Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"}}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return err
	}
	tags := map[name.Tag]v1.Image{}
	for _, ref := range i.Names {
		tag, err := name.NewTag(ref)
		if err != nil {
			return err
		}
		tags[tag] = image
	}
	return tarball.MultiWriteToFile(target, tags)
}

// layer is a tar of the files, their folders before them, and a /tmp.
func (i Image) layer() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	errs := []error{w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777})}
	made := map[string]bool{"/": true}
	var folder func(string)
	folder = func(dir string) {
		if dir = path.Join("/", dir); made[dir] {
			return
		}
		folder(path.Dir(dir))
		made[dir] = true
		errs = append(errs, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755}))
	}
	folder(i.Folder)
	for _, target := range slices.Sorted(maps.Keys(i.Files)) {
		content, err := os.ReadFile(i.Files[target])
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(i.Files[target])
		if err != nil {
			return nil, err
		}
		folder(path.Dir(target))
		errs = append(errs, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(target, "/"), Mode: int64(info.Mode().Perm() | 0o444), Size: int64(len(content))}))
		_, err = w.Write(content)
		errs = append(errs, err)
	}
	for _, at := range slices.Sorted(maps.Keys(i.Links)) {
		folder(path.Dir(at))
		errs = append(errs, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: strings.TrimPrefix(at, "/"), Linkname: i.Links[at], Mode: 0o777}))
	}
	return b.Bytes(), errors.Join(append(errs, w.Close())...)
}

// addProgram puts a program of this machine into the image with the libraries that the loader names for it.
func (i Image) addProgram(ctx context.Context, source, target string) error {
	i.Files[target] = source
	out, err := run(ctx, "ldd", source)
	if err != nil {
		return fmt.Errorf("find the libraries of %s: %w", source, err)
	}
	for word := range strings.FieldsSeq(out) {
		if strings.HasPrefix(word, "/") && strings.Contains(filepath.Base(word), ".so") {
			i.Files[word] = word
		}
	}
	return nil
}
