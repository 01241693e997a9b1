package hubclient

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/token"
)

func TestJoin(t *testing.T) {
	h := newHub(t).start()
	dir := filepath.Join(t.TempDir(), "new", "data")
	log := slog.New(slog.DiscardHandler)
	tok := h.invite()
	cfg := JoinConfig{Addr: h.addr, Token: tok, Dir: dir, Log: log}
	id, err := Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if id.Cluster != "acme/eu-1" || id.Addr != h.addr || id.NotAfter.Before(id.NotBefore) {
		t.Errorf("got %+v", id)
	}
	if m := mode(t, filepath.Join(dir, IdentityFile)); m != 0o600 {
		t.Errorf("mode %v", m)
	}
	if m := mode(t, dir); m != 0o700 {
		t.Errorf("mode %v of the folder", m)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("in the folder: %v %v", files, err)
	}

	before, err := os.ReadFile(filepath.Join(dir, IdentityFile))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Token = h.invite()
	if _, err := Join(t.Context(), cfg); !errors.Is(err, ErrJoined) || !strings.Contains(err.Error(), "acme/eu-1") || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a second time: %v", err)
	}
	used := cfg
	used.Token, used.Force = tok, true
	if _, err := Join(t.Context(), used); err == nil || !strings.Contains(err.Error(), "used already") || !strings.Contains(err.Error(), "hub cluster invite") {
		t.Errorf("a used token: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, IdentityFile)); err != nil || string(after) != string(before) {
		t.Error("a join that failed changed the identity")
	}
	cfg.Force = true
	if _, err := Join(t.Context(), cfg); err != nil {
		t.Errorf("with force: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, IdentityFile)); err != nil || string(after) == string(before) {
		t.Error("with force: the identity is the old one")
	}
}

func TestJoinRefuses(t *testing.T) {
	h := newHub(t).start()
	elsewhere := newHub(t)
	elsewhere.hosts = []string{"hub.example.com"}
	elsewhere.start()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	good := h.invite()
	other := token.New(pinOf(newAuthority(t).cert))
	for _, c := range []struct {
		name, addr, token string
		is                error
		says              []string
	}{
		{"an unknown token", h.addr, token.New(pinOf(h.ca.cert)).String(), nil, []string{"not known", "hub cluster invite"}},
		{"another authority", h.addr, other.String(), ErrWrongAuthority, []string{other.Pin[:12], "nothing was sent", "do not go on"}},
		{"another name", elsewhere.addr, elsewhere.invite(), nil, []string{"not for 127.0.0.1 but for hub.example.com", "--advertise"}},
		{"nobody there", closed.Addr().String(), good, nil, []string{closed.Addr().String(), "refused", "hub serve", "not spent"}},
		{"a damaged token", h.addr, good[:len(good)-3], nil, []string{"join token", "copy the whole line"}},
		{"no port", "hub.example.com", good, nil, []string{"HOST:PORT"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := Join(t.Context(), JoinConfig{Addr: c.addr, Token: c.token, Dir: dir, Log: slog.New(slog.DiscardHandler)})
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("got %v", err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%v: does not say %q", err, s)
				}
			}
			if strings.Contains(err.Error(), "rpc error") || len(good) > 60 && strings.Contains(err.Error(), good[30:60]) {
				t.Errorf("%v", err)
			}
			if files, _ := os.ReadDir(dir); len(files) != 0 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
	if h.issued != 0 {
		t.Error("a certificate was issued")
	}
}

func TestAnIdentityThatIsNone(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	path := filepath.Join(s.dir, IdentityFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := joined(t, h)
	foreign, err := os.ReadFile(filepath.Join(other.dir, IdentityFile))
	if err != nil {
		t.Fatal(err)
	}
	key := func(b []byte) string {
		_, after, _ := strings.Cut(string(b), `"key": "`)
		k, _, _ := strings.Cut(after, `"`)
		return k
	}
	for name, text := range map[string]string{
		"cut":       string(whole[:len(whole)/2]),
		"empty":     "",
		"newer":     strings.Replace(string(whole), `"schema": 1`, `"schema": 2`, 1),
		"other key": strings.Replace(string(whole), key(whole), key(foreign), 1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(s.dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--force") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Config{Dir: t.TempDir()}); !errors.Is(err, ErrNotJoined) || !strings.Contains(err.Error(), "spoke join") {
		t.Errorf("got %v", err)
	}
}
