package cli

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// output is what a command has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) await(t *testing.T, word string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		o.mu.Lock()
		text := o.text.String()
		o.mu.Unlock()
		if strings.Contains(text, word) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %q in:\n%s", word, text)
		}
	}
}

// serve runs a hub until stop is called.
func serve(t *testing.T, cfg hub.Config) (info hub.Info, stop func()) {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan hub.Info, 1), make(chan error, 1)
	go func() { done <- hub.Run(ctx, cfg, func(i hub.Info) { ready <- i }) }()
	select {
	case info = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return info, stop
}

func TestAWatchOutlivesARestartOfTheHub(t *testing.T) {
	cfg := hub.Config{Dir: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0"}
	info, stop := serve(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errOut output
	a := &app{out: &out, err: &errOut, contextFile: info.AdminContext, timeout: 20 * time.Second, now: time.Now}
	p := &printer.Printer{Out: &out, Format: "table"}
	watched := make(chan error, 1)
	go func() {
		watched <- a.watch(ctx, p, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			answer, err := listClusters(ctx, hub, a, nil, false)
			if err != nil {
				return err
			}
			return p.Print(answer)
		})
	}()
	out.await(t, "No clusters")
	stop()
	errOut.await(t, "waiting")
	cfg.Listen = info.Addr
	serve(t, cfg)
	if code, _, said := run(t, "cluster", "invite", "acme/eu-1", "--context", info.AdminContext); code != exitcode.OK {
		t.Fatal(said)
	}
	out.await(t, "acme/eu-1")
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}
