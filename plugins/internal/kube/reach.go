package kube

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// DialFunc is that of an http.Transport.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer finds Services by their names also where the cluster's DNS is not asked, on a node or outside:
// NAME.NAMESPACE, NAME.NAMESPACE.svc and what has more behind that are looked up in the API first, where
// the credentials allow it, and dialled by their cluster address. All else goes to next.
func (c *Client) Dialer(next DialFunc) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return next(ctx, network, address)
		}
		name, namespace, ok := serviceIn(host)
		if !ok {
			return next(ctx, network, address)
		}
		if at := c.ClusterIP(ctx, namespace, name); at != "" {
			address = net.JoinHostPort(at, port)
		}
		return next(ctx, network, address)
	}
}

// ClusterIP is the address of a Service; empty where there is none or it may not be known.
func (c *Client) ClusterIP(ctx context.Context, namespace, name string) string {
	o, err := c.Get(ctx, Services(), namespace, name)
	if err != nil {
		return ""
	}
	if at := o.Text("spec", "clusterIP"); net.ParseIP(at) != nil {
		return at
	}
	return ""
}

// serviceIn reads NAME.NAMESPACE and NAME.NAMESPACE.svc[.DOMAIN].
func serviceIn(host string) (name, namespace string, ok bool) {
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if net.ParseIP(host) != nil || len(parts) < 2 || len(parts) > 2 && parts[2] != "svc" || parts[0] == "" || parts[1] == "" {
		return "", "", false
	}
	return parts[0], parts[1], true
}

// Via is a client whose requests go through the API server to a Service's port, as kubectl proxy does:
// the URL of a request names the Service, as NAME.NAMESPACE…:PORT, and its path. What a Service answers
// and what the API server answers in its place look alike; the latter is a v1 Status.
func (c *Client) Via() http.RoundTripper { return proxied{c} }

type proxied struct{ client *Client }

func (p proxied) RoundTrip(r *http.Request) (*http.Response, error) {
	name, namespace, ok := serviceIn(r.URL.Hostname())
	if !ok {
		return nil, &net.DNSError{Err: "it is no name of a Service", Name: r.URL.Hostname(), IsNotFound: true}
	}
	a := p.client.current.Load()
	target := name + ":" + r.URL.Port()
	if r.URL.Scheme == "https" {
		target = "https:" + target
	}
	address, err := url.Parse(a.server + Services().Path(namespace, target, "proxy") + r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	address.RawQuery = r.URL.RawQuery
	out := r.Clone(r.Context())
	out.URL = address
	out.Host = ""
	out.Header.Del("Authorization") // the Service gets none: this one is the API server's
	a.authorise(out.Header)
	return a.http.Transport.RoundTrip(out)
}
