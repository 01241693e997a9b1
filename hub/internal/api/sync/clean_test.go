package syncapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func TestAPreflightIsMadeSafeToPrintAndToKeep(t *testing.T) {
	now := time.Now().UTC()
	p := &syncv1.Preflight{Version: "1.1.0", BundleDigest: "latest", Outcome: "Changes", Reason: "odd\x1b[2J\nlines", At: wire.Time(now.Add(time.Hour))}
	for i := range mostChanges + 50 {
		p.Changes = append(p.Changes, &syncv1.KindChange{Kind: fmt.Sprintf("Kind%d", i), Verb: "create", Count: 2})
	}
	m := &syncv1.Event{Seq: 1, At: wire.Time(now), Kind: syncv1.EventKind_EVENT_KIND_PREFLIGHT, Distribution: "shop", Version: "1.1.0", Message: "anything", Preflight: p}
	e := event("acme/eu-1", m, now)
	got := e.Preflight
	if got == nil || got.Bundle != "" || got.Reason != "odd [2J lines" || !got.At.Equal(now) {
		t.Fatalf("got %+v of %+v", got, e)
	}
	if n := len(got.Changes); n != mostChanges+1 || got.Changes[n-1] != (fleet.KindChange{Kind: "of other kinds", Verb: fleet.VerbCreate, Count: 100}) {
		t.Errorf("got %d changes, the last is %v", n, got.Changes[n-1])
	}
	if !strings.HasPrefix(e.Message, "1.1.0: changes: create 2 Kind0") || len(e.Message) > maxMessage {
		t.Errorf("got %q", e.Message)
	}
	m.Version = "1.2.0"
	if e := event("acme/eu-1", m, now); e.Kind != fleet.EventAgent || e.Preflight != nil || !strings.Contains(e.Message, "carries a pre-flight of") {
		t.Errorf("of another version: got %+v", e)
	}
}

func TestACanaryIsMadeSafeToPrint(t *testing.T) {
	i, err := installation(&syncv1.SubscriptionStatus{Distribution: "shop", Phase: string(fleet.Progressing), Canary: &syncv1.Canary{Step: 1, Steps: 2, Gate: "odd\x1b[2J",
		Traffic: []*syncv1.CanaryTraffic{{Service: "back\nend"}, {Service: strings.Repeat("x", 1000)}}}})
	if err != nil || i.Canary == nil {
		t.Fatalf("got %+v, %v", i.Canary, err)
	}
	if c := i.Canary; c.Gate != "odd [2J" || c.Traffic[0].Service != "back end" || len(c.Traffic[1].Service) > maxName {
		t.Errorf("got %+v", c)
	}
	if i, err = installation(&syncv1.SubscriptionStatus{Distribution: "shop", Phase: string(fleet.Progressing), Canary: &syncv1.Canary{Step: 3, Steps: 2}}); err != nil || i.Canary != nil {
		t.Errorf("step 3 of 2: got %+v, %v", i.Canary, err)
	}
}
