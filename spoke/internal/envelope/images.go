package envelope

import (
	"fmt"
	"regexp"
	"strings"
)

// Short names mean Docker Hub, as the container runtimes take them (github.com/distribution/reference).
const (
	defaultHost = "docker.io"
	oldHost     = "index.docker.io"
	ownFolder   = "library"
)

var (
	hostName   = regexp.MustCompile(`^([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(\.([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(:[0-9]{1,5})?$|^\[[a-fA-F0-9:]+\](:[0-9]{1,5})?$`)
	repository = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagName    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	digestName = regexp.MustCompile(`^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$`)
	imageID    = regexp.MustCompile(`^[a-f0-9]{64}$`)
)

// image is a reference with nothing left out.
type image struct {
	host, path  string // docker.io, library/nginx
	tag, digest string
}

func (i image) String() string { return i.host + "/" + i.path }

// parseImage reads a reference as a container runtime does. What one of them might read otherwise is an error.
func parseImage(text string) (image, error) {
	bad := fmt.Errorf("%q is no image reference: want HOST/PATH with a tag or a digest", text)
	rest := text
	var i image
	if name, digest, has := strings.Cut(rest, "@"); has {
		if !digestName.MatchString(digest) {
			return i, bad
		}
		rest, i.digest = name, digest
	}
	if colon := strings.LastIndex(rest, ":"); colon > strings.LastIndex(rest, "/") {
		if !tagName.MatchString(rest[colon+1:]) {
			return i, bad
		}
		rest, i.tag = rest[:colon], rest[colon+1:]
	}
	if i.host, i.path = split(rest); !hostName.MatchString(i.host) || !repository.MatchString(i.path) || imageID.MatchString(rest) {
		return i, bad
	}
	return i, nil
}

// split tells host from path; the first element is a host where it looks like no folder.
func split(name string) (host, path string) {
	first, rest, more := strings.Cut(name, "/")
	if !more || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		host, path = defaultHost, name
	} else {
		host, path = strings.ToLower(first), rest
	}
	if host == oldHost {
		host = defaultHost
	}
	if host == defaultHost && !strings.Contains(path, "/") {
		path = ownFolder + "/" + path
	}
	return host, path
}

// Registry is a host and perhaps the first elements of a path: registry.example.com:5000/acme.
type Registry string

// ParseRegistry reads one; docker.io is Docker Hub, and docker.io/library its own images.
func ParseRegistry(text string) (Registry, error) {
	host, path, more := strings.Cut(strings.TrimSuffix(text, "/"), "/")
	if host = strings.ToLower(host); host == oldHost {
		host = defaultHost
	}
	if !hostName.MatchString(host) || !strings.ContainsAny(host, ".:") && host != "localhost" || more && !repository.MatchString(path) {
		return "", fmt.Errorf("%q: want a host, and perhaps the beginning of a path by whole elements, such as registry.example.com/acme or docker.io/library; without a tag", text)
	}
	if more {
		host += "/" + path
	}
	return Registry(host), nil
}

func (r Registry) holds(i image) bool {
	return strings.HasPrefix(i.String()+"/", string(r)+"/")
}
