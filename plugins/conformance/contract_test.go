package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/plugintest"
)

// build makes the program as an operator has it.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "conformance")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// The built program keeps the contract of plugins.
func TestContract(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and runs it many times")
	}
	plugintest.Run(t, plugintest.Config{Path: build(t), Args: []string{"--job-timeout", "1m"}})
}
