package bundle

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
)

// releases are what was published one after the other of public repositories, and the folder that is deployed.
// The tags of the reference distribution are beside this checkout; of the others, the Go module's files are what
// the module proxy has, and are committed and signed here.
var releases = []struct {
	module, folder string
	pairs          [][2]string
}{
	{"", "dist", [][2]string{{"1.1.0", "1.1.1"}, {"1.1.1", "1.2.0"}, {"1.2.0", "1.3.0"}, {"1.3.0", "1.4.0"}, {"1.4.0", "2.0.0"}}},
	{"sigs.k8s.io/gateway-api", "config", [][2]string{{"v1.5.0", "v1.5.1"}, {"v1.6.0", "v1.6.1"}, {"v1.6.1", "v1.6.2"}, {"v1.6.2", "v1.6.3"}}},
	{"github.com/argoproj/argo-rollouts", "manifests", [][2]string{{"v1.9.2", "v1.9.3"}, {"v1.10.0", "v1.10.1"}, {"v1.10.1", "v1.10.2"}}},
	{"github.com/cert-manager/cert-manager", "deploy", [][2]string{{"v1.21.0", "v1.21.1"}}},
	{"github.com/projectcontour/contour", "examples", [][2]string{{"v1.33.7", "v1.33.8"}}},
}

const reference = "../../../shared/distributions/app-distribution.gitbundle"

func run(b *testing.B, dir, name string, args ...string) []byte {
	b.Helper()
	c := exec.CommandContext(b.Context(), name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=v", "GIT_AUTHOR_EMAIL=v@example.com",
		"GIT_COMMITTER_NAME=v", "GIT_COMMITTER_EMAIL=v@example.com")
	var out, wrong bytes.Buffer
	c.Stdout, c.Stderr = &out, &wrong
	if err := c.Run(); err != nil {
		b.Fatalf("%s %v: %v: %s", name, args, err, wrong.String())
	}
	return out.Bytes()
}

// publisher has the repositories whose bundles are made, as the hub makes them.
type publisher struct {
	b   *testing.B
	dir string
	key string
}

func (p publisher) bundle(repository, tag, path string) []byte {
	p.b.Helper()
	r, err := gitrepo.Open(p.b.Context(), gitrepo.Config{URL: repository, Dir: p.b.TempDir()})
	if err != nil {
		p.b.Fatal(err)
	}
	defer r.Close()
	if err := r.Fetch(p.b.Context(), tag); err != nil {
		p.b.Fatal(err)
	}
	s, err := r.Snapshot(tag, path)
	if err != nil {
		p.b.Fatal(err)
	}
	return pack(p.b, s.Files, s.Proof)
}

// module makes a repository of a module's versions; "" and why where the proxy has one of them not.
func (p publisher) module(module, folder string, pairs [][2]string) (repository, missing string) {
	p.b.Helper()
	repository = filepath.Join(p.dir, strings.ReplaceAll(module, "/", "-"))
	run(p.b, p.dir, "git", "init", "-q", "-b", "main", repository)
	for _, version := range slices.Compact(slices.Sorted(flat(pairs))) {
		c := exec.CommandContext(p.b.Context(), "go", "mod", "download", "-json", module+"@"+version)
		c.Dir, c.Env = p.dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		out, _ := c.Output() // one that wants a newer Go is an error, and there
		var got struct{ Zip, Error string }
		if err := json.Unmarshal(out, &got); err != nil || got.Zip == "" {
			return "", fmt.Sprintf("%s@%s: %v %s", module, version, err, got.Error)
		}
		p.unpack(got.Zip, module+"@"+version+"/"+folder+"/", filepath.Join(repository, folder))
		run(p.b, repository, "git", "add", "-A", "-f")
		run(p.b, repository, "git", "commit", "-q", "--allow-empty", "-m", "Release "+version)
		run(p.b, repository, "git", "-c", "gpg.format=ssh", "-c", "user.signingkey="+p.key, "tag", "-s", "-m", version, version)
	}
	return repository, ""
}

func flat(pairs [][2]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, p := range pairs {
			if !yield(p[0]) || !yield(p[1]) {
				return
			}
		}
	}
}

// unpack has what is below a folder of a zip in dir, and nothing else.
func (p publisher) unpack(file, prefix, dir string) {
	p.b.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		p.b.Fatal(err)
	}
	defer z.Close()
	if err := os.RemoveAll(dir); err != nil {
		p.b.Fatal(err)
	}
	for _, f := range z.File {
		name, ok := strings.CutPrefix(f.Name, prefix)
		if !ok || !filepath.IsLocal(name) {
			continue
		}
		r, err := f.Open()
		if err != nil {
			p.b.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			p.b.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			p.b.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			p.b.Fatal(err)
		}
	}
}

// used is the processor time of this process.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measured is the median processor time of seven calls, and the most that one of them allocated.
func measured(b *testing.B, f func()) (cpu time.Duration, bytes uint64) {
	var all []time.Duration
	for range 7 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := used(b)
		f()
		all = append(all, used(b)-begin)
		runtime.ReadMemStats(&after)
		bytes = max(bytes, after.TotalAlloc-before.TotalAlloc)
	}
	slices.Sort(all)
	return all[3], bytes
}

// cdelta is what the C library's program makes at its last ordinary level, without a checksum as ours.
func cdelta(b *testing.B, dir string, base, tar []byte) (size int, cpu time.Duration) {
	b.Helper()
	for name, data := range map[string][]byte{"old": base, "new": tar} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	c := exec.CommandContext(b.Context(), "zstd", "-q", "-f", "-19", "--no-check", "--patch-from=old", "new", "-o", "delta")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(filepath.Join(dir, "delta"))
	if err != nil {
		b.Fatal(err)
	}
	return int(info.Size()), c.ProcessState.UserTime() + c.ProcessState.SystemTime()
}

func median[T int | float64 | time.Duration](all []T) T {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// BenchmarkDelta compares the deltas of real releases with those of `zstd --patch-from -19`, and with the whole
// bundles: once, however often it is asked to.
func BenchmarkDelta(b *testing.B) {
	for _, program := range []string{"zstd", "git", "ssh-keygen", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			b.Skipf("%s is absent; on Debian: apt-get install zstd git openssh-client", program)
		}
	}
	p := publisher{b: b, dir: b.TempDir()}
	p.key = filepath.Join(p.dir, "key")
	run(b, p.dir, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", p.key)
	if err := os.WriteFile(filepath.Join(p.dir, "go.mod"), []byte("module releases\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	var against, shrunk []float64
	var build, cbuild, patch []time.Duration
	ours, theirs, memory, patchMemory := 0, 0, uint64(0), uint64(0)
	for _, r := range releases {
		repository, missing := filepath.Join(p.dir, "reference"), ""
		if r.module != "" {
			repository, missing = p.module(r.module, r.folder, r.pairs)
		} else if source, err := filepath.Abs(reference); err != nil {
			b.Fatal(err)
		} else if _, err := os.Stat(source); err != nil {
			missing = "the reference distribution is not beside this checkout"
		} else {
			run(b, p.dir, "git", "clone", "-q", source, repository)
		}
		if missing != "" {
			b.Logf("left out: %s", missing)
			continue
		}
		for _, pair := range r.pairs {
			base, tar := p.bundle(repository, pair[0], r.folder), p.bundle(repository, pair[1], r.folder)
			whole := len(Compress(tar))
			d := delta(b, base, tar)
			cpu, bytes := measured(b, func() { delta(b, base, tar) })
			patched, patchedBytes := measured(b, func() {
				got, err := Patch(base, d, int64(len(tar)))
				if err != nil || DigestOf(got) != DigestOf(tar) {
					b.Fatalf("%s %v: %v", r.module, pair, err)
				}
			})
			c, ccpu := cdelta(b, p.dir, base, tar)
			b.Logf("%s %s to %s: %d bytes of tar, %d whole, %d delta, %d zstd --patch-from -19; made in %s of CPU and %d MB (zstd %s), applied in %s and %d MB",
				r.module, pair[0], pair[1], len(tar), whole, len(d), c, cpu, bytes>>20, ccpu, patched, patchedBytes>>20)
			against, shrunk = append(against, float64(len(d))/float64(c)), append(shrunk, float64(whole)/float64(len(d)))
			build, cbuild, patch = append(build, cpu), append(cbuild, ccpu), append(patch, patched)
			ours, theirs, memory, patchMemory = ours+len(d), theirs+c, max(memory, bytes), max(patchMemory, patchedBytes)
		}
	}
	if len(against) < 10 {
		b.Skipf("%d pairs of releases are at hand, 10 are wanted: neither a Go module proxy nor the reference distribution", len(against))
	}
	fmt.Printf("FIGURE scale.b10-vs-zstd19 %.2f ratio median of %d release pairs, %.2f to %.2f, of the sums %.2f; delta with the signed tag to zstd --patch-from -19\n",
		median(against), len(against), slices.Min(against), slices.Max(against), float64(ours)/float64(theirs))
	fmt.Printf("FIGURE scale.b10-median-shrink %.0f times smaller than the whole compressed bundle, of %d release pairs, %.0f to %.0f\n",
		median(shrunk), len(shrunk), slices.Min(shrunk), slices.Max(shrunk))
	fmt.Printf("FIGURE scale.b10-build-cpu %.2f ratio of the sums to zstd --patch-from -19; median %s of CPU, at most %d MB allocated; applied in %s, at most %d MB with the tar\n",
		float64(sum(build))/float64(sum(cbuild)), median(build).Round(100*time.Microsecond), memory>>20, median(patch).Round(100*time.Microsecond), patchMemory>>20)
}

func sum(all []time.Duration) (s time.Duration) {
	for _, d := range all {
		s += d
	}
	return s
}
