package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
)

// Create makes an object and answers it as the API server has it.
func (c *Client) Create(ctx context.Context, r Resource, namespace string, o Object) (Object, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", o.Kind(), o.Name(), err)
	}
	var made Object
	err = c.Do(ctx, Request{Method: http.MethodPost, Path: r.Path(namespace), Body: body}, &made)
	return made, err
}

// Get reads one object.
func (c *Client) Get(ctx context.Context, r Resource, namespace, name string) (Object, error) {
	var o Object
	err := c.Do(ctx, Request{Path: r.Path(namespace, name)}, &o)
	return o, err
}

// List reads those that a label selector fits; empty: all.
func (c *Client) List(ctx context.Context, r Resource, namespace, selector string) ([]Object, error) {
	q := url.Values{}
	if selector != "" {
		q.Set("labelSelector", selector)
	}
	var l struct{ Items []Object }
	err := c.Do(ctx, Request{Path: r.Path(namespace), Query: q}, &l)
	return l.Items, err
}

// Apply makes an object be so by server-side apply, taking over fields from others where force is set.
func (c *Client) Apply(ctx context.Context, r Resource, namespace string, o Object, manager string, force bool) (Object, error) {
	body, err := json.Marshal(o) // JSON is YAML
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", o.Kind(), o.Name(), err)
	}
	q := url.Values{"fieldManager": {manager}, "force": {strconv.FormatBool(force)}}
	var made Object
	err = c.Do(ctx, Request{Method: http.MethodPatch, Path: r.Path(namespace, o.Name()), Query: q, Type: "application/apply-patch+yaml", Body: body}, &made)
	return made, err
}

// Merge sends a JSON merge patch.
func (c *Client) Merge(ctx context.Context, r Resource, namespace, name string, patch []byte) (Object, error) {
	var made Object
	err := c.Do(ctx, Request{Method: http.MethodPatch, Path: r.Path(namespace, name), Type: "application/merge-patch+json", Body: patch}, &made)
	return made, err
}

// Delete takes away the object and, after it, what it owns. uid, where given, is the only one of that
// name that is meant. What is gone already is no error.
func (c *Client) Delete(ctx context.Context, r Resource, namespace, name, uid string) error {
	options := map[string]any{"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
	if uid != "" {
		options["preconditions"] = map[string]any{"uid": uid}
	}
	body, err := json.Marshal(options)
	if err != nil {
		return err
	}
	err = c.Do(ctx, Request{Method: http.MethodDelete, Path: r.Path(namespace, name), Body: body}, nil)
	if HasCode(err, http.StatusNotFound) || uid != "" && HasCode(err, http.StatusConflict) {
		return nil // gone, or another one of that name by now
	}
	return err
}

// Changed returns once the object is not as it was at version any more, and at the latest after a while:
// look again then. It is an error where it cannot be watched.
func (c *Client) Changed(ctx context.Context, r Resource, namespace, name, version string, atMost time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	body, err := c.send(ctx, Request{Path: r.Path(namespace), Query: url.Values{
		"watch": {"true"}, "fieldSelector": {"metadata.name=" + name}, "resourceVersion": {version},
		"timeoutSeconds": {strconv.Itoa(int(atMost.Seconds()) + 1)},
	}})
	if err == nil {
		defer body.Close()
		_, err = bufio.NewReader(body).ReadByte() // the first event; which one, the next look tells
	}
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// Logs is the end of what a container has written, at most so many bytes.
func (c *Client) Logs(ctx context.Context, namespace, pod, container string, most int) (string, error) {
	body, err := c.send(ctx, Request{Path: Pods().Path(namespace, pod, "log"), Query: url.Values{"container": {container}, "tailLines": {"500"}}})
	if err != nil {
		return "", err
	}
	defer body.Close()
	tail, err := excerpt.Tail(body, most)
	if err != nil {
		return "", fmt.Errorf("read the log: %w", err)
	}
	return tail, nil
}
