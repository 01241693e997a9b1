package gitrepo

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
)

// Credential is how the repositories at one host, or below one URL, are reached. It names files and
// holds no secret; the files are read anew at each connection, so that they may be renewed in place.
type Credential struct {
	URL          string // HOST or HOST:PORT, for https and ssh; or the beginning of https, http, ssh and scp-like URLs
	SSHKey       string // file with a private key
	KnownHosts   string // file, as ssh has it
	Username     string // https; empty: the URL's, else "git"
	PasswordFile string // password or token for https, passphrase for SSHKey
	Authorities  string // file with certificates in PEM, for https, believed beside the system's
}

// Credentials are tried by URL; the zero value has none.
type Credentials []Credential

// CredentialProblem is one thing wrong with an entry.
type CredentialProblem struct {
	Index   int    // of the entry
	Key     string // such as "sshKey"
	Message string
}

// CredentialKeys are the names that a Credential's fields have in configuration files.
func CredentialKeys() []string {
	return []string{"url", "sshKey", "knownHosts", "username", "passwordFile", "authorities"}
}

// Field is the field of a key of CredentialKeys, and whether it is a file's name; nil for any other key.
func (c *Credential) Field(key string) (field *string, file bool) {
	switch key {
	case "url":
		return &c.URL, false
	case "sshKey":
		return &c.SSHKey, true
	case "knownHosts":
		return &c.KnownHosts, true
	case "username":
		return &c.Username, false
	case "passwordFile":
		return &c.PasswordFile, true
	case "authorities":
		return &c.Authorities, true
	}
	return nil, false
}

// For returns the entry with the longest URL that rawURL begins with, by whole path elements; the zero
// Credential where there is none. A host alone is never used for http, which would show the password.
func (c Credentials) For(rawURL string) Credential {
	at, err := placeOf(rawURL)
	if err != nil {
		return Credential{}
	}
	var best Credential
	var bestPlace place
	for _, entry := range c {
		p, err := prefixOf(entry.URL)
		if err != nil || !p.holds(at) || best.URL != "" && p.compare(bestPlace) <= 0 {
			continue
		}
		best, bestPlace = entry, p
	}
	return best
}

// With is the Config with a Credential's files.
func (c Config) With(cr Credential) Config {
	c.SSHKey, c.KnownHosts, c.Username, c.PasswordFile, c.Authorities = cr.SSHKey, cr.KnownHosts, cr.Username, cr.PasswordFile, cr.Authorities
	return c
}

// place is a URL in the form in which URLs are compared. In a prefix, zero fields fit anything.
type place struct {
	scheme, user, host string
	port               int
	path               string // clean, "" for the root, without .git
}

var hostOnly = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?$`)

// prefixOf reads an entry's url.
func prefixOf(raw string) (place, error) {
	if m := hostOnly.FindStringSubmatch(raw); m != nil {
		port, _ := strconv.Atoi(m[2]) // digits or nothing
		return place{host: strings.ToLower(m[1]), port: port}, nil
	}
	p, err := placeOf(raw)
	if err != nil {
		return place{}, err
	}
	if ep, err := transport.NewEndpoint(raw); err == nil && ep.User == "" {
		p.user = ""
	}
	return p, nil
}

func placeOf(raw string) (place, error) {
	ep, err := transport.NewEndpoint(raw)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold a password
		}
		return place{}, err
	}
	scheme := strings.ToLower(ep.Protocol)
	port, known := map[string]int{"https": 443, "http": 80, "ssh": 22}[scheme]
	if !known || ep.Host == "" {
		return place{}, errors.New("no https, http or ssh URL")
	}
	p := place{scheme: scheme, user: ep.User, host: strings.ToLower(ep.Host), port: cmp.Or(ep.Port, port)}
	if scheme == "ssh" {
		p.user = cmp.Or(p.user, gitssh.DefaultUsername)
	}
	clean, _, _ := strings.Cut(ep.Path, "?")
	p.path = strings.TrimSuffix(path.Clean("/"+clean), ".git")
	if p.path == "/" {
		p.path = ""
	}
	return p, nil
}

// holds reports whether at lies below p.
func (p place) holds(at place) bool {
	switch {
	case p.host != at.host, p.port != 0 && p.port != at.port, p.user != "" && p.user != at.user:
		return false
	case p.scheme == "" && at.scheme == "http", p.scheme != "" && p.scheme != at.scheme:
		return false
	}
	return p.path == "" || p.path == at.path || strings.HasPrefix(at.path, p.path+"/")
}

// compare says which of two prefixes of the same URL says more of it.
func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(len(p.path), len(q.path)), cmp.Compare(len(p.scheme), len(q.scheme)),
		cmp.Compare(len(p.user), len(q.user)), cmp.Compare(p.port, q.port))
}

// Check reads every file and reports all that is wrong, without quoting what files hold.
func (c Credentials) Check() []CredentialProblem {
	var all []CredentialProblem
	seen := map[place]int{}
	for i, entry := range c {
		problem := func(key, format string, args ...any) {
			all = append(all, CredentialProblem{i, key, fmt.Sprintf(format, args...)})
		}
		p, err := prefixOf(entry.URL)
		switch first, twice := seen[p]; {
		case entry.URL == "":
			problem("url", "missing: want a host, or how the repositories' URLs begin, such as https://git.example.com/team")
		case err != nil:
			problem("url", "%q: want HOST, https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH", redact(entry.URL))
		case hasPassword(entry.URL):
			problem("url", "%q holds a password: put it into a file and name that with passwordFile", redact(entry.URL))
		case twice:
			problem("url", "%q is the same place as that of entry %d", entry.URL, first)
		default:
			seen[p] = i
		}
		entry.check(p.scheme, problem)
	}
	return all
}

func hasPassword(raw string) bool {
	ep, err := transport.NewEndpoint(raw)
	return err == nil && ep.Password != ""
}

func (c Credential) check(scheme string, problem func(key, format string, args ...any)) {
	web, shell := scheme == "https" || scheme == "http", scheme == "ssh"
	for _, key := range CredentialKeys() {
		field, _ := c.Field(key)
		switch {
		case *field == "":
		case web && (key == "sshKey" || key == "knownHosts"):
			problem(key, "is for ssh, and the url is of %s", scheme)
		case shell && (key == "username" || key == "authorities"), scheme == "http" && key == "authorities":
			problem(key, "is for https, and the url is of %s", scheme)
		}
	}
	switch {
	case c.SSHKey+c.KnownHosts+c.Username+c.PasswordFile+c.Authorities == "":
		problem("url", "comes with nothing: add sshKey, knownHosts, passwordFile or authorities")
	case c.Username != "" && c.PasswordFile == "":
		problem("username", "has no password: add passwordFile")
	case shell && c.PasswordFile != "" && c.SSHKey == "":
		problem("passwordFile", "is the passphrase of a key: add sshKey (ssh takes no password)")
	}
	for _, check := range []struct {
		key, file string
		check     func() error
	}{
		{"passwordFile", c.PasswordFile, func() error { _, err := readPassword(c.PasswordFile); return err }},
		{"sshKey", c.SSHKey, c.checkKey},
		{"knownHosts", c.KnownHosts, c.checkKnownHosts},
		{"authorities", c.Authorities, func() error { _, err := readAuthorities(c.Authorities); return err }},
	} {
		if check.file == "" {
			continue
		}
		if err := check.check(); err != nil {
			problem(check.key, "%v", err)
		}
	}
}

func (c Credential) checkKey() error {
	data, err := readSmall(c.SSHKey)
	if err != nil {
		return err
	}
	_, err = ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked) && c.PasswordFile == "":
		return fmt.Errorf("%s has a passphrase: name a file with it as passwordFile", c.SSHKey)
	case errors.As(err, &locked):
		password, err := readPassword(c.PasswordFile)
		if err != nil {
			return nil // said of passwordFile
		}
		if _, err := ssh.ParsePrivateKeyWithPassphrase(data, []byte(password)); err != nil {
			return fmt.Errorf("%s does not open with the passphrase of passwordFile", c.SSHKey)
		}
	case err != nil:
		return fmt.Errorf("%s holds no private key; make one with: ssh-keygen -t ed25519 -f %s", c.SSHKey, c.SSHKey)
	}
	return nil
}

func (c Credential) checkKnownHosts() error {
	if _, err := readSmall(c.KnownHosts); err != nil {
		return err
	}
	_, err := gitssh.NewKnownHostsDb(c.KnownHosts)
	return err
}

// readSmall reads a file that a person named: the wrong one may be large, or endless.
func readSmall(file string) ([]byte, error) {
	const most = 1 << 20
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s: want a file of at most 1 MiB", file)
	}
	return os.ReadFile(file)
}

func readPassword(file string) (string, error) {
	data, err := readSmall(file)
	if err != nil {
		return "", err
	}
	if data = bytes.TrimRight(data, "\r\n"); len(data) == 0 {
		return "", fmt.Errorf("%s is empty", file)
	}
	if slices.Contains(data, '\n') {
		return "", fmt.Errorf("%s has more than one line", file)
	}
	return string(data), nil
}

func readAuthorities(file string) ([]byte, error) {
	data, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return data, nil
}
