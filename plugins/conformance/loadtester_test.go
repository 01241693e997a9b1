package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// loadTester is Flagger's own, built from its module at the version that the harness pins, and running.
func loadTester(t *testing.T) string {
	t.Helper()
	path := controlplane.Built("loadtester")
	if path == "" {
		path = buildLoadTester(t)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(free.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, "-port", port, "-log-level", "error")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := "http://127.0.0.1:" + port
	for deadline := time.Now().Add(time.Minute); ; {
		response, err := http.Get(address + "/healthz")
		if err == nil {
			response.Body.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("the load tester does not answer: %v\n%s", err, log.String())
		}
	}
}

// buildLoadTester works in a copy of the harness's module, which pins the version and nothing else.
func buildLoadTester(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join("../../integration/controlplane/flagger", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(folder, "loadtester")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", path, "github.com/fluxcd/flagger/cmd/loadtester")
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build Flagger's load tester: %v\n%s", err, out)
	}
	return path
}

// The webhooks of a Canary that was written for Flagger find Flagger's load tester, and understand it.
func TestFlaggersLoadTester(t *testing.T) {
	if testing.Short() {
		t.Skip("builds Flagger's load tester")
	}
	address := loadTester(t)
	canary := func(smoke string) []byte {
		return fmt.Appendf(nil, `apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: backend, namespace: shop}
spec:
  analysis:
    webhooks:
    - {name: gate, type: confirm-rollout, url: "%[1]s/gate/check"}
    - {name: smoke, type: pre-rollout, url: "%[1]s/", timeout: 30s, metadata: {type: bash, cmd: "%[2]s"}}
    - {name: load, url: "%[1]s/", metadata: {type: cmd, cmd: "true", logCmdOutput: "true"}}
    - {name: more, type: confirm-traffic-increase, url: "%[1]s/gate/approve"}
    - {name: promote, type: confirm-promotion, url: "%[1]s/gate/halt"}
    - {name: after, type: post-rollout, url: "%[1]s/", metadata: {type: bash, cmd: "true"}}
    - {name: back, type: rollback, url: "%[1]s/rollback/check"}
`, address, smoke)
	}
	post := func(path string) {
		t.Helper()
		response, err := http.Post(address+path, "application/json", bytes.NewReader([]byte(`{"name": "backend", "namespace": "shop"}`)))
		if err != nil || response.StatusCode != http.StatusAccepted {
			t.Fatalf("%s: %v, %v", path, response, err)
		}
		response.Body.Close()
	}
	ask := func(m pluginv1.Moment, smoke string, outcome pluginv1.Outcome, reason string) {
		t.Helper()
		subject := &pluginv1.Subject{Distribution: "shop", Namespace: "shop", VersionFrom: "1.0.0", VersionTo: "1.1.0",
			Services: []*pluginv1.Service{{Name: "backend", Strategy: pluginv1.Strategy_STRATEGY_PROGRESSIVE, Declared: canary(smoke)}}}
		report, _ := run(t, plain(), &pluginv1.RunRequest{Subject: subject, Moment: m})
		wantVerdict(t, report, outcome, reason)
	}
	ask(pluginv1.Moment_MOMENT_ADMISSION, "true", unknown, "webhook backend/gate: waits for the gate gate: 127.0.0.1")
	post("/gate/open")
	ask(pluginv1.Moment_MOMENT_ADMISSION, "true", pass, "")
	post("/gate/close")
	ask(pluginv1.Moment_MOMENT_ADMISSION, "true", unknown, "answers 403 Forbidden")
	ask(pluginv1.Moment_MOMENT_BEFORE_TRAFFIC, "test -n home", pass, "")
	ask(pluginv1.Moment_MOMENT_BEFORE_TRAFFIC, "echo broken; exit 3", fail, "webhook backend/smoke: 127.0.0.1")
	ask(pluginv1.Moment_MOMENT_STEP, "true", pass, "")
	ask(pluginv1.Moment_MOMENT_BEFORE_INCREASE, "true", pass, "")
	ask(pluginv1.Moment_MOMENT_BEFORE_PROMOTION, "true", unknown, "waits for the gate promote")
	ask(pluginv1.Moment_MOMENT_AFTER_PROMOTION, "true", pass, "")
	ask(pluginv1.Moment_MOMENT_ROLLBACK, "true", pass, "")
	post("/rollback/open")
	ask(pluginv1.Moment_MOMENT_ROLLBACK, "true", fail, "the way back is asked for")
}
