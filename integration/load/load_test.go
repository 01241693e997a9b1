package load_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/load"
)

// answering is a transport: what a server would do, without one, so that time can be a bubble's.
type answering func(*http.Request) (*http.Response, error)

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) { return a(r) }

func answer(code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}
}

func TestConstantRateCountedBySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		run, err := load.Start(t.Context(), load.Config{URL: "http://web/", Rate: 20, Duration: 10 * time.Second,
			Transport: answering(func(*http.Request) (*http.Response, error) {
				time.Sleep(700 * time.Millisecond) // slow answers do not slow the rate down
				switch s := time.Since(begin); {
				case s > 4*time.Second && s < 5*time.Second:
					return nil, errors.New("connection refused")
				case s > 6*time.Second && s < 7*time.Second:
					return answer(503, ""), nil
				case s > 8*time.Second && s < 8500*time.Millisecond:
					return answer(200, "backend call failed"), nil
				}
				return answer(200, "fine"), nil
			}),
			Failed: func(_ int, body []byte) bool { return strings.Contains(string(body), "failed") }})
		if err != nil {
			t.Fatal(err)
		}
		report := run.Wait()
		if report.Sent < 198 || report.Sent > 200 {
			t.Errorf("%d requests in 10 s at 20/s", report.Sent)
		}
		if o := report.Outcomes; o["error"] < 18 || o["503"] < 18 || o["content"] < 9 || report.Failed != o["error"]+o["503"]+o["content"] {
			t.Errorf("outcomes %v, %d failed", o, report.Failed)
		}
		if report.Median != 700*time.Millisecond {
			t.Errorf("median %v", report.Median)
		}
		if _, failed := report.Between(begin, begin.Add(3*time.Second)); failed != 0 {
			t.Errorf("%d failed before anything went wrong", failed)
		}
		if sent, failed := report.Between(begin.Add(3*time.Second), begin.Add(5*time.Second)); sent != 40 || failed < 18 || failed > 20 {
			t.Errorf("of %d requests around the refusals %d failed", sent, failed)
		}
	})
}

func TestStopWaitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int32
		run, err := load.Start(t.Context(), load.Config{URL: "http://web/", Rate: 10, Transport: answering(func(*http.Request) (*http.Response, error) {
			open.Add(1)
			defer open.Add(-1)
			time.Sleep(2 * time.Second)
			return answer(200, ""), nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		report := run.Stop()
		if open.Load() != 0 || report.Failed != 0 || report.Sent < 29 {
			t.Errorf("%d still open; %v", open.Load(), report)
		}
	})
}

func TestTimeoutsAreFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, err := load.Start(t.Context(), load.Config{URL: "http://web/", Rate: 5, Duration: 30 * time.Second, Timeout: 2 * time.Second,
			Transport: answering(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})})
		if err != nil {
			t.Fatal(err)
		}
		report := run.Wait()
		if report.Failed != report.Sent || report.Outcomes["timeout"] != report.Sent || report.FailedShare() != 1 {
			t.Error(report)
		}
	})
}

func TestRequestsUnderWayAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		run, err := load.Start(t.Context(), load.Config{URL: "http://web/", Rate: 5, Duration: 30 * time.Second, Timeout: 2 * time.Second,
			Transport: answering(func(*http.Request) (*http.Response, error) {
				<-stuck // a transport that does not heed its timeout
				return nil, context.DeadlineExceeded
			})})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		close(stuck)
		report := run.Wait()
		if under := report.Sent - report.Outcomes["overload"]; under != 15 {
			t.Errorf("%d were under way at once, want 3 s of 5/s; %v", under, report)
		}
	})
}

func TestBadConfig(t *testing.T) {
	for _, c := range []load.Config{{URL: "http://web/"}, {Rate: 1}, {URL: "://", Rate: 1}} {
		if _, err := load.Start(t.Context(), c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
