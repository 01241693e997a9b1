package agent

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Memory is given back when nothing was done for a while, the start included, and now and then from there on.
func TestMemoryIsGivenBackAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a := &Agent{cfg: Config{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, busy: make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { defer close(over); a.rest(ctx) }()
		after := func(d time.Duration, want int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if n := strings.Count(log.String(), "memory is given back"); n != want {
				t.Errorf("given back %d times, want %d: %s", n, want, &log)
			}
		}
		after(quiet-time.Second, 0)
		a.worked() // a delivery
		a.worked() // and a pre-flight
		after(quiet-time.Second, 0)
		after(2*time.Second, 1)
		after(rested-3*time.Second, 1)
		a.worked()
		after(quiet-time.Second, 1)
		after(2*time.Second, 2)
		after(rested, 3)
		cancel()
		<-over
	})
}
