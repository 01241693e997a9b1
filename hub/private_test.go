package hub

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// TestAPrivateRepository is reached by what hub.yaml says, when it is added and when it is polled; a
// hub.yaml whose files are not there does not start.
func TestAPrivateRepository(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.0", "example.com/backend:1.0.0")
	core, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(core)), "git-http-backend"), Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(v.dir), "GIT_HTTP_EXPORT_ALL=1"}, Stderr: io.Discard}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "hub" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is meant to fail
	server.StartTLS()
	t.Cleanup(server.Close)
	url := server.URL + "/" + filepath.Base(v.dir)
	add := &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: url, IntervalSeconds: 1}}

	stranger := start(t, Config{Dir: t.TempDir()})
	if _, err := stranger.fleet.AddDistribution(t.Context(), add); err == nil || !strings.Contains(err.Error(), "authorities") {
		t.Errorf("without an entry: %v", err)
	}
	stranger.stop()

	dir := t.TempDir()
	file := filepath.Join(dir, "hub.yaml")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("hub.yaml", fmt.Sprintf("version: 1\ngit:\n- {url: %q, username: hub, passwordFile: token, authorities: authorities.pem}\n", server.URL))
	if err := Run(t.Context(), Config{Dir: filepath.Join(dir, "data"), File: file, Listen: "127.0.0.1:0"}, nil); err == nil ||
		!strings.Contains(err.Error(), "git[0].passwordFile: ") || !strings.Contains(err.Error(), "git[0].authorities: ") {
		t.Errorf("files that are not there: %v", err)
	}
	write("token", "secret\n")
	write("authorities.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	hub := start(t, Config{Dir: filepath.Join(dir, "data"), File: file})
	if _, err := hub.fleet.AddDistribution(t.Context(), add); err != nil {
		t.Fatal(err)
	}
	if r := hub.release(t, "1.0.0"); r.GetPhase() != "Available" {
		t.Errorf("got %v", r)
	}
}
