package hub

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// smallDisk is a file system of its own, of so many megabytes.
func smallDisk(t *testing.T, megabytes string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+megabytes+"m"); err != nil {
		t.Skipf("a small file system cannot be had here, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill takes all room but so many bytes.
func fill(t *testing.T, dir string, leave int64) (filler string) {
	t.Helper()
	filler = filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block, written := make([]byte, 64<<10), int64(0)
	for {
		n, err := f.Write(block)
		written += int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(written - leave); err != nil {
		t.Fatal(err)
	}
	return filler
}

// A release that the disk has no room for is no release, and says why; another distribution's is published beside it,
// and the first by itself once there is room.
func TestAFullDiskDuringPublication(t *testing.T) {
	disk := smallDisk(t, "64")
	dir := filepath.Join(disk, "data")
	large, small := newVendor(t), newVendor(t)
	large.tag(t, "1.0.0", "example.com/backend:1.0.0")
	small.tag(t, "1.0.0", "example.com/backend:1.0.0")
	hub := start(t, Config{Dir: dir})
	for name, v := range map[string]vendor{"shop": large, "small": small} {
		if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: name, Url: v.dir, IntervalSeconds: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	get := func(distribution, version string) (*fleetv1.Release, bool) {
		r, err := hub.fleet.GetRelease(t.Context(), &fleetv1.GetReleaseRequest{Distribution: distribution, Version: version})
		if err != nil && status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
		return r.GetRelease(), err == nil
	}
	available := func(distribution, version string) {
		t.Helper()
		hub.eventually(t, distribution+" "+version, func() bool { _, ok := get(distribution, version); return ok })
		if r, _ := get(distribution, version); r.GetPhase() != string(fleet.Available) {
			t.Fatalf("%s %s: %s %q", distribution, version, r.GetPhase(), r.GetReasons())
		}
	}
	available("shop", "1.0.0")
	available("small", "1.0.0")

	filler := fill(t, disk, 3<<20)
	noise, r := make([]byte, 8<<20), rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	large.write(t, "dist/app/noise.bin", string(noise))
	large.tag(t, "1.1.0", "example.com/backend:1.1.0")
	var said string
	hub.eventually(t, "what is wrong", func() bool {
		list, err := hub.fleet.ListDistributions(t.Context(), &fleetv1.ListDistributionsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list.GetDistributions() {
			if d.GetName() == "shop" {
				said = strings.Join(d.GetNotes(), "\n")
			}
		}
		return said != ""
	})
	for _, want := range []string{"1.1.0", "no space left on device", filepath.Join(dir, "bundles"), "free some space"} {
		if !strings.Contains(said, want) {
			t.Errorf("it is said %q, want %q in it", said, want)
		}
	}
	small.tag(t, "1.1.0", "example.com/backend:1.1.0")
	available("small", "1.1.0")
	if r, ok := get("shop", "1.1.0"); ok {
		t.Errorf("there is a release, though its bundle is not: %s %q", r.GetPhase(), r.GetReasons())
	}
	if parts, err := filepath.Glob(filepath.Join(dir, "bundles", "part-*")); err != nil || len(parts) > 0 {
		t.Errorf("left behind: %q, %v", parts, err)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	available("shop", "1.1.0")
	done, _ := get("shop", "1.1.0")
	hub.eventually(t, "the note to be taken back", func() bool {
		list, err := hub.fleet.ListDistributions(t.Context(), &fleetv1.ListDistributionsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list.GetDistributions() {
			if len(d.GetNotes()) > 0 {
				return false
			}
		}
		return true
	})
	hub.stop()
	bundles, err := blob.Open(filepath.Join(dir, "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	z, _, err := bundles.Get(fleet.Digest(done.GetDigest()))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	packed, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if tar, err := bundle.Decompress(packed, 64<<20); err != nil || bundle.DigestOf(tar) != fleet.Digest(done.GetDigest()) {
		t.Errorf("what is stored is not what was published: %v", err)
	}
}
