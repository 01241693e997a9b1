package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// Request is one request that an API server answered.
type Request struct {
	Verb      string // get, list, watch, create, update, patch, delete, …
	URI       string
	UserAgent string
	User      string
	Code      int
}

// DryRun tells whether the request asked for nothing to be written.
func (r Request) DryRun() bool { return strings.Contains(r.URI, "dryRun=") }

// Writes tells whether the request could have changed something.
func (r Request) Writes() bool {
	switch r.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return !r.DryRun()
	}
	return false
}

// RequestMark is a moment in a cluster's log of requests.
type RequestMark int64

const controlPlaneUser = "wheelwright:controlplane"

// auditPolicy leaves out the cluster's own components.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["` + controlPlaneUser + `", "system:apiserver"]
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
- level: Metadata
`

func (c *Cluster) auditLog() string { return c.file("audit.log") }

// MarkRequests remembers the present end of the log of requests.
func (c *Cluster) MarkRequests(t testing.TB) RequestMark {
	t.Helper()
	_, end := c.readRequests(t, 0)
	return end
}

// Requests are those since mark whose user agent contains agent, in the order of their end; a watch
// counts when it begins. Only clusters that the harness started have a log.
func (c *Cluster) Requests(t testing.TB, mark RequestMark, agent string) []Request {
	t.Helper()
	all, _ := c.readRequests(t, mark)
	var out []Request
	for _, r := range all {
		if strings.Contains(r.UserAgent, agent) && r.UserAgent != harnessAgent {
			out = append(out, r)
		}
	}
	return out
}

// readRequests first sends a request of its own and reads as far as that one: so the log holds all
// that was answered before.
func (c *Cluster) readRequests(t testing.TB, from RequestMark) ([]Request, RequestMark) {
	t.Helper()
	if c.harness.existing != nil {
		t.Skipf("cluster %s of WHEELWRIGHT_KUBECONFIGS has no log of requests: unset the variable to run this", c.Name)
	}
	probe := fmt.Sprintf("/version?mark=%d", time.Now().UnixNano())
	if err := c.get(context.Background(), probe, nil); err != nil {
		t.Fatal(err)
	}
	var requests []Request
	var end RequestMark
	c.Eventually(t, "the log of requests", func() (err error) {
		requests, end, err = c.parseRequests(from, probe)
		return err
	})
	return requests, end
}

func (c *Cluster) parseRequests(from RequestMark, probe string) ([]Request, RequestMark, error) {
	file, err := os.Open(c.auditLog())
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	if _, err := file.Seek(int64(from), io.SeekStart); err != nil {
		return nil, 0, err
	}
	var out []Request
	for r := bufio.NewReader(file); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil, 0, fmt.Errorf("%s is not in the log yet: %w", probe, err)
		}
		from += RequestMark(len(line))
		if bytes.Contains(line, []byte(probe)) {
			return out, from, nil
		}
		var event struct {
			Stage, Verb, RequestURI, UserAgent string
			User                               struct{ Username string }
			ResponseStatus                     struct{ Code int }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", c.auditLog(), err)
		}
		if event.Stage == "ResponseStarted" != (event.Verb == "watch") {
			continue
		}
		out = append(out, Request{
			Verb: event.Verb, URI: event.RequestURI, UserAgent: event.UserAgent,
			User: event.User.Username, Code: event.ResponseStatus.Code,
		})
	}
}
