package load

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var api = Target{Delivery: "shop/app", Step: "1 of 1.2.0", Namespace: "shop", Service: "api-canary", Known: "api", Port: 9898, Path: "/items?limit=1"}

// pipes is a network without a kernel, so that time can be made to pass.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// served is a Generator whose targets are all the one server.
func served(t *testing.T, c Config, handler http.HandlerFunc) *Generator {
	t.Helper()
	network := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(network)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	c.Dial, c.Log = network.dial, slog.New(slog.DiscardHandler)
	return New(c)
}

// It asks as often as it is told, as long as it is wound up, and no longer.
func TestWound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		g := served(t, Config{Rate: 5}, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
		passes := func(d time.Duration, want int64, when string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if n := asked.Load(); n != want {
				t.Fatalf("%s: %d requests, want %d", when, n, want)
			}
		}
		if r := g.Wind(api, 2*time.Second); r != (Report{}) {
			t.Errorf("before the first request: %+v", r)
		}
		passes(time.Minute, 10, "wound up for two seconds")
		if r := g.Wind(api, time.Second); r.Sent != 10 || r.Answered != 10 || r.Failed != 0 || r.Unreached() {
			t.Errorf("got %+v", r)
		}
		passes(900*time.Millisecond, 15, "wound up again")
		g.Wind(api, time.Second)
		passes(time.Minute, 20, "wound up before it ran out")
		g.Wind(api, time.Hour)
		passes(1100*time.Millisecond, 26, "wound up for an hour")
		g.Stop(api.Delivery, api.Step)
		passes(time.Second, 31, "the same step is told again")
		g.Stop("shop/other", "")
		passes(time.Second, 36, "another delivery is stopped")
		g.Stop(api.Delivery, "2 of 1.2.0")
		passes(2*time.Hour, 36, "the next step")
		if r := g.Look(api); r != (Report{}) {
			t.Errorf("it remembers %+v", r)
		}
	})
}

// The load of one step ends with the next, where that is the first that is heard of it; another delivery's goes on.
func TestEachStepItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := served(t, Config{Rate: 1}, func(http.ResponseWriter, *http.Request) {})
		other, next := api, api
		other.Delivery, next.Step = "shop/news", "2 of 1.2.0"
		g.Wind(api, time.Hour)
		g.Wind(other, time.Hour)
		time.Sleep(1500 * time.Millisecond)
		g.Wind(next, time.Hour)
		time.Sleep(time.Second)
		synctest.Wait()
		if a, b, c := g.Look(api), g.Look(other), g.Look(next); a.Sent != 0 || b.Sent != 3 || c.Sent != 1 && c.Sent != 2 {
			t.Errorf("got %+v, %+v, %+v", a, b, c)
		}
		g.Stop(api.Delivery, "")
		g.Stop(other.Delivery, "")
		g.Stop(other.Delivery, "")
	})
}

// Whoever does not answer is not asked more often than a few at once, and each time not for long.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		g := served(t, Config{Rate: Fastest}, func(_ http.ResponseWriter, r *http.Request) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-r.Context().Done()
			now.Add(-1)
		})
		g.Wind(api, 8*time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		r := g.Look(api)
		if r.Sent != 2*mostAtOnce || r.Failed != r.Sent || !r.Unreached() || r.Trouble != "no answer within 5s" || most.Load() > mostAtOnce {
			t.Errorf("got %+v, %d at once", r, most.Load())
		}
	})
}

// What is asked, of whom, and in whose name; the address is found once.
func TestRequest(t *testing.T) {
	requests := make(chan *http.Request, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		http.Error(w, "no database", http.StatusInternalServerError)
	}))
	defer server.Close()
	var found atomic.Int64
	at := server.Listener.Addr().(*net.TCPAddr)
	target := api
	target.Port = at.Port
	g := New(Config{Rate: Fastest, Agent: "wheelwright-canary/1", Log: slog.New(slog.DiscardHandler), Find: func(_ context.Context, got Target) string {
		found.Add(1)
		if got != target {
			t.Errorf("asked for %+v", got)
		}
		return at.IP.String()
	}})
	g.Wind(target, time.Minute)
	for range 10 {
		r := <-requests
		if want := "api.shop.svc:" + strings.TrimPrefix(server.URL, "http://127.0.0.1:"); r.Host != want || r.URL.String() != "/items?limit=1" || r.Method != http.MethodGet || r.UserAgent() != "wheelwright-canary/1" {
			t.Fatalf("got %s %s of %s by %s, want %s", r.Method, r.URL, r.Host, r.UserAgent(), want)
		}
	}
	if r := g.Look(target); r.Answered < 5 || r.Failed != 0 {
		t.Errorf("an error is an answer: %+v", r)
	}
	g.Stop(target.Delivery, "")
	if n := found.Load(); n != 1 {
		t.Errorf("the Service was looked up %d times", n)
	}
	if target.Port = 80; target.URL() != "http://api-canary.shop.svc/items?limit=1" {
		t.Error(target.URL())
	}
}

// An answer without end is read to its bound, and one that leads elsewhere is not followed.
func TestAnswersAreBounded(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	ended := make(chan int, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
			return
		}
		written := 0
		for {
			n, err := w.Write(make([]byte, 64<<10))
			if written += n; err != nil {
				ended <- written
				return
			}
		}
	}))
	defer server.Close()
	at := server.Listener.Addr().(*net.TCPAddr)
	g := New(Config{Rate: Fastest, Log: slog.New(slog.DiscardHandler), Find: func(context.Context, Target) string { return at.IP.String() }})
	moved, endless := api, api
	moved.Port, moved.Path, endless.Port = at.Port, "/moved", at.Port
	g.Wind(moved, time.Minute)
	g.Wind(endless, time.Minute)
	if n := <-ended; n > 32<<20 {
		t.Errorf("an answer was taken for %d bytes", n)
	}
	until(t, func() bool { return g.Look(moved).Answered >= 5 && g.Look(endless).Answered >= 1 })
	g.Stop(api.Delivery, "")
}

// Nobody there is said, in one line, and the address is looked for again.
func TestNobodyThere(t *testing.T) {
	var found atomic.Int64
	g := New(Config{Rate: Fastest, Log: slog.New(slog.DiscardHandler),
		Find: func(context.Context, Target) string { found.Add(1); return "127.0.0.1" },
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("connect:\nconnection refused\xff " + strings.Repeat("x", 1000))
		}})
	g.Wind(api, time.Minute)
	until(t, func() bool { return g.Look(api).Failed >= 3 })
	r := g.Look(api)
	g.Stop(api.Delivery, "")
	if !r.Unreached() || !strings.HasPrefix(r.Trouble, "connect: connection refused? xxx") || len(r.Trouble) > 210 || found.Load() < 2 {
		t.Errorf("got %+v, looked up %d times", r, found.Load())
	}
}

// A plugin that makes no load has no Generator.
func TestNone(t *testing.T) {
	var g *Generator
	g.Stop("shop/app", "")
	if g.Wind(api, time.Minute) != (Report{}) || g.Look(api) != (Report{}) {
		t.Error("it does something")
	}
}

func until(t *testing.T, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("not within 30 s")
		}
	}
}
