package overlay_test

import (
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

// TestPrivateRepository: git's own server, behind a password and a certificate that only the entry names.
func TestPrivateRepository(t *testing.T) {
	root, files := t.TempDir(), t.TempDir()
	repo := filepath.Join(root, "platform")
	write(t, repo, map[string]string{"app/kustomization.yaml": base})
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "add", "-A")
	git(t, repo, "commit", "-q", "-m", "one")
	backend := &cgi.Handler{Path: filepath.Join(git(t, repo, "--exec-path"), "git-http-backend"), Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}, Stderr: io.Discard}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "spoke" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is meant to fail
	server.StartTLS()
	t.Cleanup(server.Close)
	write(t, files, map[string]string{"token": "secret\n",
		"authorities.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))})

	src := overlay.Source{Git: server.URL + "/platform", Path: "app", Revision: "main"}
	if _, err := newLoader(t, src, t.TempDir()).Load(t.Context()); !errors.Is(err, overlay.ErrUnreachable) {
		t.Errorf("without an entry: %v", err)
	}
	src.Access = gitrepo.Credential{URL: server.URL, Username: "spoke", PasswordFile: filepath.Join(files, "token"), Authorities: filepath.Join(files, "authorities.pem")}
	if o := load(t, newLoader(t, src, t.TempDir())); len(o.Files) != 1 || o.Revision != git(t, repo, "rev-parse", "HEAD") {
		t.Errorf("got %v at %s", paths(o), o.Revision)
	}
}
