package agent

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// Law 10.
func TestMessagesAreShort(t *testing.T) {
	if n := len([]rune(oneLine(strings.Repeat("x", 1000)))); n != longest {
		t.Errorf("%d characters", n)
	}
}

const private = "s3cret-of-acme"

// memo is a journal that remembers what was written.
type memo struct {
	memory
	record journal.Record
	events []fleet.Event
}

func (m *memo) PutRecord(r journal.Record, evs ...fleet.Event) error {
	m.record, m.events = r, evs
	return nil
}

// Every text of a record and of an event is cleaned before it is kept, and the caller's own are left as they are.
func TestWhatIsKeptIsClean(t *testing.T) {
	m := &memo{}
	k := newKeeper(m, redact.Of([]string{private}))
	i := fleet.Installation{Reason: private, HealthMessage: "a " + private, DriftMessage: private + " b"}
	r := journal.Record{Distribution: "shop", Installation: i, Held: map[string]journal.Hold{"1": {Reason: private}},
		Tried: map[string]journal.Trial{"1": {Result: fleet.Preflight{Reason: private}}}}
	e := fleet.Event{Message: private, Installation: &i, Preflight: &fleet.Preflight{Reason: private}}
	if err := k.PutRecord(r, e); err != nil {
		t.Fatal(err)
	}
	got := m.events[0]
	for what, text := range map[string]string{"reason": m.record.Installation.Reason, "health": m.record.Installation.HealthMessage, "drift": m.record.Installation.DriftMessage,
		"held": m.record.Held["1"].Reason, "tried": m.record.Tried["1"].Result.Reason, "message": got.Message, "event's reason": got.Installation.Reason,
		"pre-flight": got.Preflight.Reason} {
		if strings.Contains(text, private) || !strings.Contains(text, "…") {
			t.Errorf("%s: %q", what, text)
		}
	}
	if r.Held["1"].Reason != private || i.Reason != private || e.Preflight.Reason != private {
		t.Error("the caller's own was changed")
	}
}

// A panic's value goes through the sink, in the log and in what ends the spoke.
func TestPanicsAreClean(t *testing.T) {
	var log bytes.Buffer
	s := redact.Of([]string{private})
	a := &Agent{cfg: Config{Private: s, Log: slog.New(s.Handler(slog.NewTextHandler(&log, nil)))}, broken: make(chan error, 1)}
	func() {
		defer a.recovered("shop")
		panic("cannot handle " + private)
	}()
	err := <-a.broken
	if text := log.String() + err.Error(); strings.Contains(text, private) || !strings.Contains(text, "cannot handle …") || !strings.Contains(text, "redact_test.go") {
		t.Error(text)
	}
}

func TestValuesOfAnOverlay(t *testing.T) {
	s := redact.New()
	s.Know("", overlayValues([]provenance.File{
		{Path: "kustomization.yaml", Data: []byte(`resources: [https://git.example.com/vendor/shop//dist/app, secrets-of-backend.yaml]
namespace: production-eu
images: [{name: registry.example.com/backend, newTag: 1.2.3-hotfix}]
patches:
- path: patches/backend-replicas.yaml
  target: {kind: Deployment, name: backend-workers}
- patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: backend-workers, annotations: {example.com/owner: team-of-ines}}
configMapGenerator: [{name: settings-of-backend, literals: [PASSWORD=hunter2-hunter2]}]
`)},
		{Path: "a.env", Data: []byte("DSN=postgres://shop:pa55word@db.internal/shop\n")},
		{Path: "broken.yaml", Data: []byte("kind: ConfigMap\nvalue: [in-a-broken-file\n")},
		{Path: "two.yaml", Data: []byte("kind: NetworkPolicy\nvalue: in-the-first-doc\n---\n---\nvalue: 1234567890\n")},
	}))
	for _, secret := range []string{"team-of-ines", "hunter2-hunter2", "postgres://shop:pa55word@db.internal/shop", "[in-a-broken-file", "in-the-first-doc", "1234567890"} {
		if got := s.Text("<" + secret + ">"); strings.Contains(got, secret) {
			t.Errorf("%s is not known", secret)
		}
	}
	for _, name := range []string{"secrets-of-backend.yaml", "production-eu", "registry.example.com/backend", "1.2.3-hotfix", "patches/backend-replicas.yaml", "Deployment", "backend-workers",
		"settings-of-backend", "ConfigMap", "NetworkPolicy", "apps/v1", "https://git.example.com/vendor/shop//dist/app"} {
		if got := s.Text(name); got != name {
			t.Errorf("%s became %s", name, got)
		}
	}
}
