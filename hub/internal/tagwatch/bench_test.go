package tagwatch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// BenchmarkPublishVsGitArchive times a poll that finds one new tag, up to its bundle being on the disk,
// against `git archive | sha256sum` of the same tag, in turns. The watcher is warm, as it is in a hub.
func BenchmarkPublishVsGitArchive(b *testing.B) {
	source, err := filepath.Abs("../../../../shared/distributions/app-distribution.gitbundle")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(source); err != nil {
		b.Skipf("the reference distribution is absent: %v", err)
	}
	dir := filepath.Join(b.TempDir(), "app")
	git(b, ".", "clone", "-q", "--mirror", source, dir)
	hashes := map[string]string{}
	for tag := range strings.FieldsSeq(git(b, dir, "tag", "-l")) {
		hashes[tag] = git(b, dir, "rev-parse", tag)
		git(b, dir, "tag", "-d", tag)
	}
	const warmUp = "1.0.0"
	git(b, dir, "update-ref", "refs/tags/"+warmUp, hashes[warmUp])
	store, err := blob.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	h := newWatch(b, fleet.Distribution{URL: dir}, b.TempDir())
	h.publish = func(s Seen) error {
		if s.Err != nil {
			return s.Err
		}
		tar, err := bundle.Pack(s.Snapshot.Files, s.Snapshot.Proof)
		if err != nil {
			return err
		}
		return store.Put(bundle.DigestOf(tar), bundle.Compress(tar))
	}
	poll := func(want int) time.Duration {
		start := time.Now()
		if err := h.poll(context.Background()); err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		if len(h.judged) != want {
			b.Fatalf("%d tags published, want %d", len(h.judged), want)
		}
		return took
	}
	defer h.closeRepository()
	poll(1)

	var ours, theirs []time.Duration
	for b.Loop() {
		b.StopTimer()
		for tag, hash := range hashes {
			if tag == warmUp {
				continue
			}
			git(b, dir, "update-ref", "refs/tags/"+tag, hash)
			b.StartTimer()
			ours = append(ours, poll(len(h.judged)+1))
			b.StopTimer()
			start := time.Now()
			cmd := exec.Command("sh", "-c", "git archive "+tag+" dist | sha256sum")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			theirs = append(theirs, time.Since(start))
		}
		// Start over: forget all but the first, and what is stored of them.
		for tag := range hashes {
			if tag != warmUp {
				git(b, dir, "update-ref", "-d", "refs/tags/"+tag)
				delete(h.judged, tag)
			}
		}
		if store, err = blob.Open(b.TempDir()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	median := func(d []time.Duration) float64 { slices.Sort(d); return d[len(d)/2].Seconds() * 1000 }
	mine, git := median(ours), median(theirs)
	fmt.Printf("FIGURE publish.vs-git-archive %.2f ratio medians of %d: %.1f ms against %.1f ms; tag list, fetch, snapshot, pack, compress and store; rendering excluded\n",
		mine/git, len(ours), mine, git)
	b.ReportMetric(mine/git, "ratio")
}
