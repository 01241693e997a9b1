// Package gateway is a stand-in for an implementation of the Gateway API, which cannot be built from Go modules alone: it follows
// the HTTPRoutes (gateway.networking.k8s.io/v1) of a cluster and leads requests by their matches, weights and filters
// to the cluster IPs of Services, a connection for each request, so that kube-proxy chooses the pod.
//
// It serves every route whatever its parent, over plain HTTP on this machine's loopback, and says Accepted in its
// status. Of filters it knows RequestHeaderModifier, ResponseHeaderModifier and RequestMirror; a route with another,
// or with a backend that is not a Service, is told Accepted=False, and the rule answers 500.
package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/wheelwright-dev/wheelwright/integration/watched"
)

// Gateway serves until it is stopped.
type Gateway struct {
	URL string

	server    *http.Server
	transport *http.Transport
	cancel    context.CancelFunc
	wait      sync.WaitGroup // watches and mirrored requests
	routes    dynamic.NamespaceableResourceInterface
	complain  func(error)

	mu       sync.Mutex
	rules    []rule
	services map[string]string // namespace/name -> cluster IP
	served   map[string]int
	mirrored map[string]int
}

// Start follows the cluster's routes and serves them. The CRD must be there. What goes wrong with the cluster is
// written to progress and tried again.
func Start(config *rest.Config, progress io.Writer) (*Gateway, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("start a gateway: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a gateway: %w", err)
	}
	g := newGateway()
	g.URL = "http://" + listener.Addr().String()
	g.complain = func(err error) { fmt.Fprintf(progress, "gateway: %v\n", err) }
	g.routes = client.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"})
	services := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "services"})
	var ctx context.Context
	ctx, g.cancel = context.WithCancel(context.Background())
	g.wait.Go(func() {
		watched.Run(ctx, g.routes, func(all map[string]*unstructured.Unstructured) { g.setRoutes(ctx, all) }, g.complain)
	})
	g.wait.Go(func() { watched.Run(ctx, services, g.setServices, g.complain) })
	g.wait.Go(func() {
		if err := g.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			g.complain(err)
		}
	})
	return g, nil
}

func newGateway() *Gateway {
	g := &Gateway{transport: &http.Transport{DisableKeepAlives: true}, complain: func(error) {}, cancel: func() {},
		services: map[string]string{}, served: map[string]int{}, mirrored: map[string]int{}}
	g.server = &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	return g
}

// Stop answers the requests under way and ends.
func (g *Gateway) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := g.server.Shutdown(ctx)
	g.cancel()
	g.wait.Wait()
	return err
}

// Served counts the requests that were led to each Service, by namespace/name; Mirrored those sent there on the side.
func (g *Gateway) Served() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.served)
}

// Mirrored counts the copies of requests that were sent to each Service.
func (g *Gateway) Mirrored() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.mirrored)
}

// setRoutes takes the routes as they are now, and says in their status that they were taken.
func (g *Gateway) setRoutes(ctx context.Context, all map[string]*unstructured.Unstructured) {
	rules, states := compile(all)
	g.mu.Lock()
	g.rules = rules
	g.mu.Unlock()
	for key, state := range states {
		if err := g.report(ctx, all[key], state); err != nil && ctx.Err() == nil {
			g.complain(err)
		}
	}
}

func (g *Gateway) setServices(all map[string]*unstructured.Unstructured) {
	addresses := map[string]string{}
	for key, service := range all {
		address, _, _ := unstructured.NestedString(service.Object, "spec", "clusterIP")
		if net.ParseIP(address) != nil {
			addresses[key] = address
		}
	}
	g.mu.Lock()
	g.services = addresses
	g.mu.Unlock()
}

// lead is what becomes of one request.
type lead struct {
	rule    rule
	backend backend
	target  *url.URL
	mirrors []mirrorTo
}

type mirrorTo struct {
	service string
	target  *url.URL
}

// decide finds the rule for a request and draws its backend.
func (g *Gateway) decide(r *http.Request) (lead, int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := lead{}
	found := false
	for _, rule := range g.rules {
		if found = rule.takes(r); found {
			l.rule = rule
			break
		}
	}
	if !found {
		return l, http.StatusNotFound, errors.New("no HTTPRoute takes this request")
	}
	if l.rule.problem != "" {
		return l, http.StatusInternalServerError, errors.New(l.rule.problem)
	}
	var ok bool
	if l.backend, ok = draw(l.rule.backends, rand.IntN); !ok {
		return l, http.StatusInternalServerError, fmt.Errorf("HTTPRoute %s has no backend with a weight", l.rule.route)
	}
	if l.target = g.targetLocked(l.backend); l.target == nil {
		return l, http.StatusInternalServerError, fmt.Errorf("HTTPRoute %s: no Service %s with a cluster IP", l.rule.route, l.backend.service)
	}
	for _, m := range append(append([]mirror(nil), l.rule.mirrors...), l.backend.mirrors...) {
		if target := g.targetLocked(m.backend); target != nil && rand.IntN(m.denominator) < m.numerator {
			l.mirrors = append(l.mirrors, mirrorTo{m.backend.service, target})
			g.mirrored[m.backend.service]++
		}
	}
	g.served[l.backend.service]++
	return l, 0, nil
}

func (g *Gateway) targetLocked(b backend) *url.URL {
	address, ok := g.services[b.service]
	if !ok {
		return nil
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(address, fmt.Sprint(b.port))}
}

const maxMirrored = 10 << 20

// ServeHTTP leads one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l, code, err := g.decide(r)
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	if len(l.mirrors) > 0 {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMirrored))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		for _, m := range l.mirrors {
			copied := r.Clone(context.WithoutCancel(r.Context()))
			g.wait.Go(func() { g.copyTo(m.target, copied, body, l) })
		}
	}
	proxy := &httputil.ReverseProxy{
		Transport: g.transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(l.target)
			p.Out.Host = p.In.Host
			l.rule.request.apply(p.Out.Header)
			l.backend.request.apply(p.Out.Header)
		},
		ModifyResponse: func(response *http.Response) error {
			l.rule.response.apply(response.Header)
			l.backend.response.apply(response.Header)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	proxy.ServeHTTP(w, r)
}

// copyTo sends a copy of a request whose answer nobody waits for.
func (g *Gateway) copyTo(target *url.URL, r *http.Request, body []byte, l lead) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	r = r.WithContext(ctx)
	r.URL.Scheme, r.URL.Host, r.RequestURI = target.Scheme, target.Host, ""
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	l.rule.request.apply(r.Header)
	if response, err := g.transport.RoundTrip(r); err == nil {
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}
