package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/plugintest"
)

// The built program keeps the contract of plugins: without a cluster, and with one that has nothing.
func TestContract(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and runs it many times")
	}
	path := filepath.Join(t.TempDir(), "canary")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) }))
	defer empty.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\nclusters: [{name: c, cluster: {server: \"" + empty.URL + "\"}}]\n"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string][]string{"without a cluster": nil, "with an empty one": {"KUBECONFIG=" + kubeconfig}} {
		t.Run(name, func(t *testing.T) { plugintest.Run(t, plugintest.Config{Path: path, Env: env}) })
	}
}
