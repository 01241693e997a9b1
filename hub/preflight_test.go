package hub

import (
	"path/filepath"
	"testing"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// A distribution with pre-flights offers a release to be tried out first, says so after a restart too, and
// offers it to be taken as soon as the one spoke there is has answered.
func TestAReleaseIsTriedOutBeforeItIsOffered(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.0", "example.com/backend:1.0.0")
	dir := filepath.Join(t.TempDir(), "data")
	hub := start(t, Config{Dir: dir})
	if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir, IntervalSeconds: 1, PreflightSeconds: 3600}}); err != nil {
		t.Fatal(err)
	}
	if r := hub.release(t, "1.0.0"); r.GetPreflightUntil() == nil {
		t.Fatalf("got %v, want it in pre-flight", r)
	}
	identity := hub.enrol(t, "acme/eu-1")
	offer := func(m *syncv1.DesiredState) *syncv1.Offer {
		t.Helper()
		if len(m.GetDistributions()) != 1 || len(m.GetDistributions()[0].GetOffers()) != 1 {
			t.Fatalf("got %v", m)
		}
		return m.GetDistributions()[0].GetOffers()[0]
	}
	stream, _ := hub.dial(t, identity).connect(t, 0)
	desired := hear(t, stream).GetDesired()
	if !offer(desired).GetPreflight() {
		t.Fatalf("got %v, want it to be tried out only", desired)
	}
	if r := hub.row(t); r.GetDesiredVersion() != "" || r.GetPhase() != "Preflight(1.0.0)" {
		t.Errorf("got %v", r)
	}

	hub.stop()
	hub = start(t, Config{Dir: dir, Listen: hub.Addr})
	spoke := hub.dial(t, identity)
	stream, _ = spoke.connect(t, desired.GetRevision()) // has it: nothing is sent
	answer := &syncv1.Event{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PREFLIGHT, Distribution: "shop", Version: "1.0.0",
		Preflight: &syncv1.Preflight{Version: "1.0.0", BundleDigest: offer(desired).GetDigest(), Outcome: "Changes", Changes: []*syncv1.KindChange{{Kind: "Deployment", Verb: "create", Count: 1}}}}
	say(t, stream, &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: answer}})
	if m := hear(t, stream); m.GetAck().GetSeq() != 1 {
		t.Fatalf("got %v, want the acknowledgement", m)
	}
	now := hear(t, stream).GetDesired()
	for len(now.GetDistributions()[0].GetOffers()) == 0 { // its pre-flight is over and its rollout has not begun
		now = hear(t, stream).GetDesired()
	}
	if offer(now).GetPreflight() || now.GetRevision() == desired.GetRevision() {
		t.Errorf("got %v after revision %d, want it offered", now, desired.GetRevision())
	}
	r, err := hub.fleet.GetRelease(t.Context(), &fleetv1.GetReleaseRequest{Distribution: "shop", Version: "1.0.0"})
	if err != nil || r.GetRelease().GetPreflightUntil() != nil || len(r.GetClusters()) != 1 || r.GetClusters()[0].GetPreflight().GetOutcome() != "Changes" {
		t.Errorf("got %v, %v", r, err)
	}
	spoke.fetch(t, offer(desired))
}
