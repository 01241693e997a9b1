package wire

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func TestAnInstallationSurvivesTheWire(t *testing.T) {
	d := fleet.Digest("sha256:" + strings.Repeat("a", 64))
	i := fleet.Installation{
		Distribution: "shop", Variant: "app-istio", Namespace: "shop", Policy: fleet.Policy{Range: "1.x", Prereleases: true, Pin: &fleet.Pin{Version: "1.0.0", Reason: "audit", Source: "overlay"}},
		Running: "1.0.0", Bundle: d, Overlay: d, Rendered: d, Phase: fleet.RolledBack, Target: "1.1.0", Reason: "database: ImagePullBackOff",
		PhaseSince: time.Unix(1, 0).UTC(), Health: fleet.Healthy, HealthMessage: "m", Objects: 24, Ready: 23, DriftCorrected: 2, Drifted: 1, DriftMessage: "d", ObservedAt: time.Unix(2, 0).UTC(),
	}
	// Every field is set, so a field that the translation forgets shows as zero.
	for f := range reflect.TypeOf(i).NumField() {
		if reflect.ValueOf(i).Field(f).IsZero() {
			t.Fatalf("test leaves %s unset", reflect.TypeOf(i).Field(f).Name)
		}
	}
	e := fleet.Event{Seq: 7, At: time.Unix(3, 0).UTC(), Cluster: "acme/eu-1", Distribution: "shop", Version: "1.1.0", Kind: fleet.EventPhase, Message: "x", Installation: &i}
	got, err := FromEvent("acme/eu-1", Event(e))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, e) {
		t.Errorf("got  %+v\nwant %+v", got, e)
	}
	e.Kind = fleet.EventPreflight
	e.Preflight = &fleet.Preflight{Version: "1.1.0", Bundle: d, Overlay: d, Outcome: fleet.OutcomeChanges, Reason: "r",
		Changes: []fleet.KindChange{{Kind: "Service", Verb: fleet.VerbDelete, Count: 2}}, Reversibility: fleet.OneWay, At: time.Unix(4, 0).UTC()}
	for f := range reflect.TypeOf(*e.Preflight).NumField() {
		if reflect.ValueOf(*e.Preflight).Field(f).IsZero() {
			t.Fatalf("test leaves %s unset", reflect.TypeOf(*e.Preflight).Field(f).Name)
		}
	}
	if got, err = FromEvent("acme/eu-1", Event(e)); err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("got  %+v\nwant %+v, %v", got.Preflight, e.Preflight, err)
	}
}

func TestWhatIsNoNounIsRefused(t *testing.T) {
	for _, m := range []*syncv1.Event{
		{Seq: 1},
		{Seq: 1, Kind: 99},
		{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PREFLIGHT},
		{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PREFLIGHT, Preflight: &syncv1.Preflight{Outcome: "Fine"}},
		{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PREFLIGHT, Preflight: &syncv1.Preflight{Outcome: "Ok", Changes: []*syncv1.KindChange{{Kind: "Service", Verb: "eat"}}}},
		{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Status: &syncv1.SubscriptionStatus{Distribution: "../x"}},
		{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Status: &syncv1.SubscriptionStatus{Distribution: "shop", BundleDigest: "md5:1"}},
	} {
		if _, err := FromEvent("acme/eu-1", m); err == nil {
			t.Errorf("%v: want an error", m)
		}
	}
}
