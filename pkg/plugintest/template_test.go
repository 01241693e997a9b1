package plugintest_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/wheelwright-dev/wheelwright/pkg/plugintest"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// template builds the template in Python, as its author would.
func template(t *testing.T) string {
	t.Helper()
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
	return path
}

// TestTheTemplate: a plugin in another language keeps the contract, whatever its probes come to.
func TestTheTemplate(t *testing.T) {
	path := template(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	for name, args := range map[string][]string{"passes": {server.URL + "/"}, "fails": {server.URL + "/broken"}, "cannot know": {"http://127.0.0.1:1/"}, "has no test": nil} {
		t.Run(name, func(t *testing.T) { plugintest.Run(t, plugintest.Config{Path: path, Args: args}) })
	}
}

// TestTheContractHasNoOthersTypes: the messages are the project's own and the well-known ones.
func TestTheContractHasNoOthersTypes(t *testing.T) {
	for _, file := range []protoreflect.FileDescriptor{
		pluginv1.File_wheelwright_plugin_v1_plugin_proto, pluginv1.File_wheelwright_plugin_v1_conformance_proto,
		pluginv1.File_wheelwright_plugin_v1_canary_proto, pluginv1.File_wheelwright_plugin_v1_notifier_proto,
	} {
		for i := range file.Imports().Len() {
			switch path := file.Imports().Get(i).Path(); path {
			case "google/protobuf/duration.proto", "google/protobuf/timestamp.proto", "wheelwright/plugin/v1/plugin.proto":
			default:
				t.Errorf("%s imports %s", file.Path(), path)
			}
		}
	}
}
