package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
)

// poolSize is how many clusters the stories share. Two stories run at a time, so that one works while
// the other waits for pods.
func poolSize() int {
	if given := os.Getenv("WHEELWRIGHT_KUBECONFIGS"); given != "" {
		return len(filepath.SplitList(given))
	}
	return 4
}

// pool lends clusters without namespaces of an earlier story.
type pool struct {
	mu       sync.Mutex
	changed  *sync.Cond
	clean    []*harness.Cluster
	filled   bool
	cleaning sync.WaitGroup
	err      error // why a cluster could not be emptied
}

var clusters = newPool()

func newPool() *pool {
	p := &pool{}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// take lends n clusters to t alone, until t ends. A test may take once.
func (p *pool) take(t testing.TB, n int) []*harness.Cluster {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > poolSize() {
		t.Skipf("needs %d clusters, %d are given", n, poolSize())
	}
	if !p.filled {
		p.clean, p.filled = harness.Shared(t, poolSize()), true
	}
	for len(p.clean) < n && p.err == nil {
		p.changed.Wait()
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	taken := append([]*harness.Cluster(nil), p.clean[:n]...)
	p.clean = append([]*harness.Cluster(nil), p.clean[n:]...)
	t.Cleanup(func() {
		for _, c := range taken {
			p.cleaning.Go(func() { p.giveBack(c) })
		}
	})
	return taken
}

// giveBack empties a cluster while the next story is on.
func (p *pool) giveBack(c *harness.Cluster) {
	out, err := c.Kubectl("delete", "namespace", "shop", "app", "--ignore-not-found", "--wait=true", "--timeout=90s")
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.err = fmt.Errorf("emptying %s: %w: %s", c.Name, err, out)
		fmt.Fprintln(os.Stderr, p.err)
	}
	p.clean = append(p.clean, c)
	p.changed.Broadcast()
}

// wait until nothing is being emptied any more.
func (p *pool) wait() error {
	p.cleaning.Wait()
	return p.err
}
