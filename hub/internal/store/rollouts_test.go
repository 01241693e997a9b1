package store

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

var byAdmin = fleet.Entry{At: start, Actor: "operator admin", Credential: "c0ffee", Action: "rollout start", Object: "shop 1.1.0", Reason: "because"}

const fullPlan = `
start: manual
onFailure: rollBackAll
supersede: false
joiners: completed
patience: 2h
waves:
- {name: canary, clusters: {matchLabels: {ring: "0"}}, max: 2, concurrency: 1, soak: 30m, verdicts: {minimum: 2, passes: 90}}
- name: half
  clusters: {matchExpressions: [{key: ring, operator: In, values: ["1"]}, {key: big, operator: Exists}]}
  max: 50%
  budget: 10%
  success: 95
- {name: rest, approval: admin, budget: 3, windows: ["Mon-Fri 22:00-04:00 Europe/Berlin"], patience: 90s}
`

func told(message string) []fleet.Event {
	return []fleet.Event{{At: start, Kind: fleet.EventRollout, Distribution: "shop", Version: "1.1.0", Message: message}}
}

// fill sets whatever v holds to something that is not zero, so that a field which is not stored is found.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(start.Add(time.Duration(*n) * time.Second)))
		return
	case plan.Plan:
		p, err := plan.Parse([]byte(fullPlan))
		if err != nil {
			panic(err)
		}
		v.Set(reflect.ValueOf(p))
		return
	case fleet.Windows:
		w, err := fleet.ParseWindow(fmt.Sprintf("Mon-Fri 22:%02d-04:00 Europe/Berlin", *n%60))
		if err != nil {
			panic(err)
		}
		v.Set(reflect.ValueOf(fleet.Windows{w}))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text-", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Uint8:
		v.SetUint('x')
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n)
			fill(value, n)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("no value for " + v.Type().String())
	}
}

func filled[T any]() (v T) {
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	return v
}

func rolloutsOf(t *testing.T, s *Store) []rollout.State {
	t.Helper()
	all, err := s.Rollouts()
	must(t, err)
	return all
}

func TestEveryFieldSurvivesARestart(t *testing.T) {
	s, reopen := fresh(t)
	r := filled[rollout.State]()
	r.Phase = fleet.RolloutProgressing
	kept, err := newRollout(s, r, nil, byAdmin)
	must(t, err)
	same(t, "id of the first", kept.ID, uint64(1))
	r.ID = 1
	same(t, "rollout as it was given back", kept, r)
	r.Wake = time.Time{} // follows from the rest with the next look

	release := filled[fleet.Release]()
	release.Digest = digest("a")
	must(t, s.PutRelease(release, "h"))
	recall := filled[fleet.Recall]()
	recall.Distribution, recall.Version = release.Distribution, release.Version
	must(t, s.PutRecall(recall, nil, byAdmin))
	invite(t, s, eu, "t", start)
	pin, decision, installation := filled[fleet.HubPin](), filled[fleet.HubDecision](), filled[fleet.Installation]()
	pin.Cluster, decision.Cluster = eu, eu
	must(t, s.PutPin(pin, fleet.Event{At: start, Kind: fleet.EventPinned}, byAdmin))
	must(t, s.PutDecision(decision, fleet.Event{At: start, Kind: fleet.EventDecided}, byAdmin))
	must(t, s.Hello(eu, "v1", "v1.33", []fleet.Installation{installation}))

	for _, when := range []string{"before a restart", "after"} {
		same(t, "rollouts "+when, rolloutsOf(t, s), []rollout.State{r})
		got, err := s.Release(release.Distribution, release.Version)
		must(t, err)
		same(t, "release "+when, got, release)
		recalls, err := s.Recalls(recall.Distribution)
		must(t, err)
		same(t, "recalls "+when, recalls, map[string]fleet.Recall{recall.Version: recall})
		pins, err := s.Pins()
		must(t, err)
		same(t, "pins "+when, pins, []fleet.HubPin{pin})
		decisions, err := s.Decisions()
		must(t, err)
		same(t, "decisions "+when, decisions, []fleet.HubDecision{decision})
		one, found := s.Installation(eu, installation.Distribution)
		same(t, "installation found "+when, found, true)
		same(t, "installation "+when, one, installation)
		s = reopen()
	}
}

func TestASavedRolloutIsItsHeadAndTheNamedMembers(t *testing.T) {
	s, reopen := fresh(t)
	waiting := rollout.Member{Mark: fleet.MarkWaiting, Since: start}
	members := map[fleet.Cluster]rollout.Member{eu: waiting, us: waiting, "acme/gone": waiting}
	r, err := newRollout(s, rollout.State{Distribution: "shop", Version: "1.1.0", Plan: plan.Default(), Phase: fleet.RolloutProgressing, Members: members}, told("began"), byAdmin)
	must(t, err)

	done := rollout.Member{Mark: fleet.MarkDone, Since: start.Add(time.Minute)}
	r.Members = map[fleet.Cluster]rollout.Member{eu: done, us: done}
	r.Phase = fleet.RolloutSoaking
	must(t, s.SaveRollout(r, []fleet.Cluster{eu, "acme/gone"}, told("soaks"), fleet.Entry{At: start, Actor: "hub", Action: "rollout"}))
	s = reopen()
	all := rolloutsOf(t, s)
	same(t, "phase", all[0].Phase, fleet.RolloutSoaking)
	same(t, "members: us was not named", all[0].Members, map[fleet.Cluster]rollout.Member{eu: done, us: waiting})

	// All or nothing.
	r.Phase, r.Members[us] = fleet.RolloutPaused, rollout.Member{Mark: fleet.MarkFailed}
	if err := s.SaveRollout(r, []fleet.Cluster{us}, told("never"), fleet.Entry{Action: "nobody's"}); err == nil || !strings.Contains(err.Error(), "shop 1.1.0") {
		t.Errorf("an entry without an actor: %v", err)
	}
	same(t, "after a save that failed", rolloutsOf(t, s), all)
	events, err := s.Events(EventFilter{Distribution: "shop"})
	must(t, err)
	if len(events) != 2 || events[1].Message != "soaks" {
		t.Errorf("events: %+v", events)
	}
	entries, err := s.Audit(0, 0)
	must(t, err)
	if len(entries) != 2 || entries[0].Action != "rollout start" || entries[1].Actor != "hub" {
		t.Errorf("audit: %+v", entries)
	}
	must(t, VerifyAudit(entries, nil))

	r.ID = 99
	wantErr(t, s.SaveRollout(r, nil, nil), ErrNotFound, "rollout 99", "shop 1.1.0")
}

func TestOneRolloutOfAReleaseAtATime(t *testing.T) {
	s, _ := fresh(t)
	begin := func(version string) (rollout.State, error) {
		return newRollout(s, rollout.State{Distribution: "shop", Version: version, Plan: plan.Default(), Phase: fleet.RolloutProgressing}, nil, byAdmin)
	}
	first, err := begin("1.1.0")
	must(t, err)
	_, err = begin("1.1.0")
	wantErr(t, err, ErrExists, "rollout 1 is Progressing", "shop 1.1.0")
	_, err = begin("1.2.0")
	must(t, err)
	first.Phase = fleet.RolloutAborted
	must(t, s.SaveRollout(first, nil, nil))
	again, err := begin("1.1.0")
	must(t, err)
	same(t, "the refused one took no id", again.ID, uint64(3))
	entries, err := s.Audit(0, 0)
	must(t, err)
	same(t, "entries", len(entries), 3)
}

func TestEndedRolloutsAreBoundedButAReleaseNeverForgotten(t *testing.T) {
	s, reopen := fresh(t)
	run := func(distribution, version string, at time.Time, end fleet.RolloutPhase) {
		r, err := newRollout(s, rollout.State{Distribution: distribution, Version: version, Plan: plan.Default(), Phase: fleet.RolloutProgressing, Since: at,
			Members: map[fleet.Cluster]rollout.Member{eu: {Mark: fleet.MarkDone}, us: {Mark: fleet.MarkDone}}}, nil, byAdmin)
		must(t, err)
		if end != "" {
			r.Phase = end
			must(t, s.SaveRollout(r, nil, nil))
		}
	}
	run("shop", "0.9.0", start, "") // under way all the time
	run("bank", "1.0.0", start, fleet.RolloutCompleted)
	run("shop", "1.0.0", start, fleet.RolloutAborted)
	run("shop", "1.0.0", start.Add(time.Second), fleet.RolloutCompleted)
	for i := range rollout.MaxEnded {
		run("shop", fmt.Sprintf("1.%d.0", i+1), start.Add(time.Duration(i+2)*time.Second), fleet.RolloutSuperseded)
	}
	s = reopen()
	all := rolloutsOf(t, s)
	same(t, "rollouts kept", len(all), 3+rollout.MaxEnded) // all but the first of 1.0.0
	for _, r := range all {
		want := 2
		if r.Distribution == "shop" && r.Version == "1.0.0" {
			same(t, "what is known of 1.0.0", r.Phase, fleet.RolloutCompleted)
			want = 0
		}
		if len(r.Members) != want {
			t.Errorf("%s %s has %d members, want %d", r.Distribution, r.Version, len(r.Members), want)
		}
	}
}

// The file is one that a hub of schema 2 wrote: of shop 1.9.0 and 1.10.0 available and 1.2.0 rejected; of bank,
// with pre-flights of a hundred years, 1.0.0 offered and 1.1.0 not yet.
func TestAFileOfSchema2IsOpened(t *testing.T) {
	path := unpack(t, "testdata/schema-2.db.gz")
	s, err := Open(path, discard)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	var got []string
	for _, r := range rolloutsOf(t, s) {
		got = append(got, fmt.Sprintf("%d %s %s %s", r.ID, r.Distribution, r.Version, r.Phase))
		if r.StartedBy != "hub" || r.Reason != "published before rollouts" || r.Members != nil || !r.Since.Equal(r.Started) || r.Started.Before(start) {
			t.Errorf("%+v", r)
		}
		same(t, "plan", r.Plan, plan.Default())
		same(t, "waves", len(r.Waves), len(r.Plan.Waves))
		if !r.Offers(eu) {
			t.Errorf("%s %s is not offered any more", r.Distribution, r.Version)
		}
	}
	same(t, "rollouts", got, []string{"1 shop 1.9.0 Completed", "2 shop 1.10.0 Completed", "3 bank 1.0.0 Completed"})
	releases, err := s.Releases("shop")
	must(t, err)
	same(t, "releases", len(releases), 3)
	one, found := s.Installation(eu, "shop")
	same(t, "installation found", found, true)
	same(t, "installation", one, installation("1.9.0", start))
	if _, found := s.Installation(eu, "bank"); found {
		t.Error("found a subscription that never was")
	}
	preflights, err := s.Preflights("shop", "1.10.0")
	must(t, err)
	same(t, "answers", preflights, map[fleet.Cluster]fleet.Preflight{eu: trial("1.10.0", start)})
	acked, err := s.AckedSeq(eu, "j1")
	must(t, err)
	same(t, "acked", acked, uint64(1))

	_, err = newRollout(s, rollout.State{Distribution: "bank", Version: "1.1.0", Plan: plan.Default(), Phase: fleet.RolloutProgressing}, told("began"), byAdmin)
	must(t, err)

	copied, err := bolt.Open(path+".schema-2", 0o600, nil)
	must(t, err)
	defer func() { must(t, copied.Close()) }()
	was, err := schema(copied)
	must(t, err)
	same(t, "schema of the copy", was, uint64(2))
}

// newRollout begins one rollout.
func newRollout(s *Store, r rollout.State, events []fleet.Event, entry fleet.Entry) (rollout.State, error) {
	kept, err := s.NewRollouts(Beginning{Rollout: r, Events: events, Entry: entry})
	if err != nil {
		return r, err
	}
	return kept[0], nil
}

func TestThePlanOfARolloutIsKeptAsItWasLaid(t *testing.T) {
	s, reopen := fresh(t)
	laid := rollout.Layout{Waves: []rollout.LayoutWave{{Name: "all", Concurrency: 2, Budget: 1, Gates: []string{"approval by qa"},
		Clusters: []rollout.LayoutCluster{{Cluster: eu, Running: "1.0.0", Blockers: []string{"pinned"}}}}}, Warnings: []string{"w"}}
	var last uint64
	for n := range maxLayouts + 1 {
		r := rollout.State{Distribution: "shop", Version: fmt.Sprintf("1.0.%d", n), Plan: plan.Default(), Phase: fleet.RolloutProgressing}
		kept, err := s.NewRollouts(Beginning{Rollout: r, Layout: laid, Entry: byAdmin})
		must(t, err)
		last = kept[0].ID
	}
	s = reopen()
	got, found, err := s.Layout(last)
	must(t, err)
	same(t, "the plan", got, laid)
	same(t, "the plan is there", found, true)
	_, found, err = s.Layout(last - maxLayouts)
	must(t, err)
	same(t, "the oldest plan is there", found, false)
}
