package spoke_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

// A plugin with the wrong sum keeps the release waiting and says what to do; with the right one, and no
// restart, it gets an account of its own, proves the release and hears of it.
func TestASpokeWithAPlugin(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	ns := c.NewNamespace(t)
	program := filepath.Join(t.TempDir(), "smoke")
	build := exec.Command("go", "build", "-o", program, "./internal/agent/testdata/plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	leaks := goleak.IgnoreCurrent()
	log := logger(t)
	h := newHub(t)
	h.offer(t, "1.0.0")
	dir, notes := joined(t, h, log), t.TempDir()
	file := filepath.Join(t.TempDir(), "spoke.yaml")
	settings := func(sum string) string {
		return fmt.Sprintf(`version: 1
kubeconfig: %s
plugins:
- name: smoke
  path: %s
  sha256: %s
  kinds: [conformance, notifier]
  args: [%s]
  permissions: {namespace: %s, rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]}
subscriptions:
- {distribution: shop, variant: app, namespace: %s}
`, c.Kubeconfig, program, sum, notes, ns, ns)
	}
	write(t, file, settings(strings.Repeat("0", 64)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- spoke.Run(ctx, spoke.Config{Dir: dir, File: file, Log: log}, nil) }()
	is := func(what string, check func(*syncv1.SubscriptionStatus) bool) {
		t.Helper()
		c.Eventually(t, what, func() error {
			client, err := local.Dial(t.Context(), dir)
			if err != nil {
				return err
			}
			defer client.Close()
			s, err := client.Status(t.Context())
			if err != nil || len(s.GetSubscriptions()) != 1 || !check(s.GetSubscriptions()[0]) {
				return fmt.Errorf("status: %v %w", s, err)
			}
			return nil
		})
	}
	is("it waits for its provider", func(s *syncv1.SubscriptionStatus) bool {
		return s.GetPhase() == string(fleet.AwaitingConfig) && strings.Contains(s.GetReason(), "`sha256sum "+program+"`")
	})
	write(t, file, settings(fmt.Sprintf("%x", sha256.Sum256(text))))
	is("it succeeds", func(s *syncv1.SubscriptionStatus) bool {
		return s.GetPhase() == string(fleet.Succeeded) && s.GetRunningVersion() == "1.0.0"
	})
	for _, name := range []string{"runs", "events"} {
		c.Eventually(t, "the plugin is asked", func() error {
			text, err := os.ReadFile(filepath.Join(notes, name))
			if err == nil && strings.Count(string(text), "\n") != 1 {
				err = fmt.Errorf("%s: %s", name, text)
			}
			return err
		})
	}
	if out, err := c.Kubectl("-n", ns, "get", "serviceaccount,role,rolebinding", "wheelwright-plugin-smoke", "-o", "name"); err != nil || strings.Count(out, "\n") != 3 {
		t.Errorf("its account: %s %v", out, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.stop()
	goleak.VerifyNone(t, leaks)
}
