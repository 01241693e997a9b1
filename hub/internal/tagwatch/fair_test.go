package tagwatch

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// silent accepts connections and says nothing.
func silent(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String()
}

// serving is git's own server for the repositories below root, and the most that were served at once.
func serving(t *testing.T, root string) (url string, most *atomic.Int64) {
	t.Helper()
	backend := filepath.Join(git(t, root, "--exec-path"), "git-http-backend")
	now, most := &atomic.Int64{}, &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
		}
		(&cgi.Handler{Path: backend, Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null"}, Stderr: io.Discard}).ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, most
}

// Hosts that never answer hold every connection that there is, again and again; the distributions of the others are
// published all the same, within the share of their host.
func TestHostsThatHangHoldUpNobody(t *testing.T) {
	dir := vendor(t, "1.0.0", "1.1.0", "1.2.0")
	url, most := serving(t, filepath.Dir(dir))
	connections := NewTurns(3, 2, 50*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	start := func(url string) *watch {
		h := newWatch(t, fleet.Distribution{URL: url, Interval: time.Second}, t.TempDir())
		h.cfg.Connections = connections
		all.Go(func() {
			if err := h.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		return h
	}
	var hanging, good []*watch
	for range 5 { // two distributions each
		host := silent(t)
		hanging = append(hanging, start(host+"/a"), start(host+"/b"))
	}
	for range 4 {
		good = append(good, start(url+"/vendor"))
	}
	until := time.Now().Add(time.Minute)
	await := func(what string, done func() bool) {
		t.Helper()
		for !done() {
			if time.Now().After(until) {
				for n, h := range hanging {
					t.Logf("hanging %d: %q", n, h.told())
				}
				t.Fatal("not in a minute: " + what)
			}
			time.Sleep(time.Millisecond) // as a poll, up to the deadline above
		}
	}
	for n, h := range good {
		await(fmt.Sprintf("distribution %d is published", n), func() bool { return len(h.tags()) == 3 })
	}
	await("a silent host is told of", func() bool {
		for _, h := range hanging {
			h.mu.Lock()
			for _, n := range h.notes {
				if n.Kind == PollFailed && strings.Contains(n.Message, ErrSlow.Error()) {
					h.mu.Unlock()
					return true
				}
			}
			h.mu.Unlock()
		}
		return false
	})
	if n := most.Load(); n > 2 {
		t.Errorf("%d requests at once of one host, whose share is 2", n)
	}
}
