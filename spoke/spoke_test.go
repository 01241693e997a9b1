package spoke_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/spoke"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

func TestMain(m *testing.M) {
	if render.ChildMain() || pluginhost.ChildMain() {
		return
	}
	harness.Main(m)
}

// logs are printed when a test fails.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func logger(t *testing.T) *slog.Logger {
	l := &logs{}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.Failed() {
			t.Log(l.b.String())
		}
	})
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// joined makes a data folder that belongs to a hub.
func joined(t *testing.T, h *hub, log *slog.Logger) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := hubclient.Join(t.Context(), hubclient.JoinConfig{Addr: h.addr, Token: h.invite(), Dir: dir, Log: log}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestASpokeTakesWhatItsHubOffers(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	ns := c.NewNamespace(t)
	leaks := goleak.IgnoreCurrent()
	log := logger(t)
	h := newHub(t)
	h.offer(t, "1.0.0")
	dir := joined(t, h, log)
	file := write(t, filepath.Join(t.TempDir(), "spoke.yaml"),
		fmt.Sprintf("version: 1\nkubeconfig: %s\nsubscriptions:\n- {distribution: shop, variant: app, namespace: %s}\n", c.Kubeconfig, ns))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done, ready := make(chan error, 1), make(chan spoke.Info, 1)
	go func() {
		done <- spoke.Run(ctx, spoke.Config{Dir: dir, File: file, Log: log}, func(i spoke.Info) { ready <- i })
	}()
	select {
	case i := <-ready:
		if i.Cluster != "acme/eu-1" || i.Hub != h.addr || i.Subscriptions != 1 {
			t.Errorf("info: %+v", i)
		}
	case err := <-done:
		t.Fatal(err)
	}
	c.Eventually(t, "the hub hears of success", func() error {
		if s := h.last("shop"); s.GetPhase() != string(fleet.Succeeded) || s.GetRunningVersion() != "1.0.0" {
			return fmt.Errorf("it last heard of %v", s)
		}
		return nil
	})
	if hello := h.hello(); hello.GetKubernetesVersion() == "" || len(hello.GetSubscriptions()) != 1 {
		t.Errorf("hello: %v", hello)
	}
	if out, err := c.Kubectl("-n", ns, "get", "configmap", "settings", "-o", "jsonpath={.data.release}"); err != nil || out != "1.0.0" {
		t.Errorf("on the cluster: %q %v", out, err)
	}
	askLocally(t, dir)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.stop()
	goleak.VerifyNone(t, leaks)
}

func askLocally(t *testing.T, dir string) {
	t.Helper()
	client, err := local.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	status, err := client.Status(t.Context())
	if err != nil || len(status.GetSubscriptions()) != 1 || status.GetSubscriptions()[0].GetRunningVersion() != "1.0.0" || !status.GetConnected() {
		t.Errorf("status: %v %v", status, err)
	}
	r, err := client.Render(t.Context(), "shop", "")
	if err != nil || !strings.Contains(string(r.GetManifest()), "name: settings") {
		t.Errorf("render: %v %v", r, err)
	}
}

func TestASpokeRunsWithHubAndClusterAway(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	log := logger(t)
	h := newHub(t)
	dir := joined(t, h, log)
	h.stop()
	kubeconfig := write(t, filepath.Join(dir, "kubeconfig"), "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: \"https://127.0.0.1:1\"}}]\n")
	file := write(t, filepath.Join(dir, "spoke.yaml"), "version: 1\nkubeconfig: "+kubeconfig+"\nsubscriptions:\n- {distribution: shop, variant: app, namespace: shop}\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done, ready := make(chan error, 1), make(chan struct{})
	go func() {
		done <- spoke.Run(ctx, spoke.Config{Dir: dir, File: file, Log: log}, func(spoke.Info) { close(ready) })
	}()
	<-ready
	eventually(t, "it says what is wrong", func() error {
		client, err := local.Dial(t.Context(), dir)
		if err != nil {
			return err
		}
		defer client.Close()
		status, err := client.Status(t.Context())
		if err != nil {
			return err
		}
		if s := status.GetSubscriptions(); len(s) != 1 || s[0].GetReason() == "" || status.GetConnected() {
			return fmt.Errorf("status: %v", status)
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, leaks)
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestWhatASpokeCannotStartWith(t *testing.T) {
	log := logger(t)
	h := newHub(t)
	defer h.stop()
	good := "version: 1\nsubscriptions: []\n"
	for _, c := range []struct {
		name   string
		dir    func(t *testing.T) string
		yaml   string
		is     error
		saying string
	}{
		{"no data folder", func(*testing.T) string { return "" }, good, nil, "--data"},
		{"not joined", func(t *testing.T) string { return t.TempDir() }, good, hubclient.ErrNotJoined, "spoke join"},
		{"unknown key", func(t *testing.T) string { return joined(t, h, log) }, good + "subscriptoins: []\n", nil, "subscriptoins"},
		{"locked", func(t *testing.T) string {
			dir := joined(t, h, log)
			j, err := journal.Open(filepath.Join(dir, "journal.db"), log)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { j.Close() })
			return dir
		}, good, journal.ErrLocked, "journal.db"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := write(t, filepath.Join(t.TempDir(), "spoke.yaml"), c.yaml)
			err := spoke.Run(t.Context(), spoke.Config{Dir: c.dir(t), File: file, Log: log}, func(spoke.Info) { t.Error("it runs") })
			if err == nil || !strings.Contains(err.Error(), c.saying) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error: %v", err)
			}
		})
	}
}
