package wire

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// whole: every field is set, so one that the translation forgets shows as zero.
func whole(t *testing.T, v any, but ...string) {
	t.Helper()
	for f := range reflect.TypeOf(v).NumField() {
		if name := reflect.TypeOf(v).Field(f).Name; reflect.ValueOf(v).Field(f).IsZero() && !slices.Contains(but, name) {
			t.Fatalf("test leaves %T.%s unset", v, name)
		}
	}
}

func policy(t *testing.T) fleet.Policy {
	t.Helper()
	windows, err := fleet.ParseWindows([]string{"Mon-Fri 22:00-04:00 Europe/Berlin", "daily 01:00-03:00 UTC"})
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Policy{Range: "1.x", Prereleases: true, Patch: fleet.Automatic, Minor: fleet.AskFirst, Major: fleet.NeverTaken, Windows: windows,
		Pin:     &fleet.Pin{Version: "1.0.0", Reason: "audit", Source: fleet.PinOverlay, Author: "ada", Until: time.Unix(1800000000, 0).UTC()},
		FromHub: fleet.FromHub{Told: true, Pins: true, Decisions: true, Rollbacks: true}}
}

func TestWhatTheHubSaysSurvivesTheWire(t *testing.T) {
	for _, kind := range []fleet.WithdrawalKind{fleet.Recalled, fleet.TakenBack} {
		w := fleet.Withdrawal{Version: "1.4.0", Kind: kind, Reason: "it loses orders", To: "1.3.0"}
		whole(t, w)
		if got := FromWithdrawals([]*syncv1.Withdrawal{Withdrawal(w)}); !reflect.DeepEqual(got, []fleet.Withdrawal{w}) {
			t.Errorf("got %+v, want %+v", got, w)
		}
	}
	if w := FromWithdrawal(&syncv1.Withdrawal{Version: "1.4.0", Kind: 99}); w.Kind != fleet.Recalled {
		t.Errorf("a withdrawal of a kind to come: got %+v", w)
	}
	at := time.Unix(5, 0).UTC()
	p := fleet.HubPin{Cluster: "acme/eu-1", Distribution: "shop", Version: "1.0.0", Reason: "freeze", Author: "bob", Until: at, Created: at}
	whole(t, p)
	want := fleet.Pin{Version: "1.0.0", Reason: "freeze", Source: fleet.PinHub, Author: "bob", Until: at}
	if got, err := FromHubPin(HubPin(p)); err != nil || *got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := FromHubPin(nil); got != nil || err != nil {
		t.Errorf("no pin: got %+v, %v", got, err)
	}
	d := fleet.HubDecision{Cluster: "acme/eu-1", Distribution: "shop", Version: "1.4.0", Approved: true, Reason: "yes", Author: "bob", At: at, Asked: at.Add(-1)}
	whole(t, d)
	if got, err := FromHubDecision("acme/eu-1", "shop", HubDecision(d)); err != nil || got != d {
		t.Errorf("got %+v, %v", got, err)
	}
	offers := []*syncv1.Offer{{Version: "1.0.0"}, {Version: "1.1.0", Stops: []string{"1.0.0"}}, {Version: "1.2.0", Preflight: true}}
	if got := FromOffers(offers); !reflect.DeepEqual(got, []fleet.Offered{{Version: "1.0.0"}, {Version: "1.1.0", Stops: []string{"1.0.0"}}}) {
		t.Errorf("got %+v", got)
	}
	if _, err := FromHubPin(&syncv1.HubPin{Version: "latest"}); err == nil {
		t.Error("a pin to no version: want an error")
	}
	for _, m := range []*syncv1.HubDecision{{Version: "1.0.0"}, {At: Time(at)}} {
		if _, err := FromHubDecision("acme/eu-1", "shop", m); err == nil {
			t.Errorf("%v: want an error", m)
		}
	}
}

func TestAnInstallationSurvivesTheWire(t *testing.T) {
	d := fleet.Digest("sha256:" + strings.Repeat("a", 64))
	i := fleet.Installation{
		Distribution: "shop", Variant: "app-istio", Namespace: "shop", Policy: policy(t),
		Running: "1.0.0", Bundle: d, Overlay: d, Rendered: d, Phase: fleet.RolledBack, Target: "1.1.0", Reason: "database: ImagePullBackOff",
		PhaseSince: time.Unix(1, 0).UTC(), Health: fleet.Healthy, HealthMessage: "m", Objects: 24, Ready: 23, DriftCorrected: 2, Drifted: 1, DriftMessage: "d", ObservedAt: time.Unix(2, 0).UTC(),
		Wants: "1.0.0", Would: "1.1.0", Declined: true, SignedBy: []string{"release@example.com (ssh SHA256:x)"}, Alarm: "TagMoved: 1.1.0",
		Channel: &fleet.Channel{Sequence: 3, Latest: "1.1.0", Issued: time.Unix(5, 0).UTC(), Expires: time.Unix(6, 0).UTC()},
		Canary:  &fleet.Canary{Step: 2, Steps: 5, Held: true, Gate: fleet.GateIncrease, Traffic: []fleet.Traffic{{Service: "backend", Weight: 33, Mirror: 10, Matches: true}, {Service: "web"}}},
	}
	whole(t, i)
	whole(t, *i.Canary)
	whole(t, i.Canary.Traffic[0])
	whole(t, i.Policy)
	whole(t, *i.Policy.Pin)
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
	whole(t, *e.Preflight)
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
		{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Status: &syncv1.SubscriptionStatus{Distribution: "shop", Policy: &syncv1.Policy{Minor: "perhaps"}}},
		{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Status: &syncv1.SubscriptionStatus{Distribution: "shop", Policy: &syncv1.Policy{Windows: []string{"always"}}}},
		{Seq: 1, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Status: &syncv1.SubscriptionStatus{Distribution: "shop", Policy: &syncv1.Policy{Windows: make([]string, 101)}}},
	} {
		if _, err := FromEvent("acme/eu-1", m); err == nil {
			t.Errorf("%v: want an error", m)
		}
	}
}

// A canary that makes no sense is left out, and one that is too much is cut: it is no reason not to hear the rest.
func TestACanaryThatMakesNoSense(t *testing.T) {
	for _, m := range []*syncv1.Canary{nil, {Step: 3, Steps: 2}, {Steps: 1 << 31}} {
		if c := FromCanary(m); c != nil {
			t.Errorf("%v: got %+v", m, c)
		}
	}
	m := &syncv1.Canary{Step: 1, Steps: 1}
	for range 2 * mostServices {
		m.Traffic = append(m.Traffic, &syncv1.CanaryTraffic{Service: "a", Weight: 4_000_000_000, Mirror: 101})
	}
	if c := FromCanary(m); len(c.Traffic) != mostServices || c.Traffic[0] != (fleet.Traffic{Service: "a", Weight: 100, Mirror: 100}) {
		t.Errorf("got %d services, the first is %+v", len(c.Traffic), c.Traffic[0])
	}
}

func TestWhatASpokeSaysOfAReHome(t *testing.T) {
	good := fleet.Event{Seq: 1, At: time.Unix(5, 0).UTC(), Cluster: "acme/eu-1", Kind: fleet.EventIdentity, Message: "m",
		ReHome: &fleet.ReHomeAnswer{Nonce: strings.Repeat("0a", 16), State: fleet.ReHomeMoved}}
	if back, err := FromEvent("acme/eu-1", Event(good)); err != nil || !reflect.DeepEqual(back, good) {
		t.Errorf("got %+v, %v", back, err)
	}
	for _, bad := range []*fleet.ReHomeAnswer{nil, {Nonce: "0a", State: fleet.ReHomeMoved}, {Nonce: good.ReHome.Nonce}, {Nonce: good.ReHome.Nonce, State: fleet.ReHomeWaiting}} {
		e := good
		e.ReHome = bad
		if back, err := FromEvent("acme/eu-1", Event(e)); err == nil || back.ReHome != nil {
			t.Errorf("%+v: got %+v, %v", bad, back, err)
		}
	}
}
