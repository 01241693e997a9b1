// Package load asks candidates that nobody uses, so that there is something to measure. It is wound up like
// a clock: whoever misses requests gives a Target another span, and what is not wound up again runs out by
// itself. Nothing depends on what it remembers: a process that begins anew makes load when it is wound up
// next.
//
// It judges nobody. What becomes of a request counts where requests are measured, and the Report is for
// people: how many there were, and whether any was answered at all.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// Slowest and Fastest bound Config.Rate: a request in ten seconds tells something, and more than a hundred
	// a second is a load test, which a release brings itself.
	Slowest, Fastest = 0.1, 100

	mostAtOnce = 16              // requests to one target; a slow one is asked less often
	patience   = 5 * time.Second // for one request
	mostRead   = 256 << 10       // of an answer
	mostHeader = 64 << 10
)

// Config is how load is made.
type Config struct {
	Rate  float64 // requests a second for each target
	Agent string  // names who asks
	Log   *slog.Logger
	// Find tells the address of a target's Service; nil, or an empty answer: its name is looked up.
	Find func(context.Context, Target) string
	// Dial is that of an http.Transport; nil: a net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Target is a candidate in one step of a delivery.
type Target struct {
	Delivery           string // whose it is; all of a delivery stops together
	Step               string // what is made in one step is not told in another
	Namespace, Service string // the candidate's Service
	Known              string // the Service's name that users call; goes into the Host header
	Port               int
	Path               string // begins with /, a query may follow
}

func host(service, namespace string, port int) string {
	name := service + "." + namespace + ".svc"
	if port == 80 {
		return name
	}
	return net.JoinHostPort(name, strconv.Itoa(port))
}

// URL is what is asked.
func (t Target) URL() string {
	return "http://" + host(t.Service, t.Namespace, t.Port) + t.Path
}

// Report is what has been done to a target in its step, by this process.
type Report struct {
	Sent     uint64
	Answered uint64 // whatever the answer
	Failed   uint64 // without one
	Trouble  string // of the last one that failed, in one line
}

// Unreached tells whether requests came back and none with an answer.
func (r Report) Unreached() bool { return r.Answered == 0 && r.Failed > 0 }

// Generator makes load. Its methods are safe for several goroutines; a nil one makes none.
type Generator struct {
	config Config
	mu     sync.Mutex
	runs   map[Target]*run
}

// run is the load on one target; the Generator's lock guards it.
type run struct {
	Report
	until   time.Time
	running bool
	stopped chan struct{} // closed by Stop
}

// New makes a Generator that does nothing yet.
func New(c Config) *Generator {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	return &Generator{config: c, runs: map[Target]*run{}}
}

// Wind keeps load on the target for another span from now, and says how it is so far. It does not wait. A step
// of the same delivery that was loaded before is stopped.
func (g *Generator) Wind(t Target, span time.Duration) Report {
	if g == nil {
		return Report{}
	}
	g.Stop(t.Delivery, t.Step)
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.runs[t]
	if r == nil {
		r = &run{stopped: make(chan struct{})}
		g.runs[t] = r
		g.config.Log.Info("generating load: nobody else asks the candidate", slog.String("url", t.URL()), slog.Float64("requests_per_second", g.config.Rate), slog.String("step", t.Step))
	}
	r.until = time.Now().Add(span)
	if !r.running {
		r.running = true
		go g.drive(t, r)
	}
	return r.Report
}

// Look says how the load on a target is so far.
func (g *Generator) Look(t Target) Report {
	if g == nil {
		return Report{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.runs[t]; r != nil {
		return r.Report
	}
	return Report{}
}

// Stop ends the load of a delivery, but for that of the step to keep; empty: all of it. No request begins
// after it. The few that have begun come to their own end: cut off, they would be counted as failures.
func (g *Generator) Stop(delivery, keep string) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for t, r := range g.runs {
		if t.Delivery == delivery && (keep == "" || t.Step != keep) {
			close(r.stopped)
			delete(g.runs, t)
			g.config.Log.Info("no more load is generated", slog.String("url", t.URL()), slog.String("step", t.Step),
				slog.Uint64("sent", r.Sent), slog.Uint64("answered", r.Answered))
		}
	}
}

// begin counts another request, if it may begin.
func (g *Generator) begin(t Target, r *run) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runs[t] != r {
		return false
	}
	if !time.Now().Before(r.until) {
		r.running = false // under the lock: who winds it up now starts it anew
		return false
	}
	r.Sent++
	return true
}

// drive asks until the time is over or it is stopped.
func (g *Generator) drive(t Target, r *run) {
	client := g.client(t)
	defer client.CloseIdleConnections()
	tick := time.NewTicker(time.Duration(float64(time.Second) / g.config.Rate))
	defer tick.Stop()
	turns := make(chan struct{}, mostAtOnce)
	var wait sync.WaitGroup
	defer wait.Wait()
	for {
		select {
		case turns <- struct{}{}:
			if !g.begin(t, r) {
				return
			}
			wait.Go(func() {
				defer func() { <-turns }()
				g.finish(r, ask(client, t, g.config.Agent))
			})
		default: // as many as may be are under way
		}
		select {
		case <-tick.C:
		case <-r.stopped:
			return
		}
	}
}

func (g *Generator) finish(r *run, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		r.Answered++
		return
	}
	r.Failed++
	r.Trouble = trouble(err)
}

// client dials anew for every request, so that all pods of a candidate get some. Where its Service is, is asked
// once, and again where nobody is there.
func (g *Generator) client(t Target) *http.Client {
	var mu sync.Mutex
	found := ""
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		if found == "" && g.config.Find != nil {
			found = g.config.Find(ctx, t)
		}
		if found != "" {
			address = net.JoinHostPort(found, strconv.Itoa(t.Port))
		}
		mu.Unlock()
		conn, err := g.config.Dial(ctx, network, address)
		if err != nil {
			mu.Lock()
			found = ""
			mu.Unlock()
		}
		return conn, err
	}
	return &http.Client{
		Timeout:       patience,
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: mostHeader},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends one request; any answer will do.
func ask(client *http.Client, t Target, agent string) error {
	r, err := http.NewRequest(http.MethodGet, t.URL(), nil)
	if err != nil {
		return err
	}
	r.Host = host(t.Known, t.Namespace, t.Port)
	r.Header.Set("User-Agent", agent)
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, mostRead)) // an answer is one, however it ends
	return nil
}

// trouble is an error in one line, without the URL, which is told beside it.
func trouble(err error) string {
	if outer, ok := errors.AsType[*url.Error](err); ok {
		if err = outer.Err; outer.Timeout() {
			err = fmt.Errorf("no answer within %s", patience)
		}
	}
	text := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "?")), " ")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}
