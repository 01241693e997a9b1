package apply_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// rounds is how often each is measured; the median counts.
const rounds = 5

// cost is what one apply took.
type cost struct {
	wall, cpu time.Duration // cpu: of the API server
	requests  int
}

// contender applies a set: the first time in a namespace, again, and with one object in twenty changed.
type contender struct {
	name, agent string
	apply       func(b *testing.B, ns string, n, changed int) time.Duration
}

// BenchmarkCompare applies the same objects, a third each of ConfigMaps, Deployments and Services, by
// this package, by github.com/fluxcd/pkg/ssa as its users call it (staged, with the concurrency of Flux's
// controller and no limit of its own), and by `kubectl apply --server-side`, whose process's start is
// part of its time. In turns, in one run, on one API server without controllers, each time in a namespace
// of its own. Ours dry-runs everything before it applies; kubectl dry-runs nothing.
func BenchmarkCompare(b *testing.B) {
	c := alone(b)
	all := []contender{ours(b, c, true), ours(b, c, false), flux(b, c), kubectl(b, c)}
	for b.Loop() {
		for _, n := range []int{50, 500} {
			for _, x := range all { // what each has to learn once about the cluster is not counted
				x.apply(b, c.NewNamespace(b), 3, 0)
			}
			results := map[string][]cost{}
			for range rounds {
				for _, x := range all {
					ns := c.NewNamespace(b)
					for _, step := range []struct {
						name    string
						changed int
					}{{"fresh", 0}, {"no-op", 0}, {"5 %", n / 20}} {
						key := fmt.Sprintf("%s, %d objects, %s", x.name, n, step.name)
						results[key] = append(results[key], measure(b, c, x, ns, n, step.changed))
					}
				}
			}
			report(b, n, results)
		}
	}
}

func measure(b *testing.B, c *harness.Cluster, x contender, ns string, n, changed int) cost {
	mark, cpu := c.MarkRequests(b), c.APIServerCPU(b)
	wall := x.apply(b, ns, n, changed)
	used := c.APIServerCPU(b) - cpu
	return cost{wall, used, len(c.Requests(b, mark, x.agent))}
}

func median(all []cost) cost {
	by := func(of func(cost) int64) int64 {
		var vs []int64
		for _, c := range all {
			vs = append(vs, of(c))
		}
		slices.Sort(vs)
		return vs[len(vs)/2]
	}
	return cost{
		wall:     time.Duration(by(func(c cost) int64 { return int64(c.wall) })),
		cpu:      time.Duration(by(func(c cost) int64 { return int64(c.cpu) })),
		requests: int(by(func(c cost) int64 { return int64(c.requests) })),
	}
}

func report(b *testing.B, n int, results map[string][]cost) {
	at := func(name, step string) cost { return median(results[fmt.Sprintf("%s, %d objects, %s", name, n, step)]) }
	for _, step := range []string{"fresh", "no-op", "5 %"} {
		for _, name := range []string{"checked", "alone", "ssa", "kubectl"} {
			m := at(name, step)
			b.Logf("%3d objects, %-5s  %-8s %5d ms, %5d ms CPU of the API server, %5d requests", n, step, name, m.wall.Milliseconds(), m.cpu.Milliseconds(), m.requests)
		}
	}
	if n != 500 {
		return
	}
	ratio := func(a, b cost) float64 { return a.wall.Seconds() / b.wall.Seconds() }
	fresh, five := at("checked", "fresh"), at("checked", "5 %")
	fmt.Printf("FIGURE apply.fresh-vs-ssa %.2f ratio to reach 0.75; dry run of everything included, 500 objects, %d rounds\n", ratio(fresh, at("ssa", "fresh")), rounds)
	fmt.Printf("FIGURE apply.fresh-vs-kubectl %.2f ratio to reach 1.1; kubectl dry-runs nothing\n", ratio(fresh, at("kubectl", "fresh")))
	fmt.Printf("FIGURE apply.alone-vs-ssa %.2f ratio to reach 0.4\n", ratio(at("alone", "fresh"), at("ssa", "fresh")))
	fmt.Printf("FIGURE apply.alone-vs-kubectl %.2f ratio to reach 0.6\n", ratio(at("alone", "fresh"), at("kubectl", "fresh")))
	fmt.Printf("FIGURE apply.noop-requests %d requests ssa %d, kubectl %d\n", at("checked", "no-op").requests, at("ssa", "no-op").requests, at("kubectl", "no-op").requests)
	fmt.Printf("FIGURE apply.five-percent-requests-vs-ssa %.3f ratio to reach 0.06; %d requests against %d\n",
		float64(five.requests)/float64(at("ssa", "5 %").requests), five.requests, at("ssa", "5 %").requests)
	fmt.Printf("FIGURE apply.five-percent-vs-ssa %.3f ratio to reach 0.08\n", ratio(five, at("ssa", "5 %")))
}

// alone is a cluster that nobody else works on: an API server and its store.
func alone(b *testing.B) *harness.Cluster {
	b.Helper()
	h, err := harness.Start(b.Context(), harness.Options{Clusters: 1, Dir: b.TempDir(), Log: os.Stderr})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := h.Stop(); err != nil {
			b.Error(err)
		}
	})
	return h.Clusters()[0]
}

func third(t testing.TB, ns string, n, changed int) apply.Set {
	s := apply.Set{Distribution: "bench", Namespace: ns, Version: fmt.Sprintf("1.%d.0", changed)}
	for i := range n {
		value := "same"
		if i < changed {
			value = fmt.Sprint("changed-", changed)
		}
		name := fmt.Sprint("c", i)
		text := configMap(name, value)
		switch i % 3 {
		case 1:
			text = deployment(name, "podinfo:"+value)
		case 2:
			text = fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {selector: {app: %[1]s, of: %s}, ports: [{name: http, port: 80, targetPort: http}]}\n", name, value)
		}
		s.Objects = append(s.Objects, objects(t, text)...)
	}
	for _, o := range s.Objects {
		o.SetNamespace(ns)
	}
	return s
}

// file writes the set for those who read manifests.
func file(b *testing.B, s apply.Set) string {
	b.Helper()
	data, err := manifest.Canonical(s.Objects)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		b.Fatal(err)
	}
	return path
}

func ours(b *testing.B, c *harness.Cluster, check bool) contender {
	hand, err := apply.New(apply.Config{Kubeconfig: c.Kubeconfig})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(hand.Close)
	name := "alone"
	if check {
		name = "checked"
	}
	known := map[string]apply.Inventory{}
	return contender{name, "wheelwright", func(b *testing.B, ns string, n, changed int) time.Duration {
		s := third(b, ns, n, changed)
		begin := time.Now()
		if check {
			r, err := hand.Check(b.Context(), s, known[ns])
			if err != nil || r.Err() != nil {
				b.Fatal(err, r.Err())
			}
		}
		inv, _, err := hand.Apply(b.Context(), s, known[ns])
		if err != nil {
			b.Fatal(err)
		}
		known[ns] = inv.Settled()
		return time.Since(begin)
	}}
}

// flux runs integration/compare/fluxssa, which tells its own time, without its start.
func flux(b *testing.B, c *harness.Cluster) contender {
	root, err := filepath.Abs("../../..")
	if err != nil {
		b.Fatal(err)
	}
	program := filepath.Join(b.TempDir(), "fluxssa")
	build := exec.CommandContext(b.Context(), "go", "build", "-o", program, ".")
	build.Dir = filepath.Join(root, "integration", "compare", "fluxssa")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build fluxssa: %v\n%s", err, out)
	}
	cmd := exec.Command(program, c.Kubeconfig) // ends with its input
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	answers := bufio.NewReader(out)
	return contender{"ssa", "fluxssa", func(b *testing.B, ns string, n, changed int) time.Duration {
		if _, err := io.WriteString(in, file(b, third(b, ns, n, changed))+"\n"); err != nil {
			b.Fatal(err)
		}
		line, err := answers.ReadString('\n')
		if err != nil {
			b.Fatal(err)
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		if err != nil {
			b.Fatal(err)
		}
		return time.Duration(seconds * float64(time.Second))
	}}
}

func kubectl(b *testing.B, c *harness.Cluster) contender {
	return contender{"kubectl", "kubectl", func(b *testing.B, ns string, n, changed int) time.Duration {
		path := file(b, third(b, ns, n, changed))
		begin := time.Now()
		if out, err := c.Kubectl("apply", "--server-side", "-f", path); err != nil {
			b.Fatal(out, err)
		}
		return time.Since(begin)
	}}
}
