package hub

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestWatchersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watching, watched, forgotten := map[string]int{}, 0, []string{}
		steps := make(chan func())
		do := func(f func()) { steps <- f }
		go func() {
			for f := range steps {
				f()
			}
		}()
		w := &watchers{log: slog.New(slog.DiscardHandler), commands: make(chan watchCommand), over: make(chan struct{}),
			watch: func(ctx context.Context, d fleet.Distribution) error {
				do(func() { watching[d.Name]++; watched++ })
				defer do(func() { watching[d.Name]-- })
				if d.URL == "broken" {
					return errors.New("disk full")
				}
				<-ctx.Done()
				time.Sleep(time.Second) // it takes its time to end
				return nil
			},
			forget: func(d fleet.Distribution) { do(func() { forgotten = append(forgotten, d.Name) }) },
		}
		check := func(name string, want int) {
			t.Helper()
			synctest.Wait()
			do(func() {
				if watching[name] != want {
					t.Errorf("%s is watched %d times, want %d", name, watching[name], want)
				}
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() { over <- w.Run(ctx, []fleet.Distribution{{Name: "shop"}}) }()
		check("shop", 1)
		w.Start(fleet.Distribution{Name: "web"})
		check("web", 1)
		w.Stop("unknown")
		w.Stop("shop")
		w.Start(fleet.Distribution{Name: "shop"}) // waits for the one before
		check("shop", 1)
		time.Sleep(2 * time.Second)
		check("shop", 1)
		do(func() {
			if len(forgotten) != 1 || watched != 3 {
				t.Errorf("forgotten %v, watched %d", forgotten, watched)
			}
		})
		w.Start(fleet.Distribution{Name: "bad", URL: "broken"})
		time.Sleep(watchRetry + time.Second)
		check("bad", 0)
		do(func() {
			if watched != 5 {
				t.Errorf("a watcher that fails was begun %d times, want 2", watched-3)
			}
		})
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		check("shop", 0)
		check("web", 0)
		w.Start(fleet.Distribution{Name: "late"}) // after the end: nothing
		check("late", 0)
		do(func() {
			if len(forgotten) != 1 {
				t.Errorf("the end of the hub forgot %v", forgotten)
			}
		})
		close(steps)
	})
}
