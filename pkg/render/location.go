package render

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// location is a repository's address with everything taken away that may differ between two spellings
// of the same: scheme, user, default port, ".git", slashes.
type location struct {
	host     string // lower case; empty for a local path
	segments []string
}

var (
	schemes    = []string{"ssh://", "https://", "http://", "file://", "git://", "git+ssh://"}
	userPrefix = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*@`)
)

// cutScheme takes "git::", which kustomize ignores, and the scheme off, in whatever case.
func cutScheme(s string) (scheme, rest string) {
	if len(s) >= 5 && strings.EqualFold(s[:5], "git::") {
		s = s[5:]
	}
	for _, p := range schemes {
		if len(s) >= len(p) && strings.EqualFold(s[:len(p)], p) {
			return p, s[len(p):]
		}
	}
	return "", s
}

func standardGitHub(s string) bool {
	s = strings.ToLower(s)
	return strings.HasPrefix(s, "github.com/") || strings.HasPrefix(s, "github.com:")
}

// remote tells whether kustomize would take an entry of "resources" for something to fetch: a URL of
// some scheme, user@host:path, or the bare "github.com/…". The rule is that of kustomize's
// api/internal/git/repospec.go, made wider: any scheme counts.
func remote(ref string) bool {
	scheme, rest := cutScheme(ref)
	return scheme != "" || rest != ref || strings.Contains(ref, "://") || userPrefix.MatchString(rest) || standardGitHub(rest)
}

// locate reads an address as git and kustomize write them, without its query.
func locate(address string) location {
	address, _, _ = strings.Cut(strings.TrimSpace(address), "?")
	scheme, rest := cutScheme(address)
	if scheme == "file://" || (scheme == "" && strings.HasPrefix(rest, "/")) {
		return location{segments: split(rest)}
	}
	authority, _, _ := strings.Cut(rest, "/")
	user := strings.LastIndex(authority, "@")
	if user >= 0 {
		rest = rest[user+1:]
	}
	slash, colon := strings.Index(rest, "/"), strings.Index(rest, ":")
	if scheme == "" && colon > 0 && (slash < 0 || colon < slash) { // host:path
		return location{host: strings.ToLower(rest[:colon]), segments: split(rest[colon+1:])}
	}
	host, p, _ := strings.Cut(rest, "/")
	host = strings.ToLower(host)
	for prefix, port := range map[string]string{"https://": ":443", "http://": ":80", "ssh://": ":22", "git+ssh://": ":22"} {
		if scheme == prefix {
			host = strings.TrimSuffix(host, port)
		}
	}
	return location{host: host, segments: split(p)}
}

func split(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(s string) bool { return s == "" || s == "." })
}

// below returns what of base lies below the repository, where it does.
func (base location) below(repo location) (rest []string, ok bool) {
	n := len(repo.segments)
	if base.host != repo.host || len(base.segments) < n || n == 0 {
		return nil, false
	}
	for i := range n {
		b, r := base.segments[i], repo.segments[i]
		if i == n-1 {
			b, r = strings.TrimSuffix(b, ".git"), strings.TrimSuffix(r, ".git")
		}
		if b != r && !(base.host == "github.com" && strings.EqualFold(b, r)) {
			return nil, false
		}
	}
	return base.segments[n:], true
}

// base is an entry of "resources" that names the distribution.
type base struct {
	Folder string // in the release, clean; "." for its root
	Ref    string
}

// matchBase compares an entry with the distribution's addresses. sameRepository without ok: the entry
// names another folder of the repository than the release's.
func matchBase(ref string, urls []string, bundlePath string) (b base, ok, sameRepository bool) {
	at := locate(ref)
	for _, u := range urls {
		rest, found := at.below(locate(u))
		if !found || slices.Contains(rest, "..") {
			continue
		}
		sameRepository = true
		own := split(bundlePath)
		if len(rest) < len(own) || !slices.Equal(rest[:len(own)], own) {
			continue
		}
		return base{Folder: path.Clean(strings.Join(rest[len(own):], "/")), Ref: refOf(ref)}, true, true
	}
	return base{}, false, sameRepository
}

// refOf reads the query as kustomize does: ref, else version.
func refOf(address string) string {
	_, query, _ := strings.Cut(address, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return ""
	}
	if r := values.Get("ref"); r != "" {
		return r
	}
	return values.Get("version")
}
