package local

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
)

type agent struct{ manifest []byte }

func (agent) Installations() ([]fleet.Installation, error) {
	return []fleet.Installation{{Distribution: "shop", Running: "1.0.0", Phase: fleet.Succeeded, Health: fleet.Healthy}}, nil
}

func (a agent) Render(_ context.Context, distribution, version string) ([]byte, error) {
	if distribution != "shop" {
		return nil, errors.New("distribution \"" + distribution + "\": not in spoke.yaml")
	}
	return append([]byte("# "+version+"\n"), a.manifest...), nil
}

type away struct{}

func (away) Connected() bool        { return false }
func (away) LastContact() time.Time { return time.Unix(5, 0) }

func serve(t *testing.T, dir string, manifest []byte) (stop func()) {
	t.Helper()
	s := New(Config{Dir: dir, Agent: agent{manifest}, Hub: away{}, Log: slog.New(slog.DiscardHandler),
		Identity: func() (Identity, error) { return Identity{Cluster: "acme/eu-1", Addr: "hub:7443"}, nil }})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	deadline := time.After(10 * time.Second)
	for {
		c, err := Dial(ctx, dir)
		if err == nil {
			c.Close()
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-deadline:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestAsk(t *testing.T) {
	for name, dir := range map[string]string{"short": t.TempDir(), "long": filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, Socket)
			if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
				t.Errorf("got %v", err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil { // what a killed spoke leaves
				t.Fatal(err)
			}
			stop := serve(t, dir, bytes.Repeat([]byte("x"), 10<<20))
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v %v", info.Mode(), err)
			}
			c, err := Dial(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r, err := c.Status(t.Context())
			if err != nil || r.GetCluster() != "acme/eu-1" || !r.GetRunning() || r.GetConnected() || !wire.FromTime(r.GetLastContact()).Equal(time.Unix(5, 0)) ||
				len(r.GetSubscriptions()) != 1 || r.GetSubscriptions()[0].GetRunningVersion() != "1.0.0" {
				t.Errorf("%v %v", r, err)
			}
			m, err := c.Render(t.Context(), "shop", "1.0.0")
			if err != nil || len(m.GetManifest()) != 10<<20+8 || !strings.HasPrefix(m.GetDigest(), "sha256:") {
				t.Errorf("%d bytes, %v", len(m.GetManifest()), err)
			}
			if _, err := c.Render(t.Context(), "mail", ""); err == nil || err.Error() != `distribution "mail": not in spoke.yaml` {
				t.Errorf("got %v", err)
			}
			stop()
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
		})
	}
}

// No goroutine is left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
