//go:build linux

package pluginhost

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// TestAScript: a plugin that begins with #! is read by its interpreter out of the hashed copy as well.
func TestAScript(t *testing.T) {
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import grpc, cryptography, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("the template needs Python's gRPC (apt-get install python3-grpcio python3-protobuf python3-cryptography): %v %s", err, out)
	}
	path := filepath.Join(t.TempDir(), "template-python")
	build := exec.Command("../../plugins/template-python/build.sh", path)
	build.Env = append(os.Environ(), "PYTHON="+python)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	sum, err := sumOf(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, without := range []bool{false, true} {
		h, log := host(t, Config{WithoutNamespaces: without, Plugins: []Plugin{{
			Name: "template", Path: path, SHA256: sum, Args: []string{"http://127.0.0.1:1/"}, Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CONFORMANCE},
		}}})
		c, err := h.Conformance("template")
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Run(t.Context(), &pluginv1.RunRequest{Call: &pluginv1.Call{Id: "1"}, Subject: subject, Moment: pluginv1.Moment_MOMENT_BEFORE_TRAFFIC}, nil)
		if err != nil || r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE || r.GetInconclusive() != 1 {
			t.Fatalf("got %v, %v\n%s", r, err, log)
		}
		log.await(t, "line=ran")
	}
}
