package realnode

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
)

// shared is the node that the tests of one binary use together. It is a package variable because the testing
// package offers no other place that outlives one test.
var shared struct {
	sync.Mutex
	running bool // Main is on the stack
	node    *Node
	err     error
}

// Main is the whole of a TestMain whose tests use Shared: it runs them, stops the node and exits.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has more to do: it returns the exit code.
func Run(m interface{ Run() int }) int {
	shared.Lock()
	shared.running = true
	shared.Unlock()
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	shared.running = false
	if shared.node == nil {
		return code
	}
	if code != 0 {
		shared.node.Keep()
		fmt.Fprintf(os.Stderr, "realnode: the node's logs are in %s\n", shared.node.Dir())
	}
	if err := shared.node.Stop(); err != nil {
		fmt.Fprintf(os.Stderr, "realnode: %v\n", err)
		return max(code, 1)
	}
	return code
}

// Shared returns the node, started at the first call and used by all tests of the binary: work in a namespace of
// your own. It skips the test where Need does.
func Shared(t testing.TB) *Node {
	t.Helper()
	Need(t)
	shared.Lock()
	defer shared.Unlock()
	if !shared.running {
		t.Fatal("realnode.Shared needs `func TestMain(m *testing.M) { realnode.Main(m) }` in this package, to stop the node at the end")
	}
	if shared.node == nil && shared.err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		shared.node, shared.err = Start(ctx, Options{Log: os.Stderr})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.node
}
