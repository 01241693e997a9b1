package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

// write makes a kubeconfig as the spoke does, for a server.
func write(t *testing.T, path, server, token string) {
	t.Helper()
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: plugin\nclusters: [{name: plugin, cluster: {server: %q}}]\n"+
		"users: [{name: plugin, user: {token: %q}}]\ncontexts: [{name: plugin, context: {cluster: plugin, user: plugin, namespace: shop}}]\n", server, token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, handle http.HandlerFunc) (client *kube.Client, path string) {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	path = filepath.Join(t.TempDir(), "kubeconfig")
	write(t, path, s.URL, "old-token")
	client, err := kube.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client, path
}

func TestPath(t *testing.T) {
	for want, got := range map[string]string{
		"/apis/batch/v1/namespaces/shop/jobs/smoke":    kube.Jobs().Path("shop", "smoke"),
		"/api/v1/namespaces/shop/pods/a%2Fb/log":       kube.Pods().Path("shop", "a/b", "log"),
		"/apis/a.example/v1/things":                    kube.Resource{APIVersion: "a.example/v1", Plural: "things"}.Path(""),
		"/api/v1/namespaces/..%2Fkube-system/services": kube.Services().Path("../kube-system"),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// The spoke replaces the kubeconfig before its token ends; whoever holds the old one reads it again.
func TestRenewedCredentials(t *testing.T) {
	client, path := open(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer new-token" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"kind":"Status","message":"Unauthorized","reason":"Unauthorized"}`)
			return
		}
		fmt.Fprint(w, `{"kind":"Pod","metadata":{"name":"a"}}`)
	})
	if _, err := client.Get(t.Context(), kube.Pods(), "shop", "a"); !kube.HasCode(err, http.StatusUnauthorized) {
		t.Errorf("with the old token: %v", err)
	}
	s := httptest.NewServer(nil)
	defer s.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(data), "old-token", "new-token")), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := client.Get(t.Context(), kube.Pods(), "shop", "a")
	if err != nil || o.Name() != "a" {
		t.Errorf("with the new one: %v, %v", o, err)
	}
	if got := client.Secrets(); !reflect.DeepEqual(got, []string{"new-token"}) {
		t.Errorf("secrets: %q", got)
	}
	if client.Namespace() != "shop" {
		t.Errorf("namespace: %q", client.Namespace())
	}
}

func TestAnswers(t *testing.T) {
	var calls atomic.Int32
	client, _ := open(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		switch r.URL.Path {
		case "/api/v1/namespaces/shop/pods/busy":
			if calls.Load() < 3 {
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			fmt.Fprint(w, `{"metadata":{"name":"busy","generation":12345678901234567}}`)
		case "/api/v1/namespaces/shop/pods/elsewhere":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case "/api/v1/namespaces/shop/pods/plain":
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "bad\ngateway")
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind":"Status","message":"pods \"x\" not found","reason":"NotFound"}`)
		}
	})
	o, err := client.Get(t.Context(), kube.Pods(), "shop", "busy")
	if n, _ := o.Int("metadata", "generation"); err != nil || calls.Load() != 3 || n != 12345678901234567 {
		t.Errorf("a busy server: %v, %v after %d calls", o, err, calls.Load())
	}
	if _, err := client.Get(t.Context(), kube.Pods(), "shop", "elsewhere"); !kube.HasCode(err, http.StatusFound) {
		t.Errorf("a redirect: %v", err)
	}
	if _, err := client.Get(t.Context(), kube.Pods(), "shop", "plain"); err == nil || err.Error() != "the API server answers 502: bad gateway" {
		t.Errorf("a proxy in between: %v", err)
	}
	_, err = client.Get(t.Context(), kube.Pods(), "shop", "x")
	if e, ok := errors.AsType[*kube.StatusError](err); !ok || e.Reason != "NotFound" || e.Error() != `the API server answers 404: pods "x" not found` {
		t.Errorf("nothing there: %v", err)
	}
	if err := client.Delete(t.Context(), kube.Pods(), "shop", "x", "uid"); err != nil {
		t.Errorf("delete what is gone: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.List(over, kube.Pods(), "shop", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that ended: %v", err)
	}
}

func TestBadKubeconfigs(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"no YAML":      {"token: sup3rsecret: x", "it is not YAML"},
		"empty":        {"", `it has no context ""`},
		"no cluster":   {"current-context: a\ncontexts: [{name: a, context: {cluster: b, user: c}}]", `it has no cluster "b"`},
		"no user":      {"current-context: a\ncontexts: [{name: a, context: {cluster: b, user: c}}]\nclusters: [{name: b, cluster: {server: \"https://x\"}}]", `it has no user "c"`},
		"no URL":       {config(`server: "x"`, ""), "no http or https URL"},
		"a program":    {config(`server: "https://x"`, "exec: {command: rm}"), "known by a program"},
		"no authority": {config(`server: "https://x", certificate-authority-data: eA==`, ""), "no certificate in PEM"},
		"no base64":    {config(`server: "https://x", certificate-authority-data: "?"`, ""), "no certificate in PEM|no base64"},
		"no file":      {config(`server: "https://x"`, "tokenFile: nowhere"), "nowhere"},
		"half a pair":  {config(`server: "https://x"`, "client-certificate-data: eA=="), "the user's certificate and key"},
	} {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := kube.Open(path)
		found := false
		for want := range strings.SplitSeq(test.want, "|") {
			found = found || err != nil && strings.Contains(err.Error(), want)
		}
		if !found || strings.Contains(fmt.Sprint(err), "sup3rsecret") {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	if _, err := kube.Open("nowhere"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func config(cluster, user string) string {
	return fmt.Sprintf("current-context: a\ncontexts: [{name: a, context: {cluster: b, user: c}}]\nclusters: [{name: b, cluster: {%s}}]\nusers: [{name: c, user: {%s}}]\n", cluster, user)
}

// A Service is found by its name where only the API server knows it.
func TestDialer(t *testing.T) {
	client, _ := open(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/namespaces/shop/services/backend":
			fmt.Fprint(w, `{"spec":{"clusterIP":"10.0.0.7"}}`)
		case "/api/v1/namespaces/shop/services/headless":
			fmt.Fprint(w, `{"spec":{"clusterIP":"None"}}`)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	})
	var got string
	enough := errors.New("enough")
	dial := client.Dialer(func(_ context.Context, _, address string) (net.Conn, error) { got = address; return nil, enough })
	for address, want := range map[string]string{
		"backend.shop:80": "10.0.0.7:80", "backend.shop.svc:80": "10.0.0.7:80", "backend.shop.svc.cluster.local.:80": "10.0.0.7:80",
		"headless.shop:80": "headless.shop:80", "example.com:443": "example.com:443", "a.b.example.com:443": "a.b.example.com:443",
		"backend:80": "backend:80", "127.0.0.1:80": "127.0.0.1:80", "[::1]:80": "[::1]:80", "nonsense": "nonsense",
	} {
		if _, err := dial(t.Context(), "tcp", address); !errors.Is(err, enough) || got != want {
			t.Errorf("%s: dials %s (%v), want %s", address, got, err, want)
		}
	}
}

// Requests through the API server have its credentials and not the Service's.
func TestVia(t *testing.T) {
	client, _ := open(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Authorization"))
	})
	via := &http.Client{Transport: client.Via()}
	for url, want := range map[string]string{
		"http://backend.shop.svc:9898/api/a%2Fb?x=1": "GET /api/v1/namespaces/shop/services/backend:9898/proxy/api/a%2Fb x=1 Bearer old-token",
		"https://backend.shop:443/":                  "GET /api/v1/namespaces/shop/services/https:backend:443/proxy/  Bearer old-token",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer theirs")
		response, err := via.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 1000)
		n, _ := response.Body.Read(body)
		response.Body.Close()
		if got := string(body[:n]); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
	if response, err := via.Get("http://127.0.0.1:80/"); err == nil {
		response.Body.Close()
		t.Error("what is no Service was asked through the API server")
	}
}

// A watch ends with the first news, and anyhow after a while.
func TestChanged(t *testing.T) {
	client, _ := open(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("watch") != "true" || q.Get("fieldSelector") != "metadata.name=a" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		if q.Get("resourceVersion") == "5" {
			fmt.Fprint(w, `{"type":"MODIFIED"}`)
			return
		}
		<-r.Context().Done()
	})
	if err := client.Changed(t.Context(), kube.Jobs(), "shop", "a", "5", time.Minute); err != nil {
		t.Error(err)
	}
	if err := client.Changed(t.Context(), kube.Jobs(), "shop", "a", "6", 20*time.Millisecond); err != nil {
		t.Error(err)
	}
	if err := client.Changed(t.Context(), kube.Jobs(), "shop", "other", "6", time.Minute); err == nil {
		t.Error("what cannot be watched is an error")
	}
}

func TestReadObjects(t *testing.T) {
	got, err := kube.ReadObjects([]byte("---\n# nothing\n---\nkind: A\nmetadata: {name: a}\ndata: {k: \"--- no end\", big: 9007199254740993}\n--- \r\n{\"kind\": \"B\"}\n---\n"))
	if err != nil || len(got) != 2 || got[0].Kind() != "A" || got[1].Kind() != "B" {
		t.Fatalf("%v, %v", got, err)
	}
	if n := got[0].At("data", "big"); n != json.Number("9007199254740993") {
		t.Errorf("a large number became %v", n)
	}
	again := got[0].Clone()
	again["data"].(map[string]any)["k"] = "changed"
	if got[0].Text("data", "k") != "--- no end" {
		t.Error("a clone shares what is in it")
	}
	for _, bad := range []string{"a: [", "- a\n- b", "just text"} {
		if _, err := kube.ReadObjects([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzReadObjects(f *testing.F) {
	f.Add([]byte("---\nkind: A\n---\n- x\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		objects, _ := kube.ReadObjects(data)
		for _, o := range objects {
			_, _, _, _ = o.Clone(), o.Condition("Ready"), o.Mappings("spec", "ports"), o.Texts("metadata", "labels")
		}
	})
}
