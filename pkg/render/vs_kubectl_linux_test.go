package render_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

// cost is processor time, user and system, of all processes, and time by the clock.
type cost struct{ processor, clock time.Duration }

// here is what f takes of this process and of the render child, which lives on.
func here(b *testing.B, f func()) cost {
	own := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	// A child that f starts has used nothing before.
	before, child, begin := own(), childTime(b), time.Now()
	f()
	clock := time.Since(begin)
	return cost{own() - before + childTime(b) - child, clock}
}

// childTime is the processor time of the threads of the processes that this one has started and not ended.
func childTime(b *testing.B) (sum time.Duration) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		b.Fatalf("this kernel does not tell a process's children: %v", err)
	}
	for _, t := range tasks {
		pids, err := os.ReadFile(t)
		if err != nil {
			continue // the thread is gone
		}
		for _, pid := range strings.Fields(string(pids)) {
			threads, err := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
			if err != nil {
				b.Fatal(err)
			}
			for _, thread := range threads {
				var ns int64
				if text, err := os.ReadFile(thread); err == nil {
					fmt.Sscan(string(text), &ns)
				}
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

// pairs of one thing and the command, in turns.
type pairs struct{ mine, theirs []cost }

func (p pairs) figure(name, what string) string {
	processor, clock := func(c cost) time.Duration { return c.processor }, func(c cost) time.Duration { return c.clock }
	ratio := func(of func(cost) time.Duration) (all []float64) {
		for i := range p.mine {
			all = append(all, of(p.mine[i]).Seconds()/of(p.theirs[i]).Seconds())
		}
		slices.Sort(all)
		return all
	}
	ms := func(side []cost, of func(cost) time.Duration) float64 {
		var all []time.Duration
		for _, c := range side {
			all = append(all, of(c))
		}
		slices.Sort(all)
		return all[len(all)/2].Seconds() * 1000
	}
	all, wall := ratio(processor), ratio(clock)
	return fmt.Sprintf("FIGURE %s %.4f ratio median of %d pairs, %.4f to %.4f: %.2f ms of processor time, child included, against %.0f ms of kubectl kustomize; by the clock %.2f ms against %.0f ms, %.4f; %s\n",
		name, all[len(all)/2], len(all), all[0], all[len(all)-1], ms(p.mine, processor), ms(p.theirs, processor), ms(p.mine, clock), ms(p.theirs, clock), wall[len(wall)/2], what)
}

// BenchmarkRenderVsKubectl renders a provider's overlay over the reference distribution, and has kubectl kustomize do
// the same with the release in a folder beside the overlay, in turns: a first time in a child that is warm, as a
// running spoke's is, in one that has to be started, and again from the cache. What comes out is compared byte for
// byte, kubectl's after it was read and written as manifest.Canonical writes (keys sorted, objects in their order).
func BenchmarkRenderVsKubectl(b *testing.B) {
	command, repo, provider := kubectl(b), reference(b, "app-distribution"), reference(b, "provider-config")
	git(b, "-C", repo, "checkout", "-q", "1.2.0")
	src := referenceSource(b, repo, "1.2.0", "")
	src.Overlay, src.OverlayPath = archive(b, provider, "step-2-upgrade", "app"), "."
	beside := filepath.Join(repo, "overlay")
	for _, f := range src.Overlay {
		text := strings.ReplaceAll(string(f.Data), "github.com/stefanprodan/gitops-app-distribution/dist//app-kubernetes?ref=1.2.0", "../dist/app-kubernetes")
		if err := os.MkdirAll(beside, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(beside, f.Path), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	theirs := func() (cost, []byte) {
		cmd := exec.CommandContext(b.Context(), command, "kustomize", beside)
		begin := time.Now()
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		return cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(begin)}, out
	}
	type rendering interface {
		Render(context.Context, render.Source) (render.Result, error)
	}
	var same []byte
	measure := func(r rendering) cost {
		return here(b, func() {
			res, err := r.Render(b.Context(), src)
			if err != nil {
				b.Fatal(err)
			}
			if same == nil {
				same = res.Manifest
			}
			if !bytes.Equal(res.Manifest, same) {
				b.Fatal("two renderings differ")
			}
		})
	}
	warm := newRenderer(b, render.Config{})
	cached := render.NewCache(warm, 4<<20)
	var first, cold, again pairs
	const rounds = 15
	for round := range rounds + 1 {
		begun, known := measure(warm), measure(cached)
		fresh := render.New(render.Config{})
		started := measure(fresh)
		if err := fresh.Close(); err != nil {
			b.Fatal(err)
		}
		command, out := theirs()
		objs, err := manifest.Parse(out)
		if err != nil {
			b.Fatal(err)
		}
		want, err := manifest.Canonical(objs)
		if err != nil || !bytes.Equal(same, want) {
			b.Fatalf("kubectl has another result, or none: %v", err)
		}
		if round == 0 { // the child reads its schema, the cache fills, the command comes into the page cache
			continue
		}
		first.mine, first.theirs = append(first.mine, begun), append(first.theirs, command)
		cold.mine, cold.theirs = append(cold.mine, started), append(cold.theirs, command)
		again.mine, again.theirs = append(again.mine, known), append(again.theirs, command)
	}
	fmt.Print(first.figure("scale.b6-first", "in the sandbox, its child warm; the same bytes"))
	fmt.Print(cold.figure("scale.b6-first-cold", "in the sandbox, its child's start and schema included; the same bytes"))
	fmt.Print(again.figure("scale.b6-cached", "looked up by the digest of all that goes in, and checked; the same bytes"))
}
