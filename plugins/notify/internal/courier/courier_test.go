package courier

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// script answers with one status after the other, the last for ever.
func script(t *testing.T, statuses ...int) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(asked.Add(1))
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "news" || r.Header.Get("X-Stamp") == "" || r.Header.Get("User-Agent") != "wheelwright-notify" {
			t.Errorf("attempt %d: %q %v %v", n, body, r.Header, err)
		}
		status := statuses[min(n, len(statuses))-1]
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "0")
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "answer\n%d to %s", status, r.URL.Path)
	}))
	t.Cleanup(server.Close)
	return server, &asked
}

func parcel(url string) Parcel {
	return Parcel{URL: url, Body: []byte("news"), Header: http.Header{"Content-Type": {"text/plain"}},
		Stamp: func(at time.Time, h http.Header) { h.Set("X-Stamp", at.String()) }}
}

func quick(t *testing.T, c Config) *Courier {
	t.Helper()
	c.PlainHTTP, c.Backoff = true, time.Millisecond
	courier, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return courier
}

func TestCarry(t *testing.T) {
	for _, test := range []struct {
		statuses []int
		attempts int64
		want     string // error; empty: taken
		final    bool
	}{
		{[]int{200}, 1, "", false},
		{[]int{202}, 1, "", false},
		{[]int{500, 502, 503, 504, 200}, 5, "", false},
		{[]int{429, 429, 204}, 3, "", false},
		{[]int{408, 200}, 2, "", false},
		{[]int{400}, 1, "answers 400 answer 400 to /T0/***", true},
		{[]int{404}, 1, "answers 404 answer 404 to /T0/***", true},
		{[]int{501}, 1, "answers 501", true},
		{[]int{503, 403, 200}, 2, "answers 403", true},
		{[]int{304}, 1, "answers 304", true},
	} {
		server, asked := script(t, test.statuses...)
		answer, err := quick(t, Config{Secrets: []string{"", "hunter2"}}).Carry(t.Context(), parcel(server.URL+"/T0/hunter2"))
		if asked.Load() != test.attempts || (err == nil) != (test.want == "") {
			t.Errorf("%v: %d attempts, %v", test.statuses, asked.Load(), err)
		}
		if err == nil {
			if len(answer) == 0 && test.statuses[len(test.statuses)-1] != http.StatusNoContent {
				t.Errorf("%v: nothing was answered", test.statuses)
			}
			continue
		}
		_, final := errors.AsType[*Refusal](err)
		if !strings.Contains(err.Error(), test.want) || final != test.final || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v, want %s", test.statuses, err, test.want)
		}
	}
}

// Why the last whole attempt failed is said, wherever the deadline falls: into a pause or into an attempt.
func TestGivesUpAtTheDeadline(t *testing.T) {
	answers := func(took time.Duration) roundTrip {
		return func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(took):
				return &http.Response{StatusCode: http.StatusInternalServerError, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("broken"))}, nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
	}
	for name, test := range map[string]struct {
		transport roundTrip
		deadline  time.Duration
		want      string
	}{
		"in a pause":    {answers(0), 10 * time.Second, "chat.example.com answers 500 broken (attempt "},
		"in an attempt": {answers(8 * time.Second), 10 * time.Second, "chat.example.com answers 500 broken (attempt 1; then context deadline exceeded)"},
		"in the first":  {answers(8 * time.Second), 5 * time.Second, "chat.example.com: no answer before the deadline (attempt 1; "},
		"nobody": {func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}, 10 * time.Second, "chat.example.com: dial tcp: connection refused (attempt "},
		"silent": {answers(time.Hour), 45 * time.Second, "chat.example.com: no answer within 10s (attempt "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := New(Config{Transport: test.transport})
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), test.deadline)
				defer cancel()
				_, err = c.Carry(ctx, parcel("https://chat.example.com/secret-path"))
				if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "secret-path") {
					t.Errorf("%v, want %s", err, test.want)
				}
				if took := time.Since(begin); took > test.deadline {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// So with real sockets: nobody at all, and somebody who never answers.
func TestOutOfReach(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer silent.Close()
	defer close(release)
	for url, want := range map[string]string{gone.URL: "connection refused", silent.URL: "no answer within 20ms"} {
		_, _, err := quick(t, Config{Attempt: 20 * time.Millisecond}).attempt(t.Context(), parcel(url+"/secret-path"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret-path") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A server that asks to be left alone is, and not past the deadline.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		var after []string
		c, err := New(Config{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			at = append(at, time.Since(begin))
			answer := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}
			if len(at) > len(after) {
				answer.StatusCode = http.StatusOK
			} else {
				answer.Header.Set("Retry-After", after[len(at)-1])
			}
			return answer, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		after = []string{"30", begin.Add(75 * time.Second).UTC().Format(http.TimeFormat), "", "soon"}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := c.Carry(ctx, Parcel{URL: "https://chat.example/x"}); err != nil {
			t.Fatal(err)
		}
		if at[1] != 30*time.Second || at[2] < 74*time.Second || at[2] > 75*time.Second || at[3]-at[2] > 2*time.Second || at[4]-at[3] > 4*time.Second {
			t.Errorf("asked at %v", at)
		}
		at, after = nil, []string{"3600"}
		begin = time.Now()
		_, err = c.Carry(ctx, Parcel{URL: "https://chat.example/x"})
		if err == nil || !strings.Contains(err.Error(), "the next would be in 1h0m0s, past the deadline") || time.Since(begin) > 0 {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		// Cancelled while it waits.
		at, after = nil, []string{"30"}
		soon, stop := context.WithCancel(ctx)
		time.AfterFunc(time.Second, stop)
		if _, err := c.Carry(soon, Parcel{URL: "https://chat.example/x"}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		// Without a deadline it is a minute.
		at, after = nil, []string{"59", "59"}
		if _, err := c.Carry(t.Context(), Parcel{URL: "https://chat.example/x"}); err == nil || len(at) != 2 {
			t.Errorf("%d attempts, %v", len(at), err)
		}
	})
}

func TestPause(t *testing.T) {
	for _, test := range []struct {
		attempt int
		random  float64
		want    time.Duration
	}{
		{1, 0, 250 * time.Millisecond}, {1, 1, 500 * time.Millisecond}, {2, 0, 500 * time.Millisecond}, {4, 0.5, 3 * time.Second},
		{9, 0, 5 * time.Second}, {15, 1, 10 * time.Second}, {1000, 1, 10 * time.Second},
	} {
		if got := pause(test.attempt, 500*time.Millisecond, test.random); got != test.want {
			t.Errorf("%d %v: %s, want %s", test.attempt, test.random, got, test.want)
		}
	}
}

func TestRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was told") }))
	defer other.Close()
	for _, test := range []struct {
		name string
		code int
		to   func(r *http.Request) string
		want string
	}{
		{"to another host", 307, func(*http.Request) string { return other.URL + "/take/hunter2" }, "redirects elsewhere, to " + other.URL + ": give"},
		{"to a page", 302, func(*http.Request) string { return "/login" }, "redirects in a way that loses the message"},
		{"in a circle", 308, func(r *http.Request) string { return r.URL.Path }, "redirects without end"},
		{"within", 308, func(*http.Request) string { return "/taken" }, ""},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/taken" {
				http.Redirect(w, r, test.to(r), test.code)
			} else if body, _ := io.ReadAll(r.Body); string(body) != "news" {
				t.Errorf("%s: %q arrived", test.name, body)
			}
		}))
		_, err := quick(t, Config{}).Carry(t.Context(), parcel(server.URL+"/hunter2"))
		_, final := errors.AsType[*Refusal](err)
		if (err == nil) != (test.want == "") || err != nil && (!final || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v", test.name, err)
		}
		server.Close()
	}
}

func TestPrivateCA(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	believed, err := New(Config{CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := believed.Carry(t.Context(), parcel(server.URL)); err != nil {
		t.Errorf("%v", err)
	}
	strange, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = strange.Carry(t.Context(), parcel(server.URL))
	if _, final := errors.AsType[*Refusal](err); !final || !strings.Contains(err.Error(), "failed to verify certificate") {
		t.Errorf("%v", err)
	}
	if _, err := New(Config{CA: []byte("hello")}); err == nil {
		t.Error("no certificate and no error")
	}
}

func TestAddresses(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"", "hunter2", "ftp://h/hunter2", "http://h/hunter2", "https:///hunter2", "https://[::1/hunter2"} {
		if _, err := c.Carry(t.Context(), Parcel{URL: address}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// A server that talks without end, or nonsense, costs no memory and breaks no line.
func TestLongAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		for range 400 {
			if _, err := fmt.Fprint(w, strings.Repeat("\x1b[31mé\xff\n", 4096)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	_, err := quick(t, Config{}).Carry(t.Context(), parcel(server.URL))
	refused, ok := errors.AsType[*Refusal](err)
	if !ok || len(refused.Body) > maxAnswer || len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x1b") || !utf8.ValidString(err.Error()) {
		t.Errorf("%d bytes, %.100q", len(refused.Body), err)
	}
}
