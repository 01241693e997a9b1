package gitrepo

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

func environment() []string {
	return append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=v", "GIT_AUTHOR_EMAIL=v@example.com", "GIT_COMMITTER_NAME=v", "GIT_COMMITTER_EMAIL=v@example.com")
}

func runGit(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, environment()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

func shell(dir, line string) (string, error) {
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir, cmd.Env = dir, environment()
	out, err := cmd.Output()
	return string(out), err
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// vendor makes a work tree with dist/ and the tags 1.0.0 (annotated), 1.1.0 (annotated) and v1.2.0
// (lightweight).
func vendor(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vendor")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	runGit(t, dir, "init", "-q", "-b", "main")
	write(t, filepath.Join(dir, "README.md"), []byte("outside\n"))
	write(t, filepath.Join(dir, "dist/app/kustomization.yaml"), []byte("resources: [a.yaml]\n"))
	write(t, filepath.Join(dir, "dist/run.sh"), []byte("#!/bin/sh\n"))
	if err := os.Chmod(filepath.Join(dir, "dist/run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	release(t, dir, "1.0.0", "first\n")
	release(t, dir, "1.1.0", "second\n")
	write(t, filepath.Join(dir, "dist/app/a.yaml"), []byte("third\n"))
	runGit(t, dir, "add", "-A")
	runGit(t, dir, "commit", "-q", "-m", "third")
	runGit(t, dir, "tag", "v1.2.0")
	return dir
}

func release(t testing.TB, dir, tag, content string) {
	t.Helper()
	write(t, filepath.Join(dir, "dist/app/a.yaml"), []byte(content))
	runGit(t, dir, "add", "-A")
	runGit(t, dir, "commit", "-q", "--allow-empty", "-m", tag)
	runGit(t, dir, "tag", "-a", "-m", tag, tag)
}

// overHTTP serves the repositories below root with git's own server, and counts requests and bytes.
type overHTTP struct {
	*httptest.Server
	uploads, bytes atomic.Int64
	refuse         atomic.Bool
}

func (o *overHTTP) Write(n int) { o.bytes.Add(int64(n)) }

type counted struct {
	http.ResponseWriter
	count func(int)
}

func (c counted) Write(p []byte) (int, error) {
	c.count(len(p))
	return c.ResponseWriter.Write(p)
}

func serveHTTP(t testing.TB, root string) *overHTTP {
	t.Helper()
	o := overNothing(t, root)
	o.Start()
	return o
}

// serveHTTPS is serveHTTP with a certificate that no system trusts; its authority is in the file.
func serveHTTPS(t testing.TB, root string) (o *overHTTP, authorities string) {
	t.Helper()
	o = overNothing(t, root)
	o.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	o.StartTLS()
	authorities = filepath.Join(t.TempDir(), "authorities.pem")
	write(t, authorities, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw}))
	return o, authorities
}

func overNothing(t testing.TB, root string) *overHTTP {
	t.Helper()
	backend := filepath.Join(runGit(t, root, "--exec-path"), "git-http-backend")
	o := &overHTTP{}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, given := r.BasicAuth()
		switch {
		case o.refuse.Load():
			http.Error(w, "down for maintenance\nplease come back", http.StatusServiceUnavailable)
			return
		case strings.HasPrefix(r.URL.Path, "/private/") && (!given || user != "hub" || password != "secret"):
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodPost {
			o.uploads.Add(1)
		}
		r.URL.Path = strings.TrimPrefix(r.URL.Path, "/private")
		(&cgi.Handler{Path: backend, Root: "/", Env: append(environment(), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"), Stderr: io.Discard}).
			ServeHTTP(counted{w, o.Write}, r)
	}))
	t.Cleanup(o.Close)
	return o
}

// serveSSH serves git-upload-pack of any path to who holds the key; it returns the address and the files
// with the client's key and the server's known host.
func serveSSH(t *testing.T) (addr, key, knownHosts string) {
	t.Helper()
	dir := t.TempDir()
	_, hostKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(hostKey)
	if err != nil {
		t.Fatal(err)
	}
	userPub, userKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(userKey, "")
	if err != nil {
		t.Fatal(err)
	}
	key, knownHosts = filepath.Join(dir, "key"), filepath.Join(dir, "known_hosts")
	write(t, key, pem.EncodeToMemory(block))
	allowed, err := ssh.NewPublicKey(userPub)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(k.Marshal(), allowed.Marshal()) {
			return nil, os.ErrPermission
		}
		return nil, nil
	}}
	cfg.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	write(t, knownHosts, []byte("[127.0.0.1]:"+port+" "+string(ssh.MarshalAuthorizedKey(host.PublicKey()))))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { sshConnection(c, cfg) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String(), key, knownHosts
}

func sshConnection(c net.Conn, cfg *ssh.ServerConfig) {
	defer c.Close()
	conn, chans, reqs, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		for req := range reqs {
			if req.Type != "exec" {
				_ = req.Reply(false, nil)
				continue
			}
			_ = req.Reply(true, nil)
			cmd := exec.Command("sh", "-c", string(req.Payload[4:]))
			cmd.Env, cmd.Stdout, cmd.Stderr = environment(), ch, ch.Stderr()
			stdin, err := cmd.StdinPipe()
			if err != nil {
				return
			}
			go func() { // ends with the channel; the command does not wait for it
				_, _ = io.Copy(stdin, ch)
				stdin.Close()
			}()
			status := []byte{0, 0, 0, 0}
			if cmd.Run() != nil {
				status[3] = 128
			}
			_, _ = ch.SendRequest("exit-status", false, status)
			ch.Close()
		}
	}
}
