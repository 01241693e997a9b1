package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/webhook"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

func serve(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

func answer(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

const (
	pass    = pluginv1.Outcome_OUTCOME_PASS
	fail    = pluginv1.Outcome_OUTCOME_FAIL
	unknown = pluginv1.Outcome_OUTCOME_INCONCLUSIVE
)

// What each kind of answer means to each type of webhook.
func TestCall(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the client is gone
		<-r.Context().Done()
	}
	other := serve(t, answer(200, "fine"))
	big := strings.Repeat("x", 1<<20+1)
	for _, test := range []struct {
		name                 string
		handle               http.HandlerFunc
		url                  string // instead of a server
		test, gate, rollback pluginv1.Outcome
		reason               string
	}{
		{name: "200", handle: answer(200, "OK"), test: pass, gate: pass, rollback: fail, reason: "200 OK"},
		{name: "202, as the load tester's tasks", handle: answer(202, ""), test: pass, gate: unknown, rollback: pass, reason: "answers 202"},
		{name: "204", handle: answer(204, ""), test: fail, gate: unknown, rollback: pass, reason: "answers 204"},
		{name: "403", handle: answer(403, "Forbidden"), test: fail, gate: unknown, rollback: pass, reason: "answers 403 Forbidden"},
		{name: "500", handle: answer(500, "no \x1b[31m space"), test: fail, gate: unknown, rollback: pass, reason: "answers 500 no [31m space"},
		{name: "a secret", handle: answer(500, "token hunter22"), test: fail, gate: unknown, rollback: pass, reason: "answers 500 token ***"},
		{name: "hangs", handle: hang, test: unknown, gate: unknown, rollback: unknown, reason: "no answer within 50ms"},
		{name: "nobody there", url: "http://127.0.0.1:1/", test: unknown, gate: unknown, rollback: unknown, reason: "127.0.0.1:1: "},
		{name: "another host", handle: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other+"/here?key=hidden", http.StatusTemporaryRedirect)
		},
			test: fail, gate: unknown, rollback: unknown, reason: "redirects to another host, " + other + ": give the address"},
		{name: "a redirect without the payload", handle: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusFound) },
			test: fail, gate: unknown, rollback: unknown, reason: "loses the payload"},
		{name: "in circles", handle: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusTemporaryRedirect)
		},
			test: fail, gate: unknown, rollback: unknown, reason: "redirects without end"},
		{name: "too long", handle: answer(200, big), test: fail, gate: unknown, rollback: unknown, reason: "more than 1 MiB"},
		{name: "not HTTP", url: "ftp://example.com/", test: fail, gate: unknown, rollback: unknown, reason: "no http or https URL"},
		{name: "no URL", url: "http://[::1", test: fail, gate: unknown, rollback: unknown, reason: "no http or https URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			url := test.url
			if url == "" {
				url = serve(t, test.handle) + "/?key=hidden"
			}
			timeout := time.Minute
			if test.name == "hangs" {
				timeout = 50 * time.Millisecond
			}
			client := webhook.New(webhook.Config{Redactor: excerpt.NewRedactor("hunter22")})
			for kind, want := range map[webhook.Type]pluginv1.Outcome{webhook.PreRollout: test.test, webhook.Rollout: test.test, webhook.PostRollout: test.test,
				webhook.ConfirmRollout: test.gate, webhook.ConfirmTrafficIncrease: test.gate, webhook.ConfirmPromotion: test.gate, webhook.Rollback: test.rollback} {
				v := client.Call(t.Context(), webhook.Hook{Name: "hook", Type: kind, URL: url, Timeout: timeout}, webhook.Payload{})
				if v.GetOutcome() != want || want != pass && !strings.Contains(v.GetReason(), test.reason) || strings.Contains(v.GetReason(), "hidden") {
					t.Errorf("%s: %s %q, want %s because %q", kind, v.GetOutcome(), v.GetReason(), want, test.reason)
				}
			}
		})
	}
}

// By policy no answer to a test fails it, as with Flagger; a gate stays a gate, and a call that ended
// says nothing.
func TestNoAnswerFails(t *testing.T) {
	client := webhook.New(webhook.Config{NoAnswer: webhook.Fail})
	hook := webhook.Hook{Name: "hook", Type: webhook.PreRollout, URL: "http://127.0.0.1:1/"}
	if v := client.Call(t.Context(), hook, webhook.Payload{}); v.GetOutcome() != fail {
		t.Errorf("a test: %v", v)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if v := client.Call(over, hook, webhook.Payload{}); v.GetOutcome() != unknown {
		t.Errorf("a call that ended: %v", v)
	}
	hook.Type = webhook.ConfirmPromotion
	if v := client.Call(t.Context(), hook, webhook.Payload{}); v.GetOutcome() != unknown {
		t.Errorf("a gate: %v", v)
	}
}

func TestRetries(t *testing.T) {
	for _, test := range []struct {
		name            string
		status, retries int
		want            int32
		outcome         pluginv1.Outcome
	}{
		{"none", 500, 0, 1, fail},
		{"used up", 500, 2, 3, fail},
		{"until it is well", 503, 5, 4, pass},
		{"asked to wait", 429, 5, 4, pass},
		{"a refusal is one", 403, 5, 1, fail},
		{"never will be", 501, 5, 1, fail},
	} {
		t.Run(test.name, func(t *testing.T) {
			var calls atomic.Int32
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if calls.Add(1) < 4 {
					w.WriteHeader(test.status)
				}
			})
			client := webhook.New(webhook.Config{Pause: time.Microsecond})
			v := client.Call(t.Context(), webhook.Hook{Name: "hook", Type: webhook.PreRollout, URL: url, Retries: test.retries}, webhook.Payload{})
			if calls.Load() != test.want || v.GetOutcome() != test.outcome {
				t.Errorf("%d calls and %v, want %d and %s", calls.Load(), v, test.want, test.outcome)
			}
		})
	}
}

// What goes over the wire is what Flagger sends.
func TestPayload(t *testing.T) {
	var lock sync.Mutex
	var got []map[string]any
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			w.WriteHeader(http.StatusBadRequest)
		}
		lock.Lock()
		defer lock.Unlock()
		got = append(got, body)
	})
	client := webhook.New(webhook.Config{})
	payload := webhook.Payload{Name: "backend", Namespace: "shop", Phase: webhook.PreRollout.Phase(), Checksum: "85d557f47b"}
	if v := client.Call(t.Context(), webhook.Hook{Name: "smoke", Type: webhook.PreRollout, URL: url, Metadata: map[string]string{"cmd": "true"}}, payload); v.GetOutcome() != pass {
		t.Fatal(v)
	}
	at := time.UnixMilli(1700000000123)
	event := webhook.Hook{Name: "tell", Type: webhook.Event, URL: url, Metadata: map[string]string{"team": "shop", "eventType": "mine"}}
	if err := client.Announce(t.Context(), event, payload, "Warning", "backend is rolled back", at); err != nil {
		t.Fatal(err)
	}
	head := func(more map[string]any) map[string]any {
		return map[string]any{"name": "backend", "namespace": "shop", "phase": "Progressing", "checksum": "85d557f47b", "metadata": more}
	}
	want := []map[string]any{head(map[string]any{"cmd": "true"}),
		head(map[string]any{"team": "shop", "eventMessage": "backend is rolled back", "eventType": "Warning", "timestamp": "1700000000123"})}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	event.URL = serve(t, answer(500, ""))
	if err := client.Announce(t.Context(), event, payload, "Normal", "x", at); err == nil || !strings.Contains(err.Error(), "tell webhook tell: ") {
		t.Errorf("an event that nobody took: %v", err)
	}
}

func TestRead(t *testing.T) {
	hooks, problems := webhook.Read(map[string]any{"spec": map[string]any{"analysis": map[string]any{"webhooks": []any{
		map[string]any{"name": "smoke", "type": "pre-rollout", "url": "http://t/", "timeout": "3s", "retries": json.Number("2"), "metadata": map[string]any{"a": "b"}},
		map[string]any{"name": "load", "url": "http://t/", "muteAlert": true},
		map[string]any{"name": 1, "type": "some-day", "timeout": "soon", "metadata": map[string]any{"n": 5}},
	}}}})
	want := []webhook.Hook{
		{Name: "smoke", Type: webhook.PreRollout, URL: "http://t/", Timeout: 3 * time.Second, Retries: 2, Metadata: map[string]string{"a": "b"}},
		{Name: "load", Type: webhook.Rollout, URL: "http://t/", Timeout: webhook.DefaultTimeout},
	}
	if !reflect.DeepEqual(hooks, want) {
		t.Errorf("got %+v, want %+v", hooks, want)
	}
	text := strings.Join(problems, "\n")
	for _, part := range []string{"spec.analysis.webhooks[2].metadata.n", "webhooks[2].name: 1 is no text", "webhooks[2].timeout: \"soon\"", "webhooks[2].type: some-day"} {
		if !strings.Contains(text, part) {
			t.Errorf("want %q in:\n%s", part, text)
		}
	}
	if old, _ := webhook.Read(map[string]any{"spec": map[string]any{"canaryAnalysis": map[string]any{"webhooks": []any{map[string]any{"name": "smoke", "url": "http://t/"}}}}}); len(old) != 1 {
		t.Errorf("v1alpha3: %v", old)
	}
}
