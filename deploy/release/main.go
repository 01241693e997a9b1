// Command release builds what a release of Wheelwright is: for each platform an archive of hub, spoke and
// plugins and a bill of materials, and SHA256SUMS over all of them. The same commit and the same Go give
// the same bytes, in whatever folder and whenever: nothing of the machine or the time is in them. It does
// not sign: the sums are what there is to sign.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const module = "github.com/wheelwright-dev/wheelwright"

func main() {
	var r release
	flag.StringVar(&r.dir, "C", ".", "root `DIR` of the sources")
	flag.StringVar(&r.out, "out", "dist", "`DIR` to write into")
	flag.StringVar(&r.version, "version", "", "the release's `VERSION`, its tag")
	flag.StringVar(&r.commit, "commit", "unknown", "`COMMIT` that it is built from, abbreviated")
	platforms := flag.String("platforms", "linux/amd64,linux/arm64", "`LIST` of what to build for")
	programs := flag.String("programs", "hub,spoke,plugins/canary,plugins/conformance,plugins/notify", "`LIST` of what to build")
	flag.Parse()
	r.platforms, r.programs = strings.Split(*platforms, ","), strings.Split(*programs, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := r.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

// release is what to build. Programs are named as in the archive.
type release struct {
	dir, out, version, commit string
	platforms, programs       []string
}

// binary is a built program.
type binary struct {
	name string
	data []byte
	info *buildinfo.BuildInfo
}

func (r release) run(ctx context.Context) error {
	switch {
	case r.version == "":
		return errors.New("no version; name it with: make release VERSION=1.2.3")
	case strings.ContainsAny(r.version, "/ \\") || strings.HasPrefix(r.version, "-"):
		return fmt.Errorf("version %q cannot be part of a file's name", r.version)
	case strings.HasSuffix(r.version, "-dirty"):
		return fmt.Errorf("version %s: the work tree has changes that no commit has; commit them, or say what this is with: make release VERSION=…", r.version)
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	var sums []string
	for _, platform := range r.platforms {
		binaries, err := r.build(ctx, platform)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		stem := fmt.Sprintf("wheelwright_%s_%s", r.version, strings.ReplaceAll(platform, "/", "_"))
		archive, err := pack(stem, binaries)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		bill, err := billOfMaterials(r.version, r.commit, platform, binaries)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		for _, f := range []struct {
			name string
			data []byte
		}{{stem + ".tar.gz", archive}, {stem + ".cdx.json", bill}} {
			if err := os.WriteFile(filepath.Join(r.out, f.name), f.data, 0o644); err != nil {
				return err
			}
			sums = append(sums, fmt.Sprintf("%x  %s\n", sha256.Sum256(f.data), f.name))
		}
	}
	slices.SortFunc(sums, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
	text := strings.Join(sums, "")
	fmt.Print(text)
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(text), 0o644)
}

// source is the package of a program.
func source(program string) string {
	if strings.HasPrefix(program, "plugins/") {
		return "./" + program
	}
	return "./" + path.Join(program, "cmd", program)
}

// build compiles every program for a platform. Everything that could differ between two machines is said:
// what the environment says of it does not count.
func (r release) build(ctx context.Context, platform string) ([]binary, error) {
	system, arch, ok := strings.Cut(platform, "/")
	if !ok {
		return nil, errors.New("a platform is SYSTEM/ARCHITECTURE, linux/amd64 say")
	}
	folder, err := os.MkdirTemp("", "wheelwright-release-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	var all []binary
	for _, program := range r.programs {
		target := filepath.Join(folder, filepath.FromSlash(program))
		flags := fmt.Sprintf("-s -w -buildid= -X %[1]s/pkg/buildinfo.version=%[2]s -X %[1]s/pkg/buildinfo.commit=%[3]s", module, r.version, r.commit)
		c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", flags, "-o", target, source(program))
		c.Dir = r.dir
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off", "GODEBUG=", "GOFIPS140=off")
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", program, err, out)
		}
		data, err := os.ReadFile(target)
		if err != nil {
			return nil, err
		}
		info, err := buildinfo.Read(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("read what %s was built from: %w", program, err)
		}
		all = append(all, binary{program, data, info})
	}
	return all, nil
}

// pack writes the archive: fixed times, owners and order.
func pack(stem string, binaries []binary) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	made := map[string]bool{}
	for _, bin := range binaries {
		name := path.Join(stem, bin.name)
		if dir := path.Dir(name); !made[dir] {
			made[dir] = true
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, Format: tar.FormatUSTAR}); err != nil {
				return nil, err
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(bin.data)), Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
		if _, err := w.Write(bin.data); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
