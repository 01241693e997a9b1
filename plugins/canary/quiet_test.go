package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/measure"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// quiet is a shop whose web is used by many and whose api by nobody: its candidate, the Prometheus that counts
// what it is asked, and the API server that knows where its Service is.
type quiet struct {
	asked      atomic.Int64 // requests to the candidate of api
	failing    atomic.Bool  // it answers 500
	mode       atomic.Value // what Prometheus says of api: counting, or the answer to its query of a value
	prometheus string
	api        string
	port       int
	paths      chan string
}

func newQuiet(t *testing.T) *quiet {
	t.Helper()
	q := &quiet{paths: make(chan string, 10_000)}
	q.mode.Store("counting")
	candidate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q.asked.Add(1)
		select {
		case q.paths <- r.Host + r.URL.String():
		default:
		}
		if q.failing.Load() {
			http.Error(w, "no database", http.StatusInternalServerError)
		}
	}))
	t.Cleanup(candidate.Close)
	q.port = candidate.Listener.Addr().(*net.TCPAddr).Port
	metrics := httptest.NewServer(http.HandlerFunc(q.count))
	t.Cleanup(metrics.Close)
	q.prometheus = metrics.URL
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/shop/services/") && strings.HasSuffix(r.URL.Path, "-canary") {
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"Service","spec":{"clusterIP":"127.0.0.1"}}`)
			return
		}
		if strings.HasSuffix(r.URL.Path, "s") && r.Method == http.MethodGet { // a list of what is not there
			fmt.Fprint(w, `{"items":[]}`)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","code":404,"message":"there is none"}`)
	}))
	t.Cleanup(api.Close)
	q.api = api.URL
	return q
}

// count answers as Prometheus does: web has users, and of api it knows what its candidate was asked.
func (q *quiet) count(w http.ResponseWriter, r *http.Request) {
	query, mode := r.FormValue("query"), q.mode.Load().(string)
	n, percent := q.asked.Load(), "100"
	if q.failing.Load() {
		percent = "0"
	}
	if strings.Contains(query, "web-canary-") {
		n, percent = 400, "99.9"
	}
	switch {
	case strings.HasPrefix(query, "sum(increase("):
		percent = fmt.Sprint(n)
	case strings.HasPrefix(query, "max(timestamp("):
		percent = fmt.Sprint(time.Now().Unix())
	case !strings.Contains(query, "web-canary-") && mode == "away":
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	case !strings.Contains(query, "web-canary-") && mode != "counting":
		percent = mode
	case n == 0:
		percent = "NaN"
	}
	fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,%q]}]}}`, percent)
}

// kubeconfig leads to the API server.
func (q *quiet) kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\nclusters: [{name: c, cluster: {server: \"" + q.api + "\"}}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// subject is the shop at a third, each service at the candidate's port.
func (q *quiet) subject(t *testing.T, change ...func(canary strategy.Object)) (*pluginv1.Subject, *pluginv1.CanaryStep) {
	t.Helper()
	build := func(version string) []strategy.Object {
		objects := shop(t, version, "kubernetes", "shop")
		for _, o := range objects {
			switch {
			case document.Text(o, "kind") == "Canary":
				document.Mapping(o, "spec", "service")["port"] = q.port
				for _, c := range change {
					c(o)
				}
			case document.Text(o, "kind") == "Service":
				document.Mappings(document.At(o, "spec", "ports"))[0]["port"] = q.port
			}
		}
		return objects
	}
	return subject(t, "1.1.0", "1.2.0", build("1.1.0"), build("1.2.0"), "shop"), &pluginv1.CanaryStep{Number: 1, Passes: 1, Interval: durationpb.New(time.Minute),
		Traffic: []*pluginv1.Traffic{{Service: "web", Weight: 33}, {Service: "api", Weight: 33}}}
}

// loading is the service, making so much load.
func (q *quiet) loading(t *testing.T, rate float64, log io.Writer) *canary {
	t.Helper()
	client, err := kube.Open(q.kubeconfig(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return newCanary(settings{router: strategy.RouterNone, selectorKeys: strategy.SelectorKeys(), minimum: 20, rate: rate, prometheus: measure.Config{Address: q.prometheus}},
		func() (cluster.Server, func(), error) { return client, func() {}, nil }, slog.New(slog.NewTextHandler(log, nil)))
}

type measures func(context.Context, *pluginv1.MeasureRequest) (*pluginv1.MeasureResponse, error)

// until measures until the verdict is of that outcome, and answers the first and the last one.
func (m measures) until(t *testing.T, s *pluginv1.Subject, step *pluginv1.CanaryStep, outcome pluginv1.Outcome) (first, last *pluginv1.MeasureResponse) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		r, err := m(ctx, &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now(), Counted: last.GetCounted()})
		if err != nil {
			t.Fatal(err)
		}
		if last = r; first == nil {
			first = r
		}
		if r.GetVerdict().GetOutcome() == outcome {
			return first, last
		}
		if !sleep(ctx, 20*time.Millisecond) {
			t.Fatalf("no %s within a minute: %v", outcome, r)
		}
	}
}

// silent waits until nobody has asked for half a second.
func (q *quiet) silent(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for before := int64(-1); before != q.asked.Load(); {
		before = q.asked.Load()
		if !sleep(ctx, 500*time.Millisecond) {
			t.Fatal("it asks on")
		}
	}
}

// startProgram is the canary of a program that is started as a spoke does.
func startProgram(t *testing.T, path, kubeconfig string, args ...string) pluginv1.CanaryServiceClient {
	t.Helper()
	id, err := pluginwire.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "plugin") // a test's own folder is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	cmd := exec.Command(path, args...)
	cmd.Env = append(pluginwire.Environment(id, folder), "KUBECONFIG="+kubeconfig, "TMPDIR="+folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := pluginwire.ReadLine(bufio.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	var conn *grpc.ClientConn
	if conn, err = pluginwire.Dial(id, line); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pluginv1.NewCanaryServiceClient(conn)
}
