package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/plugins/notify/internal/message"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

const commit = "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233c"

func event(change func(*pluginv1.Event)) *pluginv1.NotifyRequest {
	e := &pluginv1.Event{
		Id: "acme/eu-1:4711", At: timestamppb.Now(), Distribution: "app", VersionFrom: "1.2.0", VersionTo: "1.4.0", Cluster: "acme/eu-1",
		Phase: "RolledBack", Severity: pluginv1.Severity_SEVERITY_ERROR, Terminal: true, Message: "backend: success rate 92.1 % < 99 %",
		Repository: "https://github.com/vendor/app.git", Tag: "1.4.0", Commit: commit,
	}
	if change != nil {
		change(e)
	}
	return &pluginv1.NotifyRequest{Call: &pluginv1.Call{Id: "c", Deadline: timestamppb.New(time.Now().Add(20 * time.Second))}, Event: e}
}

// notifierOf is what the arguments make; ADDRESS and TOKEN are variables. The log is kept.
func notifierOf(t *testing.T, args, address string) (*notifier, *strings.Builder) {
	t.Helper()
	env := map[string]string{"ADDRESS": address, "TOKEN": "hunter2", "KEY": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
	s, err := parse(strings.Fields(args+" --plain-http"), func(name string) string { return env[name] }, none, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	return &notifier{settings: s, log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))}, &said
}

func TestChats(t *testing.T) {
	for kind, mark := range map[string]string{"slack": `"blocks":[`, "teams": `"version":"1.4"`} {
		var got []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = append(got, string(body))
			if r.Header.Get("Content-Type") != "application/json" || r.URL.Path != "/services/hunter2" {
				t.Errorf("%s: %s %v", kind, r.URL, r.Header)
			}
			w.WriteHeader(http.StatusAccepted)
		}))
		n, said := notifierOf(t, kind+" --url-from ADDRESS", server.URL+"/services/hunter2")
		if _, err := n.Notify(t.Context(), event(nil)); err != nil || len(got) != 1 || !strings.Contains(got[0], mark) {
			t.Errorf("%s: %v %q", kind, err, got)
		}
		server.Close()
		r := event(nil)
		r.Call.Deadline = timestamppb.New(time.Now().Add(50 * time.Millisecond))
		_, err := n.Notify(t.Context(), r)
		if err == nil || !strings.HasPrefix(err.Error(), "tell "+kind+" of app 1.4.0: 127.0.0.1:") || strings.Contains(err.Error()+said.String(), "hunter2") {
			t.Errorf("%s: %v\n%s", kind, err, said)
		}
	}
}

func TestWhatIsTold(t *testing.T) {
	told := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told++ }))
	defer server.Close()
	terminal := event(func(e *pluginv1.Event) { e.Severity = pluginv1.Severity_SEVERITY_INFO })
	asks := event(func(e *pluginv1.Event) { e.Terminal, e.Severity = false, pluginv1.Severity_SEVERITY_WARNING })
	steps := event(func(e *pluginv1.Event) { e.Terminal, e.Severity = false, pluginv1.Severity_SEVERITY_INFO })
	for tell, want := range map[string][]bool{"terminal": {true, false, false}, "attention": {true, true, false}, "all": {true, true, true}} {
		n, _ := notifierOf(t, "slack --url-from ADDRESS --tell "+tell, server.URL)
		for i, r := range []*pluginv1.NotifyRequest{terminal, asks, steps} {
			before := told
			if _, err := n.Notify(t.Context(), r); err != nil || (told > before) != want[i] {
				t.Errorf("%s: event %d, %v", tell, i, err)
			}
		}
	}
	n, _ := notifierOf(t, "slack --url-from ADDRESS", server.URL)
	if _, err := n.Notify(t.Context(), &pluginv1.NotifyRequest{}); err == nil {
		t.Error("no event and no error")
	}
	if before := told; n.sendSample(t.Context()) != nil || told != before+1 {
		t.Error("no sample")
	}
}

// The receiver can tell a repeat, and that it comes from us.
func TestWebhookIsSignedAndRepeatable(t *testing.T) {
	type arrived struct{ id, key, authorization, stamp, signature, body string }
	var all []arrived
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := r.Header
		all = append(all, arrived{h.Get("Webhook-Id"), h.Get("Idempotency-Key"), h.Get("Authorization"), h.Get("Webhook-Timestamp"), h.Get("Webhook-Signature"), string(body)})
		if len(all) == 1 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	defer server.Close()
	n, said := notifierOf(t, "webhook --url-from ADDRESS --secret-from KEY --header-from Authorization=TOKEN", server.URL+"/in")
	for range 2 {
		if _, err := n.Notify(t.Context(), event(func(e *pluginv1.Event) { e.At = timestamppb.New(time.Unix(1, 0)) })); err != nil {
			t.Fatal(err)
		}
	}
	if len(all) != 3 || strings.Contains(said.String(), "hunter2") {
		t.Fatalf("%d arrived, %s", len(all), said)
	}
	for i, a := range all {
		at, err := strconv.ParseInt(a.stamp, 10, 64)
		if err != nil || a.id != "acme/eu-1:4711" || a.key != a.id || a.authorization != "hunter2" || a.body != all[0].body {
			t.Errorf("%d: %+v, %v", i, a, err)
		}
		if want, err := message.Sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", a.id, time.Unix(at, 0), []byte(a.body)); err != nil || a.signature != want {
			t.Errorf("%d: signature %s, want %s", i, a.signature, want)
		}
	}
	unsigned, _ := notifierOf(t, "webhook --url-from ADDRESS", server.URL)
	if _, err := unsigned.Notify(t.Context(), event(nil)); err != nil || all[3].signature != "" || all[3].authorization != "" {
		t.Errorf("%v %+v", err, all[3])
	}
}

// host is as much of GitHub or GitLab as a status needs, with their peculiarities.
type host struct {
	t        *testing.T
	gitlab   bool
	old      bool // GitLab before it took a state twice
	mu       sync.Mutex
	statuses []map[string]string // the oldest first
	posts    int
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	reading, writing, key, secret := "/repos/vendor/app/commits/"+commit+"/status", "/repos/vendor/app/statuses/"+commit, "Authorization", "Bearer hunter2"
	if h.gitlab {
		reading, writing, key, secret = "/api/v4/projects/vendor%2Fapp/repository/commits/"+commit+"/statuses", "/api/v4/projects/vendor%2Fapp/statuses/"+commit, "Private-Token", "hunter2"
	}
	switch {
	case r.Header.Get(key) != secret:
		w.WriteHeader(http.StatusUnauthorized)
	case r.Method == http.MethodGet && r.URL.EscapedPath() == reading:
		if h.gitlab {
			h.answer(w, h.statuses)
			return
		}
		newest := slices.Clone(h.statuses)
		slices.Reverse(newest)
		h.answer(w, map[string]any{"state": "pending", "statuses": newest})
	case r.Method == http.MethodPost && r.URL.EscapedPath() == writing:
		var s map[string]string
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			h.t.Error(err)
		}
		h.post(w, s)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (h *host) post(w http.ResponseWriter, s map[string]string) {
	h.posts++
	same := func(o map[string]string) bool { return o["context"] == s["context"] && o["name"] == s["name"] }
	if i := slices.IndexFunc(h.statuses, same); h.gitlab && i >= 0 {
		if h.old && h.statuses[i]["status"] == s["state"] {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"message":"Cannot transition status via :run from :%s (Reason(s): Status cannot transition via \"run\")"}`, s["state"])
			return
		}
		h.statuses = slices.Delete(h.statuses, i, i+1)
	} else if !h.gitlab {
		h.statuses = slices.DeleteFunc(h.statuses, same) // the combined view has the newest of each context
	}
	s["status"] = s["state"]
	h.statuses = append(h.statuses, s)
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, "{}")
}

func (h *host) answer(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		h.t.Error(err)
	}
}

// A commit shows one status for the fleet, whatever the number of clusters and events.
func TestOneStatusUpdatedInPlace(t *testing.T) {
	type step struct {
		phase   string
		summary map[string]uint32
		state   string // as GitHub has it
		text    string
		posts   int // after it
	}
	steps := []step{
		{"Underway", map[string]uint32{"Progressing": 3, "Waiting": 1}, "pending", "0 of 4 clusters run 1.4.0; 4 under way", 1},
		{"Underway", map[string]uint32{"Progressing": 3, "Waiting": 1}, "pending", "0 of 4 clusters run 1.4.0; 4 under way", 1}, // a repeat
		{"Completed", nil, "pending", "0 of 4 clusters run 1.4.0; 4 under way", 1},                                              // a rollout's news
		{"Underway", map[string]uint32{"Succeeded": 3, "Waiting": 1}, "pending", "3 of 4 clusters run 1.4.0; 1 under way", 2},
		{"Done", map[string]uint32{"Succeeded": 4}, "success", "4 of 4 clusters run 1.4.0", 3},
		{"Failed", map[string]uint32{"Succeeded": 3, "RolledBack": 1}, "failure", "3 of 4 clusters run 1.4.0; 1 RolledBack", 4},
	}
	lab := map[string]string{"pending": "running", "success": "success", "failure": "failed"}
	for _, h := range []*host{{t: t}, {t: t, gitlab: true}, {t: t, gitlab: true, old: true}} {
		server := httptest.NewServer(h)
		h.statuses = []map[string]string{{"context": "ci/build", "name": "ci/build", "state": "success", "status": "success"}}
		kind, key, args := "github", "context", "github --token-from TOKEN --repository vendor/app --api "+server.URL
		if h.gitlab {
			kind, key, args = "gitlab", "name", "gitlab --token-from TOKEN --repository vendor/app --api "+server.URL+"/api/v4"
		}
		n, said := notifierOf(t, args, "")
		for i, s := range steps {
			answer, err := n.Notify(t.Context(), event(func(e *pluginv1.Event) { e.Cluster, e.Message, e.Phase, e.Summary = "", "", s.phase, s.summary }))
			if err != nil || h.posts != s.posts || len(h.statuses) != 2 {
				t.Fatalf("%s, step %d: %v, %d posts, %v", kind, i, err, h.posts, h.statuses)
			}
			if want := "https://github.com/vendor/app/commit/" + commit; s.summary != nil && answer.GetReference() != want {
				t.Errorf("%s: seen at %q", kind, answer.GetReference())
			}
			if h.old && s.posts == 2 {
				continue // the old one keeps the old words while the state is the same
			}
			shown := h.statuses[1]
			if want := map[bool]string{false: s.state, true: lab[s.state]}[h.gitlab]; shown[key] != "wheelwright/app/1.4.0" || shown["state"] != want || shown["description"] != s.text {
				t.Errorf("%s, step %d: %v", kind, i, shown)
			}
			if h.gitlab && h.statuses[1]["ref"] != "1.4.0" {
				t.Errorf("ref: %v", shown)
			}
		}
		if strings.Contains(said.String(), "hunter2") {
			t.Error(said)
		}
		server.Close()
	}
}

// A token goes to the host that it is for and nowhere else.
func TestStatusIsRefused(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"Not Found"}`)
	}))
	defer server.Close()
	for _, test := range []struct {
		args   string
		change func(*pluginv1.Event)
		asks   bool
		want   string
	}{
		{"github --token-from TOKEN", func(e *pluginv1.Event) { e.Repository = "https://evil.example/vendor/app" }, false, "the release comes from evil.example and the token is for github.com"},
		{"gitlab --token-from TOKEN", func(*pluginv1.Event) {}, false, "the release comes from github.com and the token is for gitlab.com"},
		{"github --token-from TOKEN", func(e *pluginv1.Event) { e.Repository = "/srv/git/app" }, false, "not to be read as https://HOST/OWNER/NAME"},
		{"github --token-from TOKEN", func(e *pluginv1.Event) { e.Commit = "../../../user" }, false, "names no commit"},
		{"github --token-from TOKEN --repository a/b --api " + server.URL, func(*pluginv1.Event) {}, true, "may it set commit statuses of this repository?"},
	} {
		n, said := notifierOf(t, test.args, "")
		before := asked
		_, err := n.Notify(t.Context(), event(func(e *pluginv1.Event) { e.Cluster, e.Phase = "", "Done"; test.change(e) }))
		if err == nil || !strings.Contains(err.Error(), test.want) || (asked > before) != test.asks || strings.Contains(err.Error()+said.String(), "hunter2") {
			t.Errorf("%s: %v", test.args, err)
		}
	}
}
