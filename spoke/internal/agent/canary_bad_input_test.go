package agent_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

// A Canary that cannot be led is refused by its name, with what to write; nothing is begun.
func TestACanaryThatCannotBeLedIsRefused(t *testing.T) {
	s := newStage(t)
	s.walking("good")
	defer s.walked()()
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	for i, test := range []struct{ name, file, old, new, want string }{
		{"a missing Deployment", "backend-canary.yaml", "Deployment, name: backend}", "Deployment, name: backends}",
			"Canary NS/backend: spec.targetRef.name: the release has no Deployment NS/backends; write the name of one that it has: backend, cache, database, frontend"},
		{"overlapping targets", "frontend-canary.yaml", "Deployment, name: frontend}", "Deployment, name: backend}",
			"Canary NS/frontend: spec.targetRef: Deployment backend is that of Canary NS/backend too; keep one Canary for a workload"},
		{"a path that is none", "backend-canary.yaml", "metadata: {name: backend}", `metadata: {name: backend, annotations: {wheelwright.dev/load-path: healthz}}`,
			`Canary NS/backend: metadata.annotations[wheelwright.dev/load-path]: "healthz" does not begin with one /`},
	} {
		version := fmt.Sprintf("1.2.%d", i)
		files := led(version, "new")
		if files[test.file] = strings.Replace(files[test.file], test.old, test.new, 1); !strings.Contains(files[test.file], test.new) {
			t.Fatalf("%s: nothing is broken in\n%s", test.name, files[test.file])
		}
		s.vendor.release(t, version, files)
		s.offer()
		in := s.reaches(fleet.Refused, version, "1.1.0")
		if want := strings.ReplaceAll(test.want, "NS", s.ns); !strings.Contains(in.Reason, want) {
			t.Errorf("%s: %s, want %s", test.name, in.Reason, want)
		}
		s.alone("1.1.0", "new")
	}
}

// What cannot be measured is held at its step, named, and the provider is asked; their no leads everything back.
func TestACanaryThatCannotBeMeasuredIsHeld(t *testing.T) {
	vector := func(w http.ResponseWriter, r *http.Request) {
		value := "400"
		switch query := r.FormValue("query"); {
		case strings.HasPrefix(query, "max(timestamp("):
			value = fmt.Sprint(time.Now().Unix())
		case !strings.HasPrefix(query, "sum(increase("):
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1,"10"]},{"metric":{"a":"2"},"value":[1,"10"]}]}}`)
			return
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,%q]}]}}`, value)
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"a query that returns a vector": {vector, "backend: the query of request-success-rate returned a vector of 2, wants one number: write sum() around it"},
		"a Prometheus that nobody reaches": {func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.Close()
			}
		}, "backend: Prometheus unreachable: EOF (127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(test.handler)
			defer server.Close()
			s := newStage(t)
			s.walking("good")
			s.plugins[0].Args = []string{"--prometheus", server.URL, "--drain", "0s"}
			defer s.walked()()
			i := s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
			if !strings.Contains(i.Reason, test.want) || !strings.Contains(i.Reason, "step 1 of 3") || !strings.Contains(i.Reason, "spoke approve shop") {
				t.Errorf("reason: %s", i.Reason)
			}
			s.cluster.Eventually(t, "the rejection", func() error {
				_, err := s.agent.Reject(t.Context(), "shop", "1.1.0", "nobody can tell")
				return err
			})
			s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
			s.alone("1.0.0", "old")
		})
	}
}

// A webhook that answers 500 fails a step, and one that does not answer leaves it open: back, or asked and back.
func TestWebhooksOfACanaryFailOrHang(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		asked   bool
		want    string
	}{
		"500": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no stock", http.StatusInternalServerError)
		}, false, " answers 500 no stock"},
		"hangs": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then is it told that the other side is gone
			<-r.Context().Done()
		}, true, "no answer within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("/well", func(http.ResponseWriter, *http.Request) {})
			mux.HandleFunc("/broken", test.handler)
			server := httptest.NewServer(mux)
			t.Cleanup(server.Close)
			s := newStage(t)
			s.walking("good")
			path, sum := proves.of(t, "github.com/wheelwright-dev/wheelwright/plugins/conformance")
			s.plugins = append(s.plugins, pluginhost.Plugin{Name: "conformance", Path: path, SHA256: sum, Timeout: time.Minute, Kubeconfig: true, Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CONFORMANCE}})
			release := func(version, extra, rollout string) {
				files := led(version, extra)
				files["backend-canary.yaml"] = strings.NewReplacer("    metrics:", "    webhooks:\n    - {name: smoke, type: rollout, timeout: 1s, url: URL"+rollout+"}\n    - {name: after, type: post-rollout, url: URL/well}\n    metrics:").
					Replace(files["backend-canary.yaml"])
				files["backend-canary.yaml"] = strings.ReplaceAll(files["backend-canary.yaml"], "URL", server.URL)
				s.vendor.release(t, version, files)
			}
			release("1.0.0", "old", "/well")
			defer s.start(nil)()
			s.offer()
			s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
			release("1.1.0", "new", "/broken")
			s.offer()
			if test.asked {
				if i := s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0"); !strings.Contains(i.Reason, test.want) || !strings.Contains(i.Reason, "spoke approve shop") {
					t.Errorf("reason: %s", i.Reason)
				}
				s.cluster.Eventually(t, "the rejection", func() error {
					_, err := s.agent.Reject(t.Context(), "shop", "1.1.0", "nobody can tell")
					return err
				})
			}
			i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
			if !test.asked && (!strings.Contains(i.Reason, test.want) || !strings.Contains(i.Reason, "webhook backend/smoke: ")) {
				t.Errorf("reason: %s", i.Reason)
			}
			s.alone("1.0.0", "old")
		})
	}
}

// A plugin that is not run, because its file is another one or speaks another protocol, is named with what to do;
// no release is begun without it, and one that is in the middle goes on, or back, when it is there again.
func TestACanaryPluginThatIsNotRun(t *testing.T) {
	s := newStage(t)
	m := s.walking("missing")
	s.sub.Canary = config.Canary{} // it waits for evidence without an end
	s.sub.HealthTimeout = 10 * time.Second
	defer s.walked()()
	well := s.plugins[0]
	foreign := filepath.Join(t.TempDir(), "canary")
	script := []byte("#!/bin/sh\necho '1|99|unix|/nowhere|grpc|MIIB'\nsleep 60\n")
	if err := os.WriteFile(foreign, script, 0o700); err != nil {
		t.Fatal(err)
	}
	sum, protocol := well, well
	sum.SHA256 = strings.Repeat("0", 64)
	protocol.Path, protocol.SHA256, protocol.Args = foreign, fmt.Sprintf("%x", sha256.Sum256(script)), nil
	use := func(p pluginhost.Plugin) {
		t.Helper()
		if err := s.host.Use([]pluginhost.Plugin{p}); err != nil {
			t.Fatal(err)
		}
	}
	says := func(want string) {
		t.Helper()
		s.cluster.Eventually(t, want, func() error {
			if i := s.now(); i.Phase == fleet.Succeeded || i.Phase == fleet.RolledBack || !strings.Contains(i.Reason, want) {
				return fmt.Errorf("%s: %s", i.Phase, i.Reason)
			}
			return nil
		})
	}
	const another, speaks = "it is not run; where the file is the one that you want, put what `sha256sum ", "speaks plugin protocol 99, this host 1"
	says("step 1 of 3")
	says("Inconclusive(")
	use(sum)
	says(another)
	use(protocol)
	says(speaks)
	if _, _, err := s.agent.RollBack(t.Context(), "shop", "", "it hangs", false); err != nil {
		t.Fatal(err)
	}
	if i := s.reaches(fleet.RollbackFailed, "1.1.0", "1.0.0"); !strings.Contains(i.Reason, speaks) { // the candidates have traffic still, and that is said
		t.Errorf("reason: %s", i.Reason)
	}
	use(well)
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.alone("1.0.0", "old")

	m.mode.Store("good")
	use(sum)
	s.vendor.release(t, "1.2.0", led("1.2.0", "new"))
	s.offer()
	says(another)
	s.alone("1.0.0", "old")
	use(protocol)
	says(speaks)
	s.alone("1.0.0", "old")
	use(well)
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")
	s.alone("1.2.0", "new")
}
