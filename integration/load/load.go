// Package load sends requests at a constant rate, as users do who do not wait for each other, and counts by the
// second what they got. It is bounded in time and in requests under way, and ends by itself.
package load

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config says what is sent. URL and Rate are needed.
type Config struct {
	URL      string
	Rate     int           // requests per second
	Duration time.Duration // it ends after that; zero: ten minutes
	Method   string        // empty: GET
	Body     string
	Header   http.Header
	Timeout  time.Duration // of one request; zero: five seconds
	// Failed tells from an answer of 200 to 399 whether it is a failure all the same; nil: it is none.
	Failed func(status int, body []byte) bool
	// Transport, nil: one that makes a connection for each request, so that kube-proxy chooses anew each time.
	Transport http.RoundTripper
}

// Run is a load under way, or ended.
type Run struct {
	config Config
	client *http.Client
	cancel context.CancelFunc
	done   chan struct{}
	begin  time.Time

	mu        sync.Mutex
	underWay  int
	seconds   map[int]*Second
	outcomes  map[string]int
	latencies []time.Duration
}

// Second is what happened to the requests that began in one second of a run.
type Second struct {
	At           time.Duration // since the run's begin
	Sent, Failed int
}

// Report is what a run has counted.
type Report struct {
	Begin        time.Time
	Sent, Failed int            // requests that have ended
	Outcomes     map[string]int // by status ("200"), or "timeout", "error", "overload" (too many under way: not sent), "content"
	Seconds      []Second       // in order, those without requests left out
	Median, P99  time.Duration  // of those that were answered
}

// Start begins to send. Cancelling ctx ends the run as Stop does.
func Start(ctx context.Context, c Config) (*Run, error) {
	if c.URL == "" || c.Rate <= 0 {
		return nil, fmt.Errorf("start a load on %q at %d requests a second: both are needed", c.URL, c.Rate)
	}
	c.Duration, c.Timeout, c.Method = cmp.Or(c.Duration, 10*time.Minute), cmp.Or(c.Timeout, 5*time.Second), cmp.Or(c.Method, http.MethodGet)
	if c.Transport == nil {
		c.Transport = &http.Transport{DisableKeepAlives: true}
	}
	if _, err := http.NewRequest(c.Method, c.URL, nil); err != nil {
		return nil, fmt.Errorf("start a load: %w", err)
	}
	r := &Run{config: c, done: make(chan struct{}), begin: time.Now(), seconds: map[int]*Second{}, outcomes: map[string]int{},
		client: &http.Client{Transport: c.Transport, Timeout: c.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	ctx, r.cancel = context.WithTimeout(ctx, c.Duration)
	go r.send(ctx)
	return r, nil
}

// send starts each request at its moment, whatever became of those before.
func (r *Run) send(ctx context.Context) {
	defer close(r.done)
	defer r.cancel()
	var wait sync.WaitGroup
	defer wait.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	limit := max(int(r.config.Timeout.Seconds()+1)*r.config.Rate, 1) // as many as can be under way if none is answered
	for i := 0; ; i++ {
		// Each has its own moment: a machine that was busy for a while makes up for it.
		moment := time.Duration(i) * time.Second / time.Duration(r.config.Rate)
		if moment >= r.config.Duration {
			return
		}
		timer.Reset(time.Until(r.begin.Add(moment)))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begin := time.Now()
		r.mu.Lock()
		full := r.underWay >= limit
		if !full {
			r.underWay++
		}
		r.mu.Unlock()
		if full {
			r.count(begin, "overload", true, 0)
			continue
		}
		// Requests under way at the end are answered, and counted: the run's end must not look like failures.
		wait.Go(func() {
			outcome, failed := r.one(context.WithoutCancel(ctx))
			r.count(begin, outcome, failed, time.Since(begin))
			r.mu.Lock()
			r.underWay--
			r.mu.Unlock()
		})
	}
}

func (r *Run) one(ctx context.Context) (outcome string, failed bool) {
	request, err := http.NewRequestWithContext(ctx, r.config.Method, r.config.URL, bytes.NewReader([]byte(r.config.Body)))
	if err != nil {
		return "error", true
	}
	if r.config.Header != nil {
		request.Header = r.config.Header.Clone()
	}
	request.Host = request.Header.Get("Host")
	response, err := r.client.Do(request)
	if err != nil {
		return failure(err), true
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	switch {
	case err != nil:
		return failure(err), true
	case response.StatusCode >= 400:
		return strconv.Itoa(response.StatusCode), true
	case r.config.Failed != nil && r.config.Failed(response.StatusCode, body):
		return "content", true
	}
	return strconv.Itoa(response.StatusCode), false
}

func failure(err error) string {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "timeout"
	}
	return "error"
}

func (r *Run) count(begin time.Time, outcome string, failed bool, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := int(begin.Sub(r.begin) / time.Second)
	if r.seconds[i] == nil {
		r.seconds[i] = &Second{At: time.Duration(i) * time.Second}
	}
	r.seconds[i].Sent++
	r.outcomes[outcome]++
	if failed {
		r.seconds[i].Failed++
	}
	if _, err := strconv.Atoi(outcome); err == nil {
		r.latencies = append(r.latencies, took)
	}
}

// Stop ends the run, waits for the requests under way, and reports.
func (r *Run) Stop() Report {
	r.cancel()
	return r.Wait()
}

// Wait waits for the run's own end and reports.
func (r *Run) Wait() Report {
	<-r.done
	return r.Report()
}

// Report is what was counted so far.
func (r *Run) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := Report{Begin: r.begin, Outcomes: map[string]int{}}
	for outcome, n := range r.outcomes {
		out.Outcomes[outcome] = n
	}
	for _, s := range r.seconds {
		out.Seconds = append(out.Seconds, *s)
		out.Sent += s.Sent
		out.Failed += s.Failed
	}
	slices.SortFunc(out.Seconds, func(a, b Second) int { return cmp.Compare(a.At, b.At) })
	if sorted := slices.Sorted(slices.Values(r.latencies)); len(sorted) > 0 {
		out.Median, out.P99 = sorted[len(sorted)/2], sorted[len(sorted)*99/100]
	}
	return out
}

// FailedShare is the share of failed requests, 0 to 1; 0 where none was sent.
func (r Report) FailedShare() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Failed) / float64(r.Sent)
}

// Between counts the requests that began from one moment to before another, to the second.
func (r Report) Between(from, to time.Time) (sent, failed int) {
	for _, s := range r.Seconds {
		if at := r.Begin.Add(s.At); !at.Before(from) && at.Before(to) {
			sent, failed = sent+s.Sent, failed+s.Failed
		}
	}
	return sent, failed
}

func (r Report) String() string {
	text := fmt.Sprintf("%d requests, %d failed (%.2f %%), %v, median %v, 99 %% %v", r.Sent, r.Failed, 100*r.FailedShare(), r.Outcomes,
		r.Median.Round(time.Millisecond), r.P99.Round(time.Millisecond))
	var failed []string
	for _, s := range r.Seconds {
		if s.Failed > 0 {
			failed = append(failed, fmt.Sprintf("%d of %d at %v", s.Failed, s.Sent, s.At))
		}
	}
	if len(failed) > 20 {
		failed = append(failed[:20], "…")
	}
	if len(failed) > 0 {
		text += "; failed " + strings.Join(failed, ", ")
	}
	return text
}
