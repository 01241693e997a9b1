package harness

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
)

// shared are the clusters that the tests of one binary use together. They are a package variable
// because the testing package offers no other place that outlives one test.
var shared struct {
	sync.Mutex
	running bool // Run is on the stack
	harness *Harness
	err     error
}

// Main is the whole of a TestMain whose tests use Shared: it runs them, stops the clusters and exits.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has more to do: it returns the exit code. m is the *testing.M, or what
// runs it and does something while the clusters are still there.
func Run(m interface{ Run() int }) int {
	shared.Lock()
	shared.running = true
	shared.Unlock()
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	shared.running = false
	if shared.harness == nil {
		return code
	}
	if dir := shared.harness.Dir(); code != 0 && dir != "" {
		shared.harness.ownDir = false
		fmt.Fprintf(os.Stderr, "harness: the clusters' logs are in %s\n", dir)
	}
	if err := shared.harness.Stop(); err != nil {
		fmt.Fprintf(os.Stderr, "harness: %v\n", err)
		return max(code, 1)
	}
	return code
}

// Shared returns n clusters with controllers, started at the first call and used by all tests of the
// binary: work in a NewNamespace, and leave cluster-wide objects as they were.
func Shared(t testing.TB, n int) []*Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.running {
		t.Fatal("harness.Shared needs `func TestMain(m *testing.M) { harness.Main(m) }` in this package, to stop the clusters at the end")
	}
	if shared.err == nil {
		shared.err = growShared(n)
	}
	if shared.err != nil {
		t.Fatalf("start clusters: %v", shared.err)
	}
	return shared.harness.Clusters()[:n]
}

func growShared(n int) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if shared.harness == nil {
		shared.harness, err = Start(ctx, Options{Clusters: n, Log: os.Stderr, Controllers: true})
		return err
	}
	return shared.harness.Grow(ctx, n)
}
