package main

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/plugintest"
)

// The built program keeps the contract of plugins, for a chat and for a commit's status.
func TestContract(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and runs it many times")
	}
	path := filepath.Join(t.TempDir(), "notify")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	for kind, args := range map[string][]string{
		"slack":  {"slack", "--url-from", "ADDRESS", "--plain-http"},
		"github": {"github", "--token-from", "ADDRESS", "--api", server.URL, "--plain-http"},
	} {
		t.Run(kind, func(t *testing.T) {
			plugintest.Run(t, plugintest.Config{Path: path, Args: args, Env: []string{"ADDRESS=" + server.URL}})
		})
	}
}
