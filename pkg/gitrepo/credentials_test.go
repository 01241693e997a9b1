package gitrepo

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestTheLongestURLWins(t *testing.T) {
	c := Credentials{}
	for _, url := range []string{"git.example.com", "git.example.com:2222", "https://git.example.com/", "https://git.example.com/team", "https://git.example.com/team/app.git",
		"ssh://git@ssh.example.com", "ssh://ssh.example.com:2222/", "deploy@ssh.example.com:team", "http://plain.example.com", "https://me@user.example.com", "[2001:db8::1]"} {
		c = append(c, Credential{URL: url, Username: url})
	}
	for url, want := range map[string]string{
		"https://git.example.com/other/app":           "https://git.example.com/",
		"https://git.example.com/team":                "https://git.example.com/team",
		"https://GIT.example.com:443/team/x.git":      "https://git.example.com/team",
		"https://git.example.com/teamwork/x":          "https://git.example.com/",
		"https://git.example.com/team/../other/x":     "https://git.example.com/",
		"https://git.example.com/team/app":            "https://git.example.com/team/app.git",
		"https://git.example.com/team/app/":           "https://git.example.com/team/app.git",
		"https://git.example.com:8443/team/app":       "git.example.com",
		"git@git.example.com:team/app.git":            "git.example.com",
		"ssh://git@git.example.com:2222/team/app":     "git.example.com:2222",
		"http://git.example.com/team/app":             "",
		"https://git.example.com.evil.example/team/x": "",
		"https://git.example.com@evil.example/team/x": "",
		"git@ssh.example.com:app":                     "ssh://git@ssh.example.com",
		"ssh.example.com:app":                         "ssh://git@ssh.example.com",
		"ssh://ssh.example.com/app":                   "ssh://git@ssh.example.com",
		"ssh://root@ssh.example.com/app":              "",
		"ssh://root@ssh.example.com:2222/app":         "ssh://ssh.example.com:2222/",
		"deploy@ssh.example.com:team/app":             "deploy@ssh.example.com:team",
		"ssh://deploy@ssh.example.com/team/app.git":   "deploy@ssh.example.com:team",
		"deploy@ssh.example.com:other":                "",
		"http://plain.example.com/app":                "http://plain.example.com",
		"https://plain.example.com/app":               "",
		"https://user.example.com/app":                "",
		"https://me@user.example.com/app":             "https://me@user.example.com",
		"ssh://[2001:db8::1]:22/app":                  "[2001:db8::1]",
		"/srv/git.example.com/app":                    "",
		"git.example.com":                             "", // a folder
		"file:///srv/app":                             "",
	} {
		if got := c.For(url).Username; got != want {
			t.Errorf("%s: got entry %q, want %q", url, got, want)
		}
	}
}

func TestCheckSaysAllAtOnceAndQuotesNothing(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		write(t, path, []byte(content))
		return path
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	open, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	closed, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("sesame"))
	if err != nil {
		t.Fatal(err)
	}
	key, locked := file("key", string(pem.EncodeToMemory(open))), file("locked", string(pem.EncodeToMemory(closed)))
	sesame, wrong, empty, lines := file("sesame", "sesame\r\n"), file("wrong", "hushhush"), file("empty", "\n"), file("lines", "hushhush\nhushhush\n")
	hosts, noPEM := file("hosts", "git.example.com "+string(ssh.MarshalAuthorizedKey(sshPublic(t, private)))), file("no.pem", "hushhush")
	_, authorities := serveHTTPS(t, dir)
	good := Credentials{
		{URL: "git.example.com", SSHKey: key, KnownHosts: hosts, Username: "me", PasswordFile: sesame, Authorities: authorities},
		{URL: "ssh://git@git.example.com", SSHKey: locked, PasswordFile: sesame},
		{URL: "https://git.example.com/team", PasswordFile: sesame},
		{URL: "http://git.example.com", PasswordFile: sesame},
	}
	if got := good.Check(); len(got) > 0 {
		t.Errorf("got %v", got)
	}
	bad := Credentials{
		{URL: "", SSHKey: key},
		{URL: "ftp://x/y", SSHKey: key},
		{URL: "https://me:hushhush@git.example.com", PasswordFile: sesame},
		{URL: "https://a.example.com/x", SSHKey: key, KnownHosts: hosts},
		{URL: "https://A.example.com:443/x.git/", Username: "me"},
		{URL: "git@b.example.com:x", Username: "me", PasswordFile: sesame, Authorities: authorities},
		{URL: "c.example.com"},
		{URL: "d.example.com", SSHKey: locked},
		{URL: "e.example.com", SSHKey: locked, PasswordFile: wrong},
		{URL: "f.example.com", SSHKey: wrong, KnownHosts: wrong, Authorities: noPEM},
		{URL: "g.example.com", SSHKey: dir, KnownHosts: filepath.Join(dir, "none"), PasswordFile: empty, Authorities: "/dev/zero"},
		{URL: "h.example.com", PasswordFile: lines},
		{URL: "http://i.example.com", PasswordFile: sesame, Authorities: authorities},
	}
	var got []string
	for _, p := range bad.Check() {
		if strings.Contains(p.Message, "hushhush") || strings.Contains(p.Message, "sesame") && !strings.Contains(p.Message, sesame) {
			t.Errorf("a secret is quoted: %s", p.Message)
		}
		got = append(got, fmt.Sprintf("%d %s", p.Index, p.Key))
	}
	want := []string{"0 url", "1 url", "2 url", "3 sshKey", "3 knownHosts", "4 url", "4 username", "5 username", "5 authorities", "5 passwordFile", "6 url", "7 sshKey", "8 sshKey",
		"9 sshKey", "9 knownHosts", "9 authorities", "10 passwordFile", "10 sshKey", "10 knownHosts", "10 authorities", "11 passwordFile", "12 authorities"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func sshPublic(t *testing.T, private ed25519.PrivateKey) ssh.PublicKey {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer.PublicKey()
}

// TestPrivateAuthority: without the authority nothing is sent, and files are read when they are used.
func TestPrivateAuthority(t *testing.T) {
	dir := vendor(t)
	web, authorities := serveHTTPS(t, filepath.Dir(dir))
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, []byte("wrong"))
	all := Credentials{{URL: strings.TrimPrefix(web.URL, "https://"), Username: "hub", PasswordFile: password, Authorities: authorities}}
	url := web.URL + "/private/vendor"

	_, err := open(t, Config{URL: url, Dir: t.TempDir()}).Tags(context.Background())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "authorities") {
		t.Errorf("without authorities: %v", err)
	}
	r := open(t, Config{URL: url, Dir: t.TempDir()}.With(all.For(url)))
	_, err = r.Tags(context.Background())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "passwordFile") {
		t.Errorf("wrong password: %v", err)
	}
	write(t, password, []byte("secret"))
	if s := snapshot(t, r, "1.1.0", "dist"); len(s.Files) != 3 {
		t.Errorf("got %d files", len(s.Files))
	}
	write(t, authorities, nil)
	if _, err = r.Tags(context.Background()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), authorities) {
		t.Errorf("authorities that went: %v", err)
	}
}

// TestARedirectTakesNoPassword: not at once and not with the connections that follow.
func TestARedirectTakesNoPassword(t *testing.T) {
	dir := vendor(t)
	web := serveHTTP(t, filepath.Dir(dir))
	told := make(chan string, 100)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); ok {
			told <- password
		}
		web.Config.Handler.ServeHTTP(w, r)
	}))
	defer elsewhere.Close()
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)+r.URL.String(), http.StatusFound)
	}))
	defer front.Close()
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, []byte("secret"))
	r := open(t, Config{URL: front.URL + "/vendor", Dir: t.TempDir(), Username: "hub", PasswordFile: password})
	tagNames(t, r)
	snapshot(t, r, "1.1.0", "dist")
	if len(told) > 0 {
		t.Errorf("the redirect's target was told %q", <-told)
	}
}
