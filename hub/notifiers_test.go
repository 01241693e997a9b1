package hub

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// forge is as much of GitHub as a commit's status needs, and a chat beside it. It records what is posted.
type forge struct {
	*httptest.Server
	mu     sync.Mutex
	away   bool
	posts  []shown  // of commits, in order
	notes  []string // to the chat: "Completed 1.0.0"
	ids    []string // of the notes
	tried  int      // while it was away
	change chan struct{}
}

type shown struct{ Commit, Context, State, Description string }

func newForge(t *testing.T) *forge {
	f := &forge{change: make(chan struct{}, 1)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		select {
		case f.change <- struct{}{}:
		default:
		}
	}()
	if f.away {
		f.tried++
		w.WriteHeader(http.StatusForbidden) // at once, and final for the plugin
		return
	}
	switch commit := filepath.Base(r.URL.Path); {
	case r.URL.Path == "/chat":
		var m struct{ Phase, To string }
		_ = json.NewDecoder(r.Body).Decode(&m)
		// A hub that is stopped before it knows that it was heard says it again, under the same id.
		if id := r.Header.Get("Webhook-Id"); !slices.Contains(f.ids, id) {
			f.ids, f.notes = append(f.ids, id), append(f.notes, m.Phase+" "+m.To)
		}
	case r.Method == http.MethodGet:
		newest := map[string]shown{}
		for _, s := range f.posts {
			if s.Commit == filepath.Base(filepath.Dir(r.URL.Path)) {
				newest[s.Context] = s
			}
		}
		statuses := []map[string]string{}
		for _, s := range newest {
			statuses = append(statuses, map[string]string{"context": s.Context, "state": s.State, "description": s.Description})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"statuses": statuses})
	case strings.HasPrefix(r.URL.Path, "/repos/vendor/shop/statuses/"):
		s := shown{Commit: commit}
		_ = json.NewDecoder(r.Body).Decode(&s)
		s.Commit = commit
		f.posts = append(f.posts, s)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "{}")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *forge) setAway(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

func (f *forge) seen() (posts []shown, notes []string, tried int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.posts), slices.Clone(f.notes), f.tried
}

// eventually waits until what was recorded is as wanted, asking after each request.
func (f *forge) eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	late := time.After(time.Minute)
	for !ask() {
		select {
		case <-f.change:
		case <-late:
			posts, notes, tried := f.seen()
			t.Fatalf("waiting for %s: posts %q, notes %q, %d tries while away", what, posts, notes, tried)
		}
	}
}

// shows waits until a commit's last status is as wanted.
func (f *forge) shows(t *testing.T, commit, state, description string) {
	t.Helper()
	f.eventually(t, state+" "+description, func() bool {
		posts, _, _ := f.seen()
		for _, s := range slices.Backward(posts) {
			if s.Commit == commit {
				return s.State == state && s.Description == description
			}
		}
		return false
	})
}

func buildNotify(t *testing.T) (path, sum string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	c := exec.Command("go", "build", "-o", path, "../plugins/notify")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, fmt.Sprintf("%x", sha256.Sum256(data))
}

// withNotifiers is a hub.yaml with the built plugin, once for commits and once for a chat.
func withNotifiers(t *testing.T, path, sum, address string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hub.yaml")
	text := fmt.Sprintf(`version: 1
plugins:
- {name: commits, path: %[1]s, sha256: %[2]s, kinds: [notifier], args: [github, --token-from, TOKEN, --api, "%[3]s", --repository, vendor/shop, --plain-http], env: {TOKEN: t}}
- {name: chat, path: %[1]s, sha256: %[2]s, kinds: [notifier], args: [webhook, --url, "%[3]s/chat", --tell, terminal, --plain-http], timeout: 10s}
`, path, sum, address)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// follower is one spoke, with what it says of its subscription.
type follower struct {
	identity *tls.Config
	stream   syncv1.SyncService_ConnectClient
	seq      uint64
	last     *syncv1.SubscriptionStatus
}

func (r *running) follower(t *testing.T, name string) *follower {
	f := &follower{identity: r.enrol(t, name), last: &syncv1.SubscriptionStatus{Distribution: "shop", Variant: "app", Namespace: "shop"}}
	f.connect(t, r)
	return f
}

func (f *follower) connect(t *testing.T, r *running) {
	t.Helper()
	s, err := r.dial(t, f.identity).client.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: &syncv1.Hello{SpokeVersion: "dev", KubernetesVersion: "v1.36.3",
		JournalId: "j1", Subscriptions: []*syncv1.SubscriptionStatus{f.last}}}})
	if hear(t, s).GetWelcome() == nil {
		t.Fatal("the first answer is no Welcome")
	}
	f.stream = s
}

// says sends where its delivery is, and waits until the hub has it on disk.
func (f *follower) says(t *testing.T, phase, running, target string) {
	t.Helper()
	f.seq++
	f.last = &syncv1.SubscriptionStatus{Distribution: "shop", Variant: "app", Namespace: "shop", Phase: phase,
		RunningVersion: running, TargetVersion: target, Health: "Healthy", Objects: 1, Ready: 1}
	say(t, f.stream, &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: &syncv1.Event{
		Seq: f.seq, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Distribution: "shop", Version: target, Message: phase, Status: f.last}}})
	for {
		if m := hear(t, f.stream); m.GetAck().GetSeq() == f.seq {
			return
		}
	}
}

// TestTheFleetAtTheCommit: two clusters take a release, then another that fails on one, and the forge shows
// each as one status of its commit, over a restart of the hub and while it cannot be reached.
func TestTheFleetAtTheCommit(t *testing.T) {
	path, sum := buildNotify(t)
	f := newForge(t)
	v := newVendor(t)
	v.tag(t, "1.0.0", "example.com/backend:1.0.0")
	dir := filepath.Join(t.TempDir(), "data")
	cfg := Config{Dir: dir, File: withNotifiers(t, path, sum, f.URL)}
	hub := start(t, cfg)
	spokes := [2]*follower{hub.follower(t, "acme/eu-1"), hub.follower(t, "acme/eu-2")}
	if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir, IntervalSeconds: 1}}); err != nil {
		t.Fatal(err)
	}
	first := hub.release(t, "1.0.0").GetCommit()
	f.shows(t, first, "pending", "0 of 2 clusters run 1.0.0; 2 under way")
	spokes[0].says(t, "Settling", "", "1.0.0")
	spokes[0].says(t, "Succeeded", "1.0.0", "1.0.0")
	spokes[1].says(t, "Succeeded", "1.0.0", "1.0.0")
	f.shows(t, first, "success", "2 of 2 clusters run 1.0.0")
	f.eventually(t, "the end of the rollout", func() bool { _, notes, _ := f.seen(); return len(notes) == 1 })

	// Started anew it has nothing to tell: the next thing to be told is the next release.
	hub.stop()
	before, _, _ := f.seen()
	cfg.Listen = hub.Addr
	hub = start(t, cfg)
	for _, s := range spokes {
		s.connect(t, hub)
	}
	v.tag(t, "1.1.0", "example.com/backend:1.1.0")
	second := hub.release(t, "1.1.0").GetCommit()
	f.shows(t, second, "pending", "0 of 2 clusters run 1.1.0; 2 under way")
	posts, notes, _ := f.seen()
	if n := slices.IndexFunc(posts[len(before):], func(s shown) bool { return s.Commit == first }); n >= 0 {
		t.Errorf("told again after a restart: %v", posts[len(before)+n])
	}
	if !slices.Equal(notes, []string{"Completed 1.0.0"}) && !slices.Equal(notes, []string{"Completed 1.0.0", "Completed 1.1.0"}) {
		t.Errorf("told the chat %q", notes)
	}

	// While the forge is away a cluster goes back, and the hub is started anew; then the last state arrives.
	f.setAway(true)
	spokes[0].says(t, "Succeeded", "1.1.0", "1.1.0")
	spokes[1].says(t, "RolledBack", "1.0.0", "1.1.0")
	f.eventually(t, "a try", func() bool { _, _, tried := f.seen(); return tried > 0 })
	hub.stop()
	start(t, cfg)
	_, _, sofar := f.seen()
	f.eventually(t, "a try of the next hub", func() bool { _, _, tried := f.seen(); return tried > sofar })
	f.setAway(false)
	f.shows(t, second, "failure", "1 of 2 clusters run 1.1.0; 1 RolledBack")
	f.eventually(t, "the end of both rollouts", func() bool { _, notes, _ := f.seen(); return len(notes) >= 2 })

	// One name for each tag, and nothing twice.
	posts, notes, _ = f.seen()
	for n, s := range posts {
		want := map[string]string{first: "wheelwright/shop/1.0.0", second: "wheelwright/shop/1.1.0"}[s.Commit]
		if s.Context != want {
			t.Errorf("a status of the name %s, want %s", s.Context, want)
		}
		if slices.Contains(posts[:n], s) {
			t.Errorf("posted twice: %v", s)
		}
	}
	if slices.Sort(notes); len(slices.Compact(slices.Clone(notes))) != len(notes) {
		t.Errorf("told twice: %q", notes)
	}
	t.Logf("posts %q, notes %q", posts, notes)
}
