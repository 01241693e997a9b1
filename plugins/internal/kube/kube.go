// Package kube speaks to an API server with the credentials that a spoke gives its plugin. It is a few
// requests on net/http, so that a plugin is small and what it asks of a cluster can be counted: no cache,
// no informers, no types of Kubernetes, and of a kubeconfig only what a spoke writes and what tests need.
//
// Nouns: an Object is a decoded document; a Resource is a kind as a URL has it; a Client is one
// kubeconfig, read again when the API server no longer takes its token.
package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
)

const (
	maxAnswer = 16 << 20
	userAgent = "wheelwright-plugin"
	// A server that is overloaded says when to come back; it is asked so often.
	maxAttempts = 4
	maxPause    = 10 * time.Second
)

// Resource is a kind as URLs have it.
type Resource struct {
	APIVersion string // "v1", "batch/v1"
	Plural     string // "jobs"
}

// The resources that tests need.
func Jobs() Resource     { return Resource{"batch/v1", "jobs"} }
func Pods() Resource     { return Resource{"v1", "pods"} }
func Services() Resource { return Resource{"v1", "services"} }

// Path of the collection, of an object, or of what is below one; namespace empty: a cluster-wide kind.
func (r Resource) Path(namespace string, below ...string) string {
	root := "/apis/"
	if !strings.Contains(r.APIVersion, "/") {
		root = "/api/"
	}
	parts := []string{root + r.APIVersion}
	if namespace != "" {
		parts = append(parts, "namespaces", url.PathEscape(namespace))
	}
	parts = append(parts, r.Plural)
	for _, b := range below {
		parts = append(parts, url.PathEscape(b))
	}
	return strings.Join(parts, "/")
}

// StatusError is an answer of the API server that is no success.
type StatusError struct {
	Code    int
	Reason  string // "AlreadyExists"; empty where the server gave none
	Message string
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the API server answers %d %s", e.Code, http.StatusText(e.Code))
	}
	return fmt.Sprintf("the API server answers %d: %s", e.Code, e.Message)
}

// HasCode tells whether err is the API server's answer with that status.
func HasCode(err error, code int) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code == code
}

// Client is safe for several goroutines.
type Client struct {
	path    string
	current atomic.Pointer[access]
}

// Open reads a kubeconfig, of pluginsdk.Kubeconfig for instance. It sends nothing.
func Open(path string) (*Client, error) {
	a, err := readAccess(path)
	if err != nil {
		return nil, err
	}
	c := &Client{path: path}
	c.current.Store(a)
	return c, nil
}

// Close gives connections back.
func (c *Client) Close() { c.current.Load().http.CloseIdleConnections() }

// Namespace is the one that the kubeconfig names; it may be empty.
func (c *Client) Namespace() string { return c.current.Load().namespace }

// Secrets are what must not be in any text.
func (c *Client) Secrets() []string { return c.current.Load().secrets }

// Request is one question to the API server.
type Request struct {
	Method string // empty: GET
	Path   string // of Resource.Path
	Query  url.Values
	Type   string // of Body; empty: JSON
	Body   []byte
}

// Do sends a request and decodes the answer into into, which may be nil.
func (c *Client) Do(ctx context.Context, r Request, into any) error {
	body, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the API server's answer: %w", err)
	case len(data) > maxAnswer:
		return fmt.Errorf("the API server answers more than %d MiB", maxAnswer>>20)
	case into == nil:
		return nil
	}
	return decode(data, into)
}

func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // an object that is sent back keeps its numbers as they were
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read the API server's answer: %w", err)
	}
	return nil
}

// send answers the body of a success. It asks again where the server says when, and once with fresh
// credentials.
func (c *Client) send(ctx context.Context, r Request) (io.ReadCloser, error) {
	renewed := false
	for attempt := 1; ; attempt++ {
		response, err := c.once(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("ask the API server: %w", err)
		}
		if response.StatusCode >= 200 && response.StatusCode < 300 {
			return response.Body, nil
		}
		problem := statusOf(response)
		again := time.Duration(0)
		switch {
		case response.StatusCode == http.StatusUnauthorized && !renewed:
			renewed = true
			fresh, err := readAccess(c.path)
			if err != nil {
				return nil, errors.Join(problem, err)
			}
			c.current.Swap(fresh).http.CloseIdleConnections()
		case response.StatusCode == http.StatusTooManyRequests || response.Header.Get("Retry-After") != "":
			if attempt >= maxAttempts {
				return nil, problem
			}
			seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
			again = min(max(time.Duration(seconds)*time.Second, 100*time.Millisecond), maxPause)
		default:
			return nil, problem
		}
		if err := Pause(ctx, again); err != nil {
			return nil, errors.Join(problem, err)
		}
	}
}

func (c *Client) once(ctx context.Context, r Request) (*http.Response, error) {
	a := c.current.Load()
	address := a.server + r.Path
	if len(r.Query) > 0 {
		address += "?" + r.Query.Encode()
	}
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, address, bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", userAgent)
	request.Header.Set("Accept", "application/json, */*")
	if len(r.Body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	if r.Type != "" {
		request.Header.Set("Content-Type", r.Type)
	}
	a.authorise(request.Header)
	return a.http.Do(request)
}

// statusOf reads what the API server says beside the code, and closes the body.
func statusOf(response *http.Response) *StatusError {
	defer response.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	var s struct{ Reason, Message string }
	if json.Unmarshal(data, &s) != nil {
		s.Message = excerpt.OneLine(string(data), 200)
	}
	return &StatusError{Code: response.StatusCode, Reason: s.Reason, Message: s.Message}
}

// Pause waits, or not where ctx ends first.
func Pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
