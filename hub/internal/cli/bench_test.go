package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

const (
	scaleClusters = 10_000
	scaleRounds   = 9
)

// scaleFolder is the data folder of a hub with ten thousand clusters that run 1.0.0, and ten events of each.
func scaleFolder(b *testing.B, binary string) (dir string) {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	repository := b.TempDir()
	must(exec.Command("git", "init", "-q", "-b", "main", repository).Run())
	dir = b.TempDir()
	spawn(b, binary, dir).kill() // the hub makes its own authority, which it is not to be without once it has clusters
	made := dir                  // in memory where there is such a disk: thirty thousand transactions are not what is measured
	if shm, err := os.MkdirTemp("/dev/shm", "wheelwright-"); err == nil {
		made = shm
		defer func() { must(os.RemoveAll(shm)) }()
		data, err := os.ReadFile(filepath.Join(dir, "hub.db"))
		must(err)
		must(os.WriteFile(filepath.Join(made, "hub.db"), data, 0o600))
	}
	s, err := store.Open(filepath.Join(made, "hub.db"), slog.New(slog.DiscardHandler))
	must(err)
	now := time.Now().UTC()
	must(s.AddDistribution(fleet.Distribution{Name: "shop", URL: repository, Path: "dist", Interval: time.Hour, Created: now}))
	digest := fleet.Digest("sha256:" + strings.Repeat("a", 64))
	must(s.PutRelease(fleet.Release{Distribution: "shop", Version: "1.0.0", Phase: fleet.Available, Digest: digest, Published: now}, "h"))
	var all sync.WaitGroup
	for n := range scaleClusters {
		all.Go(func() {
			name := fleet.Cluster(fmt.Sprintf("provider-%03d/cluster-%05d", n/50, n))
			token, certificate := fmt.Sprintf("t%d", n), [32]byte{1, byte(n), byte(n >> 8)}
			_, err := s.Invite(name, map[string]string{"env": "prod", "region": "eu"}, token, [32]byte{9}, now.Add(time.Hour))
			if err == nil {
				_, err = s.Redeem(token, [32]byte{9}, fleet.Fingerprint(certificate), now, func(fleet.Cluster) (store.Certificate, error) {
					return store.Certificate{Fingerprint: certificate, NotAfter: now.Add(24 * time.Hour)}, nil
				})
			}
			i := fleet.Installation{Distribution: "shop", Variant: "app-kubernetes", Namespace: "shop", Policy: fleet.Policy{Range: "1.x"}, Running: "1.0.0", Bundle: digest, Overlay: digest,
				Rendered: digest, Phase: fleet.Succeeded, PhaseSince: now, Health: fleet.Healthy, Objects: 15, Ready: 15, ObservedAt: now}
			if err == nil {
				err = s.Hello(name, "v1.0.0", "v1.36.3", []fleet.Installation{i})
			}
			var events []fleet.Event
			for seq := range uint64(10) {
				events = append(events, fleet.Event{Seq: seq + 1, At: now, Kind: fleet.EventPhase, Distribution: "shop", Version: "1.0.0", Message: "Settling: 15 of 15 objects are ready", Installation: &i})
			}
			if err == nil {
				_, err = s.RecordEvents(name, "journal", events)
			}
			if err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	must(s.Close())
	if made != dir {
		data, err := os.ReadFile(filepath.Join(made, "hub.db"))
		must(err)
		must(os.WriteFile(filepath.Join(dir, "hub.db"), data, 0o600))
	}
	return dir
}

// served is a hub process.
type served struct {
	*exec.Cmd
	began time.Time
	ready time.Duration // from its start until it says that it serves
	knows time.Duration // from its start until it has answered with the whole fleet
}

// spawn starts the hub's process and waits until it says that it serves.
func spawn(b *testing.B, binary, dir string, more ...string) *served {
	b.Helper()
	h := &served{began: time.Now(), Cmd: exec.Command(binary, append([]string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--log-level", "error"}, more...)...)}
	errs, err := h.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := h.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(h.kill)
	lines, said, serves := bufio.NewScanner(errs), "", false
	for !serves && lines.Scan() {
		said += lines.Text() + "\n"
		serves = strings.Contains(lines.Text(), "serving on")
	}
	h.ready = time.Since(h.began)
	if !serves {
		b.Fatalf("the hub does not start: %s", said)
	}
	go func() {
		for lines.Scan() {
		}
	}()
	return h
}

// launch starts the hub's process and asks it for the whole fleet.
func launch(b *testing.B, binary, dir string, more ...string) *served {
	b.Helper()
	h := spawn(b, binary, dir, more...)
	c, err := clientcontext.Load(filepath.Join(dir, "admin.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	conn, err := clientcontext.Dial(c, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := fleetv1.NewFleetServiceClient(conn).GetStatus(ctx, &fleetv1.GetStatusRequest{Limit: 1})
	if err != nil || r.GetTotal() != scaleClusters {
		b.Fatalf("status of %d clusters, %v", r.GetTotal(), err)
	}
	h.knows = time.Since(h.began)
	return h
}

// kill is without a chance to close anything.
func (h *served) kill() {
	_ = h.Process.Kill()
	_ = h.Wait()
}

func buildHub(b *testing.B) string {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "hub")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/wheelwright-dev/wheelwright/hub/cmd/hub").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// timed runs a command of the built binary; status 1 says something of the fleet.
func timed(b *testing.B, binary, contextFile string, args ...string) (took time.Duration, size int) {
	b.Helper()
	c := exec.Command(binary, args...)
	c.Env = append(os.Environ(), contextVariable+"="+contextFile)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	began := time.Now()
	err := c.Run()
	took = time.Since(began)
	var code *exec.ExitError
	if err != nil && !(errors.As(err, &code) && code.ExitCode() == 1) {
		b.Fatalf("hub %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return took, out.Len()
}

func median(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

func spread(all []time.Duration) string {
	return fmt.Sprintf("%v to %v", slices.Min(all).Round(time.Millisecond), slices.Max(all).Round(time.Millisecond))
}

// BenchmarkStatusOfTenThousand measures the built commands against the process of a real hub.
func BenchmarkStatusOfTenThousand(b *testing.B) {
	binary := buildHub(b)
	dir := scaleFolder(b, binary)
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		b.Fatal(err)
	}
	debug := l.Addr().String()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	launch(b, binary, dir, "--debug", debug)
	admin := filepath.Join(dir, "admin.yaml")
	var starts, statuses, lists []time.Duration
	var ratios []float64
	size := 0
	for b.Loop() {
		for range scaleRounds {
			start, _ := timed(b, binary, admin, "version", "--client")
			status, _ := timed(b, binary, admin, "status")
			var list time.Duration
			list, size = timed(b, binary, admin, "get", "clusters", "-o", "json")
			starts, statuses, lists = append(starts, start), append(statuses, status), append(lists, list)
			ratios = append(ratios, float64(status)/float64(start))
		}
	}
	slices.Sort(ratios)
	fmt.Printf("FIGURE scale.b9-status-vs-start %.2f x process start, %d clusters; %v (%s) against %v (%s) for `hub version --client`; ratios %.2f to %.2f, %d rounds\n",
		ratios[len(ratios)/2], scaleClusters, median(statuses).Round(time.Millisecond), spread(statuses), median(starts).Round(time.Millisecond), spread(starts), ratios[0], ratios[len(ratios)-1], len(ratios))
	fmt.Printf("FIGURE scale.b9-json-ms %d ms `hub get clusters -o json` of %d clusters, the whole process, %d bytes; %s\n", median(lists).Milliseconds(), scaleClusters, size, spread(lists))
	profiled(b, debug, "scale.b9-status-vs-start", func() { timed(b, binary, admin, "status") })
	profiled(b, debug, "scale.b9-json-ms", func() { timed(b, binary, admin, "get", "clusters", "-o", "json") })
}

// profiled does something again and again for the hub's part in it, where a profile is wanted.
func profiled(b *testing.B, debug, figure string, again func()) {
	b.Helper()
	if harness.ProfileFile(figure) == "" {
		return
	}
	done := make(chan error, 1)
	go func() { done <- harness.FetchProfile(b.Context(), debug, "profile?seconds=5", figure) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				b.Fatal(err)
			}
			return
		default:
			again()
		}
	}
}

// BenchmarkRestartOfTenThousand measures a hub that was killed, from the start of its process to the first answer
// about its whole fleet: the store opened, each of its pages checked, memory loaded.
func BenchmarkRestartOfTenThousand(b *testing.B) {
	binary := buildHub(b)
	dir := scaleFolder(b, binary)
	var ready, knows []time.Duration
	for b.Loop() {
		for range scaleRounds {
			h := launch(b, binary, dir)
			h.kill()
			ready, knows = append(ready, h.ready), append(knows, h.knows)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "hub.db"))
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("FIGURE scale.b12-restart-s %.2f s process start to the first answer about all %d clusters, after a kill; %s; serving after %.2f s; store of %d MB with %d events\n",
		median(knows).Seconds(), scaleClusters, spread(knows), median(ready).Seconds(), info.Size()>>20, 10*scaleClusters)
}
