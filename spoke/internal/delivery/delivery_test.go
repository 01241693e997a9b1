package delivery

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

var update = flag.Bool("update", false, "write the golden files")

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// variant is an event as the golden file names it, with the time at which it comes.
type variant struct {
	name string
	e    Event
	at   time.Time
}

// variants are every event in every form that the machine tells apart.
func variants() []variant {
	soon, after := t0.Add(time.Second), t0.Add(time.Hour)
	var vs []variant
	for _, k := range Kinds() {
		e := Event{Kind: k, Target: "2", Previous: true, Reason: "why", Until: t0.Add(8 * time.Hour)}
		switch k {
		case Observed:
			for _, h := range []fleet.Health{fleet.Healthy, fleet.InProgress, fleet.Degraded, fleet.HealthUnknown} {
				e.Health = h
				vs = append(vs, variant{fmt.Sprintf("%s %s", k, h), e, soon})
			}
			e.Health = fleet.InProgress
			vs = append(vs, variant{"Observed Degraded, long", Event{Kind: k, Health: fleet.Degraded, Reason: "why"}, t0.Add(6 * time.Second)},
				variant{"Observed InProgress, late", e, after}, variant{"Observed Healthy, late", Event{Kind: k, Health: fleet.Healthy}, after})
		case Tested:
			for _, v := range []Verdict{Pass, Fail, Inconclusive} {
				e.Verdict = v
				vs = append(vs, variant{fmt.Sprintf("%s %s", k, v), e, soon})
			}
			vs = append(vs, variant{"Tested Inconclusive, retried", e, soon}, variant{"Tested Inconclusive, retried, late", e, after})
		case Tried, Measured:
			for _, v := range []Verdict{Pass, Fail, Inconclusive} {
				e.Verdict = v
				vs = append(vs, variant{fmt.Sprintf("%s %s", k, v), e, soon})
			}
			vs = append(vs, variant{fmt.Sprintf("%s Inconclusive, late", k), e, after})
			if e.Over, e.Verdict = k == Measured, Fail; e.Over {
				vs = append(vs, variant{"Measured Fail, once too often", e, soon})
			}
		case Checked:
			vs = append(vs, variant{"Checked", e, soon})
			e.Steps = 3
			vs = append(vs, variant{"Checked, with a course", e, soon})
			e.Steps, e.Follows = 0, true
			vs = append(vs, variant{"Checked, led by others", e, soon})
		case Return:
			vs = append(vs, variant{"Return", e, soon})
			e.Follows = true
			vs = append(vs, variant{"Return, led by others", e, soon})
		case Led:
			e.Passes = 2
			vs = append(vs, variant{"Led", e, soon})
		case Waiting:
			vs = append(vs, variant{"Waiting", e, soon}, variant{"Waiting, late", e, after})
		case Delayed:
			vs = append(vs, variant{"Delayed", e, soon}, variant{"Delayed, late", e, after})
		case Restart:
			vs = append(vs, variant{"Restart", e, soon}, variant{"Restart, once too often", e, soon}, variant{"Restart, at a standstill", e, soon})
		case Content:
			vs = append(vs, variant{"Content", e, soon}, variant{"Content with nothing", Event{Kind: k, Reason: "why"}, soon})
		default:
			vs = append(vs, variant{string(k), e, soon})
		}
	}
	return vs
}

func stateIn(p fleet.Phase, previous, restored bool) State {
	s := State{Phase: p, Target: "1", Reason: "was", Since: t0, Previous: previous, Restored: restored, Timeout: 5 * time.Minute, Grace: 10 * time.Second, Patience: time.Hour,
		Proving: 15 * time.Minute, Following: 2 * time.Hour, Evidence: 10 * time.Minute, Hint: "answer", Touched: p != fleet.Progressing && p != gated}
	if p == gated {
		s.Phase, s.Walk, s.Deadline, p = fleet.AwaitingApproval, Walk{Steps: 3, Step: 1, Stage: Gating, Need: 2, Passed: 2, Led: true, Asked: true}, t0.Add(s.Patience), fleet.PhaseNone
	}
	if p == fleet.Progressing {
		s.Walk = Walk{Steps: 3, Step: 1, Stage: Measuring, Need: 2, Led: true}
	}
	if p == asked {
		s.Phase, s.Applied, s.Tests, p = fleet.AwaitingApproval, true, true, fleet.AwaitingApproval
	}
	if p.Touching() || waits(p) {
		s.Deadline = t0.Add(s.Timeout)
	}
	if p == fleet.Settling {
		s.Failing = t0.Add(-5 * time.Second)
	}
	if p == fleet.Testing {
		s.Deadline = t0.Add(s.Proving)
	}
	return s
}

// waits: before anything is applied.
func waits(p fleet.Phase) bool {
	return slices.Contains([]fleet.Phase{fleet.Fetching, fleet.Verifying, fleet.Rendering, fleet.Checking, fleet.AwaitingApproval, fleet.AwaitingWindow}, p)
}

func TestTheMachineIsPrinted(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# Phase and what is known; event; next phase, effects, reason, deadline. Events that are not\n# listed are unexpected: nothing changes.\n")
	always := []known{{name: "first install"}, {name: "upgrade", previous: true}}
	restored := append(slices.Clone(always), known{name: "upgrade, restored", previous: true, restored: true})
	tested := []known{{name: "first install, with tests", tests: true}, {name: "upgrade, with tests", previous: true, tests: true},
		{name: "upgrade, with tests, passed", previous: true, tests: true, proof: Passed}, {name: "upgrade, with tests, accepted", previous: true, tests: true, proof: Accepted}}
	walk := func(name string, w Walk, g Gates) known {
		w.Steps, w.Led = 3, true
		return known{name: name, previous: true, walk: w, gates: g}
	}
	every := Gates{Traffic: true, Increase: true, Promotion: true}
	walks := []known{
		walk("admitting", Walk{Stage: Admitting}, every), walk("leading to no traffic", Walk{Stage: Leading}, every),
		walk("trying", Walk{Stage: Trying}, Gates{}), walk("trying, before a gate", Walk{Stage: Trying}, every),
		walk("leading", Walk{Step: 1, Stage: Leading}, every), walk("measuring for the first of two", Walk{Step: 1, Stage: Measuring, Need: 2}, every),
		walk("measuring for the last", Walk{Step: 1, Stage: Measuring, Need: 2, Passed: 1}, every), walk("measuring for the last, held", Walk{Step: 1, Stage: Measuring, Need: 2, Passed: 1, Held: true}, every),
		walk("held, and all passed", Walk{Step: 1, Stage: Measuring, Need: 2, Passed: 2, Held: true}, every),
		walk("before more", Walk{Step: 1, Stage: Gating, Need: 2, Passed: 2}, Gates{}), walk("before more, at a gate", Walk{Step: 1, Stage: Gating, Need: 2, Passed: 2}, every),
		walk("before more, held", Walk{Step: 1, Stage: Gating, Need: 2, Passed: 2, Held: true}, Gates{}),
		walk("before promotion", Walk{Step: 3, Stage: Gating, Need: 2, Passed: 2}, Gates{}), walk("before promotion, at a gate", Walk{Step: 3, Stage: Gating, Need: 2, Passed: 2}, every),
	}
	put := func(w Walk) Walk { w.Asked = true; return w }
	gates := []known{
		walk("before traffic", put(Walk{Stage: Trying}), every), walk("without evidence", put(Walk{Step: 1, Stage: Measuring, Need: 2}), every),
		walk("before more", put(Walk{Step: 1, Stage: Gating, Need: 2, Passed: 2}), every), walk("before promotion", put(Walk{Step: 3, Stage: Gating, Need: 2, Passed: 2}), every),
	}
	walked := walk("upgrade, with candidates", Walk{Step: 3}, Gates{})
	untouched := walk("upgrade, with candidates, stable untouched", Walk{Step: 1}, Gates{})
	untouched.untouched = true
	preceded := untouched
	preceded.name, preceded.walk.Hooks = "upgrade, with candidates and hooks, stable untouched", true
	led := known{name: "led by others, no verdict", previous: true, walk: Walk{Stage: Following, Led: true}}
	agreed := known{name: "led by others, who said yes", previous: true, walk: Walk{Stage: Followed, Led: true}}
	more := map[fleet.Phase][]known{
		fleet.Progressing: walks, gated: gates, fleet.Promoting: append(slices.Clone(always), walked, led, agreed), asked: append(slices.Clone(always), led, agreed),
		fleet.RollingBack: append(slices.Clone(restored), walked, untouched, preceded, led), fleet.Settling: append(append(slices.Clone(always), tested...), walked, led, agreed), fleet.Testing: append(slices.Clone(tested), agreed),
		fleet.RollbackFailed: append(slices.Clone(restored), walked, untouched, preceded, led, known{name: "first install, with tests", tests: true}, known{name: "first install, disproved", tests: true, proof: Disproved}),
	}
	for _, p := range slices.Concat(fleet.Phases, []fleet.Phase{asked, gated}) {
		last := ""
		kinds, ok := more[p]
		if !ok {
			kinds = always
		}
		for _, known := range kinds {
			body := printed(p, known)
			if body == last {
				fmt.Fprintf(&b, "\n%s (%s): the same\n", name(p), known.name)
				continue
			}
			fmt.Fprintf(&b, "\n%s (%s)\n%s", name(p), known.name, body)
			last = body
		}
	}
	if *update {
		if err := os.WriteFile("testdata/machine.golden", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/machine.golden")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("the machine is another one; look at the difference and run go test ./spoke/internal/delivery -update\n%s", b.Bytes())
	}
}

// known is what the machine looks at beside the phase.
type known struct {
	name                                 string
	previous, restored, tests, untouched bool
	proof                                Proof
	walk                                 Walk
	gates                                Gates
}

// printed is the part of the golden file about one phase.
func printed(p fleet.Phase, k known) string {
	var b strings.Builder
	for _, v := range variants() {
		s := stateIn(p, k.previous, k.restored)
		s.Tests, s.Proof, s.Retry = s.Tests || k.tests, k.proof, strings.Contains(v.name, "retried")
		s.Gates = k.gates
		if k.walk.Led {
			s.Walk, s.Restored, s.Touched = k.walk, !k.untouched, !k.untouched && p != fleet.Progressing && p != gated
		}
		if strings.HasSuffix(v.name, "at a standstill") {
			s.Restarts = mostStandstill
		}
		if strings.HasSuffix(v.name, "once too often") {
			s.Restarts = mostRestarts
		}
		n, effects := Next(v.at, s, v.e)
		if slices.Contains(effects, Unexpected) {
			continue
		}
		fmt.Fprintf(&b, "  %-34s -> %-15s [%s]%s\n", v.name, name(n.place()), join(effects), remarks(v.at, n))
	}
	return b.String()
}

func name(p fleet.Phase) string {
	if p == fleet.PhaseNone {
		return "None"
	}
	return string(p)
}

func join(es []Effect) string {
	var out []string
	for _, e := range es {
		out = append(out, string(e))
	}
	return strings.Join(out, " ")
}

func remarks(at time.Time, s State) string {
	out := ""
	if s.Reason != "" {
		out += fmt.Sprintf(" %q", s.Reason)
	}
	if s.Declined {
		out += " declined"
	}
	if w := s.Walk; w.Led {
		out += fmt.Sprintf(" %s step %d, %d of %d", cmp.Or(w.Stage, "over"), w.Step, w.Passed, w.Need)
	}
	if s.Walk.Held {
		out += ", held"
	}
	if s.Proof != Unproven {
		out += " " + string(s.Proof)
	}
	if !s.Deadline.IsZero() {
		out += " deadline in " + s.Deadline.Sub(at).Truncate(time.Minute).String()
	}
	return out
}

func TestEveryEventIsDefinedInEveryPhase(t *testing.T) {
	for _, p := range slices.Concat(fleet.Phases, []fleet.Phase{asked, gated}) {
		for _, v := range variants() {
			s := stateIn(p, true, false)
			n, effects := Next(v.at, s, v.e)
			if slices.Contains(effects, Unexpected) && (n != s || len(effects) != 1) {
				t.Errorf("%s in %s is unexpected and changes the state: %+v %v", v.name, p, n, effects)
			}
			if n.Phase == stay || !slices.Contains(fleet.Phases, n.Phase) {
				t.Errorf("%s in %s leads to no phase: %q", v.name, p, n.Phase)
			}
		}
	}
}

// walk feeds random events from random moments and calls look with each transition.
func walk(t *testing.T, look func(s State, e Event, n State, effects []Effect)) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	vs := variants()
	for range 300 {
		s, now := State{Timeout: 5 * time.Minute, Grace: 10 * time.Second, Patience: time.Hour, Proving: 15 * time.Minute, Following: 20 * time.Minute}, t0
		if rnd.IntN(3) == 0 { // few histories come so far by chance
			s = stateIn(fleet.Promoting, true, false)
			s.Walk, s.Following = Walk{Stage: Following, Led: true}, 20*time.Minute
		}
		s.Tests, s.Retry = rnd.IntN(2) == 0, rnd.IntN(2) == 0
		for range 200 {
			e := vs[rnd.IntN(len(vs))].e
			e.Previous, e.ByHand = rnd.IntN(2) == 0, rnd.IntN(2) == 0
			e.Lost = time.Duration(rnd.IntN(2)) * time.Second
			now = now.Add(time.Duration(rnd.IntN(120)) * time.Second)
			n, effects := Next(now, s, e)
			look(s, e, n, effects)
			s = n
		}
	}
}

// Laws 3, 4, 7 and 8 over random histories.
func TestLaws(t *testing.T) {
	walk(t, func(s State, e Event, n State, effects []Effect) {
		if slices.Contains(effects, Prune) && (e.Kind != Observed || e.Health != fleet.Healthy) {
			t.Fatalf("law 3: %s in %s prunes without health", e.Kind, s.Phase)
		}
		if slices.Contains(effects, Promote) && n.Phase != fleet.Succeeded {
			t.Fatalf("law 4: promoted in %s", n.Phase)
		}
		if n.Phase == fleet.Succeeded && s.Touching() && (s.Phase != fleet.Settling && s.Phase != fleet.Testing || e.Kind != Pruned) {
			t.Fatalf("law 4: %s in %s succeeds", e.Kind, s.Phase)
		}
		if n.Phase == fleet.Succeeded && s.Touching() && s.Tests && s.Proof != Passed && s.Proof != Accepted {
			t.Fatalf("law 6: %s in %s promotes what is not proven: %+v", e.Kind, s.Phase, s)
		}
		if e.Kind == Tested && e.Verdict == Inconclusive && (n.Phase == fleet.RollingBack || n.Phase.Terminal()) && n.Phase != s.Phase {
			t.Fatalf("law 6: tests without a verdict in %s decide: %s", s.Phase, n.Phase)
		}
		if n.Phase == fleet.Testing && !n.Tests {
			t.Fatalf("%s in %s tests where there are none", e.Kind, s.Phase)
		}
		if n.Applied && n.Phase != fleet.AwaitingApproval {
			t.Fatalf("%s in %s: asked in %s", e.Kind, s.Phase, n.Phase)
		}
		if s.Applied && !n.Applied && !slices.Contains([]Kind{Approve, Reject, Expired, Return, Observed}, e.Kind) &&
			!(s.Walk.Stage == Following && (e.Kind == Concluded || e.Kind == Unled)) {
			t.Fatalf("law 7: %s takes the question about what is on the cluster away: %s", e.Kind, n.Phase)
		}
		if s.Touching() && !n.Touching() && !n.Phase.Terminal() {
			t.Fatalf("law 7: %s in %s leaves the cluster in %s", e.Kind, s.Phase, n.Phase)
		}
		if n.Phase == fleet.RolledBack && s.Phase.Touching() && !s.Restored && e.Kind != Undone && !(e.Kind == Aborted && !s.Touched) {
			t.Fatalf("law 7: rolled back without the previous set being applied")
		}
		if slices.Contains(effects, Restore) && !n.Previous {
			t.Fatalf("law 7: a return to nothing")
		}
		if n.Phase.Failed() && !s.Phase.Failed() && !slices.Contains(effects, Hold) {
			t.Fatalf("law 8: %s in %s fails and is not held", e.Kind, s.Phase)
		}
		if slices.Contains(effects, Undo) && n.Previous {
			t.Fatalf("law 7: %s in %s undoes where something ran before", e.Kind, s.Phase)
		}
		if slices.Contains(effects, Apply) && (s.Phase == fleet.AwaitingApproval || s.Phase == fleet.AwaitingWindow) {
			t.Fatalf("law 2: %s in %s applies what waited without another look", e.Kind, s.Phase)
		}
		if s.Phase == fleet.AwaitingWindow && n.Phase.Failed() {
			t.Fatalf("law 2: %s fails a release because its provider's window is closed", e.Kind)
		}
		if e.Kind == Closed && n.Phase.Touching() && !s.Phase.Touching() || e.Kind == Closed && s.Phase.Touching() && n != s {
			t.Fatalf("law 7: a closed window in %s leads to %s", s.Phase, n.Phase)
		}
		if n.Walk.Led && n.Phase.Terminal() && n.Phase != fleet.RollbackFailed && (s.Phase != n.Phase || !s.Walk.Led) {
			t.Fatalf("law 7: %s in %s ends in %s with candidates: %+v", e.Kind, s.Phase, n.Phase, n.Walk)
		}
		if s.Walk.Led && !s.Touched && s.Phase == fleet.Progressing && slices.Contains(effects, Restore) {
			t.Fatalf("law 7: %s in %s restores what was not touched", e.Kind, s.Phase)
		}
		if e.Verdict == Inconclusive && e.Kind == Measured && (n.Walk.Step != s.Walk.Step || n.Walk.Passed != s.Walk.Passed || n.Phase == fleet.RollingBack && s.Phase != n.Phase) {
			t.Fatalf("law 6: a measurement without evidence decides in %s: %s %+v", s.Phase, n.Phase, n.Walk)
		}
		if n.Walk.Step > s.Walk.Step && n.Phase == fleet.Progressing && !slices.Contains([]Kind{Tried, Approve, Advance}, e.Kind) {
			t.Fatalf("%s leads to step %d", e.Kind, n.Walk.Step)
		}
		if s.Walk.Held && n.Walk.Step > s.Walk.Step && !slices.Contains([]Kind{Approve, Advance, Skip}, e.Kind) {
			t.Fatalf("%s goes on though a person holds it", e.Kind)
		}
		if s.Walk.Stage == Following && s.Forward() {
			if slices.Contains([]Kind{Waiting, Delayed}, e.Kind) && s.Phase != fleet.Promoting && !n.Forward() {
				t.Fatalf("law 6: %s without a verdict of those who lead decides in %s: %s", e.Kind, s.Phase, n.Phase)
			}
			if slices.Contains(effects, Prune) || slices.Contains(effects, Promote) || n.Phase == fleet.Testing {
				t.Fatalf("law 4: %s in %s leads to %s before those who lead have said yes", e.Kind, s.Phase, n.Phase)
			}
			if n.Walk.Stage == Followed && e.Kind != Concluded && e.Kind != Approve {
				t.Fatalf("law 6: %s in %s is taken for a yes of those who lead", e.Kind, s.Phase)
			}
			if n.Proof != s.Proof && n.Proof == Accepted {
				t.Fatalf("law 6: %s about who leads is taken for one about the tests", e.Kind)
			}
		}
		if s.Walk.Follows() && !n.Walk.Follows() && e.Kind != Aborted && n.Phase != fleet.Succeeded {
			t.Fatalf("law 7: %s in %s forgets who leads, in %s", e.Kind, s.Phase, n.Phase)
		}
		if s.Walk.Follows() && n.Phase == fleet.RolledBack && s.Phase != n.Phase && (e.Kind != Aborted || !s.Restored) {
			t.Fatalf("law 7: %s in %s is the end of a return that did not go through those who lead", e.Kind, s.Phase)
		}
		if n.Walk.Asked && (n.Phase != fleet.AwaitingApproval || n.Applied) {
			t.Fatalf("%s in %s: at a gate in %s", e.Kind, s.Phase, n.Phase)
		}
		if (n.Phase.Touching() || waits(n.Phase)) && n.Deadline.IsZero() {
			t.Fatalf("%s waits without a deadline", n.Phase)
		}
		if n.Phase.Failed() && n.Reason == "" {
			t.Fatalf("%s in %s ends in %s without a reason", e.Kind, s.Phase, n.Phase)
		}
	})
}

func TestTimeInWhichNothingWasSeenDoesNotCount(t *testing.T) {
	s := stateIn(fleet.Settling, true, false)
	s.Failing = t0
	n, effects := Next(t0.Add(6*time.Minute), s, Event{Kind: Observed, Health: fleet.Degraded, Reason: "database", Lost: 5 * time.Minute})
	if n.Phase != fleet.Settling || !slices.Equal(effects, []Effect{Watch}) {
		t.Fatalf("got %s %v, want to go on waiting", n.Phase, effects)
	}
	if want := t0.Add(10 * time.Minute); !n.Deadline.Equal(want) {
		t.Errorf("deadline %s, want %s", n.Deadline, want)
	}
	n, _ = Next(t0.Add(6*time.Minute+11*time.Second), n, Event{Kind: Observed, Health: fleet.Degraded, Reason: "database"})
	if n.Phase != fleet.RollingBack || n.Reason != "database" {
		t.Errorf("got %s (%s), want RollingBack after the grace", n.Phase, n.Reason)
	}
}

func TestAFailureThatHealsIsForgiven(t *testing.T) {
	s := stateIn(fleet.Settling, true, false)
	at := func(sec int, h fleet.Health) {
		s, _ = Next(t0.Add(time.Duration(sec)*time.Second), s, Event{Kind: Observed, Health: h, Reason: "x"})
	}
	at(1, fleet.Degraded)
	at(8, fleet.InProgress)
	at(12, fleet.Degraded)
	at(20, fleet.Degraded)
	if s.Phase != fleet.Settling {
		t.Fatalf("got %s", s.Phase)
	}
	at(22, fleet.Degraded)
	if s.Phase != fleet.RollingBack {
		t.Fatalf("got %s", s.Phase)
	}
}

// A spoke that is killed more often than a release takes to settle still gives the release up.
func TestRestartsDoNotPutTheEndOffForEver(t *testing.T) {
	s, now := stateIn(fleet.Settling, true, false), t0
	for range 10 {
		now = now.Add(4 * time.Minute)
		s, _ = Next(now, s, Event{Kind: Restart})
		s, _ = Next(now, s, Event{Kind: Applied})
		s, _ = Next(now.Add(time.Second), s, Event{Kind: Observed, Health: fleet.InProgress, Reason: "database"})
	}
	if s.Phase != fleet.RollingBack {
		t.Errorf("after %s and 10 restarts it is still %s", now.Sub(t0), s.Phase)
	}
}

// A window may be closed for longer than anything else may take, over any number of restarts, and may be
// another one by the time it opens.
func TestAWindowIsWaitedFor(t *testing.T) {
	s := stateIn(fleet.Checking, true, false)
	s.Errand = "1 on the way to 3"
	step := func(at time.Time, e Event, want fleet.Phase, effects ...Effect) {
		t.Helper()
		var got []Effect
		if s, got = Next(at, s, e); s.Phase != want || !slices.Equal(got, effects) {
			t.Fatalf("%s: got %s %v, want %s %v", e.Kind, s.Phase, got, want, effects)
		}
	}
	opens := t0.Add(72 * time.Hour)
	step(t0, Event{Kind: Closed, Until: opens, Reason: "opens on Saturday"}, fleet.AwaitingWindow)
	step(t0.Add(time.Hour), Event{Kind: Restart}, fleet.AwaitingWindow)
	if !s.Deadline.Equal(opens) || s.Reason != "opens on Saturday" || s.Target != "1" {
		t.Errorf("after a restart: %+v", s)
	}
	opens = t0.Add(24 * time.Hour)
	step(t0.Add(2*time.Hour), Event{Kind: Closed, Until: opens, Reason: "opens tomorrow"}, fleet.AwaitingWindow)
	if !s.Deadline.Equal(opens) || !s.Since.Equal(t0) {
		t.Errorf("another window: %+v", s)
	}
	step(opens, Event{Kind: Opened}, fleet.Checking, Check)
	if s.Reason != s.Errand || !s.Deadline.Equal(opens.Add(s.Timeout)) {
		t.Errorf("open: %+v", s)
	}
	step(opens, Event{Kind: Checked}, fleet.Promoting, Apply)
}

// A spoke that is killed whenever it tests comes to an end: its provider is asked.
func TestRestartsWhileTesting(t *testing.T) {
	s, now := stateIn(fleet.Settling, true, false), t0
	s.Tests = true
	step := func(after time.Duration, e Event) []Effect {
		now = now.Add(after)
		n, effects := Next(now, s, e)
		s = n
		return effects
	}
	tests := 0
	for range 10 {
		for _, e := range []Event{{Kind: Restart}, {Kind: Applied}, {Kind: Observed, Health: fleet.Healthy}} {
			if slices.Contains(step(time.Second, e), Test) {
				tests++
			}
		}
		step(4*time.Minute, Event{Kind: Observed, Health: fleet.Healthy, Reason: "test 1 of 2"})
		if s.Applied {
			break
		}
	}
	if !s.Applied || tests < 2 || s.Reason != "Inconclusive(the tests were not done after 15m0s)" {
		t.Fatalf("after %s and %d tests it is %s %q", now.Sub(t0), tests, s.place(), s.Reason)
	}
	step(time.Hour, Event{Kind: Restart})
	for _, e := range []Event{{Kind: Start, Target: "3"}, {Kind: Content, Target: "0"}, {Kind: Misconfigured}, {Kind: Closed}} {
		before := s
		if effects := step(time.Second, e); !slices.Equal(effects, []Effect{Unexpected}) || s != before {
			t.Fatalf("%s while its provider is asked about what is on the cluster: %v %+v", e.Kind, effects, s)
		}
	}
	step(time.Second, Event{Kind: Approve})
	step(time.Second, Event{Kind: Restart}) // the word stays
	step(time.Second, Event{Kind: Applied})
	if effects := step(time.Second, Event{Kind: Observed, Health: fleet.Healthy}); !slices.Equal(effects, []Effect{Prune}) {
		t.Fatalf("approved: %v in %s", effects, s.Phase)
	}
	if step(time.Second, Event{Kind: Pruned}); s.Phase != fleet.Succeeded {
		t.Fatalf("approved and pruned: %s", s.Phase)
	}
}

// What the tests passed is promoted only while it is healthy still; what passed before a restart is tested again.
func TestHealthIsLookedAtWhileAndAfterTesting(t *testing.T) {
	ill := Event{Kind: Observed, Health: fleet.Degraded, Reason: "database"}
	testing := stateIn(fleet.Testing, true, false)
	testing.Tests, testing.Deadline = true, t0.Add(testing.Proving)
	n, effects := Next(t0.Add(time.Second), testing, ill)
	if n.Phase != fleet.Testing || !slices.Equal(effects, []Effect{Test}) {
		t.Fatalf("ill for a moment: %s %v", n.Phase, effects)
	}
	if n, _ = Next(t0.Add(12*time.Second), n, ill); n.Phase != fleet.RollingBack || n.Reason != "database" {
		t.Fatalf("ill while testing: %s %q", n.Phase, n.Reason)
	}
	slow := Event{Kind: Observed, Health: fleet.InProgress, Reason: "cache"}
	n, _ = Next(t0.Add(time.Second), testing, slow)
	for _, s := range []State{n, {Phase: fleet.AwaitingApproval, Applied: true, Previous: true, Tests: true, Timeout: n.Timeout, Ailing: n.Ailing}} {
		if m, _ := Next(t0.Add(4*time.Minute), s, slow); m.Phase != s.Phase {
			t.Fatalf("not whole for less than it may be: %s", m.Phase)
		}
		if m, _ := Next(t0.Add(6*time.Minute), s, slow); m.Phase != fleet.RollingBack || m.Reason != "cache (not there after 5m0s)" {
			t.Fatalf("not whole for as long as it may be: %s %q", m.Phase, m.Reason)
		}
	}
	passed, effects := Next(t0.Add(time.Second), testing, Event{Kind: Tested, Verdict: Pass})
	if passed.Phase != fleet.Testing || !slices.Equal(effects, []Effect{Watch}) {
		t.Fatalf("passed: %s %v", passed.Phase, effects)
	}
	n, _ = Next(t0.Add(2*time.Second), passed, ill)
	if n, _ = Next(t0.Add(15*time.Second), n, ill); n.Phase != fleet.RollingBack {
		t.Fatalf("ill after it passed: %s", n.Phase)
	}
	if n, _ = Next(t0.Add(2*time.Second), passed, Event{Kind: Restart}); n.Phase != fleet.Promoting || n.Proof != Unproven {
		t.Fatalf("restarted after it passed: %s %q", n.Phase, n.Proof)
	}
}

// Who leads is asked on while the provider is: a late verdict counts, and the provider's word in its place is
// none about the tests. What was on its way through them goes back through them.
func TestALateVerdictOfThoseWhoLead(t *testing.T) {
	following := stateIn(fleet.Settling, true, false)
	following.Walk, following.Tests, following.Deadline = Walk{Stage: Following, Led: true}, true, t0.Add(following.Following)
	early, effects := Next(t0.Add(time.Hour), following, Event{Kind: Waiting, Reason: "backend"})
	if early.Phase != fleet.Settling || !slices.Equal(effects, []Effect{Conclude}) || !early.Deadline.Equal(following.Deadline) {
		t.Fatalf("on the way: %s %v %s", early.place(), effects, early.Deadline)
	}
	s, effects := Next(t0.Add(2*time.Hour), early, Event{Kind: Waiting, Reason: "backend"})
	if s.place() != asked || s.Reason != "backend; answer" || !slices.Equal(effects, []Effect{Watch}) {
		t.Fatalf("late: %s %q %v", s.place(), s.Reason, effects)
	}
	ill := s
	for n, e := range []Event{{Kind: Observed, Health: fleet.InProgress}, {Kind: Waiting}, {Kind: Observed, Health: fleet.InProgress}} {
		// A pause that waits for a person is no ill health, however long it is.
		ill, effects = Next(t0.Add(2*time.Hour+time.Duration(n)*20*time.Minute), ill, e)
		if want := []Effect{map[Kind]Effect{Observed: Conclude, Waiting: Watch}[e.Kind]}; ill.place() != asked || !slices.Equal(effects, want) {
			t.Fatalf("%s while it is asked: %s %v", e.Kind, ill.place(), effects)
		}
	}
	at := t0.Add(3 * time.Hour)
	if n, effects := Next(at, ill, Event{Kind: Unled, Reason: "no"}); n.Phase != fleet.RollingBack || !slices.Equal(effects, []Effect{Restore}) || !n.Walk.Led {
		t.Errorf("a late no: %s %v", n.Phase, effects)
	}
	for _, yes := range []Kind{Concluded, Approve} {
		n, _ := Next(at, ill, Event{Kind: yes})
		n, effects := Next(at.Add(time.Second), n, Event{Kind: Observed, Health: fleet.Healthy})
		if n.Phase != fleet.Testing || n.Proof != Unproven || !slices.Equal(effects, []Effect{Test}) {
			t.Errorf("%s: %s %s %v, want its tests", yes, n.place(), n.Proof, effects)
		}
		n, _ = Next(at.Add(time.Minute), n, Event{Kind: Tested, Verdict: Fail, Reason: "a test"})
		// They are told before anything is well: it may be well only when they have ended.
		n, effects = Next(at.Add(time.Minute), n, Event{Kind: Restored})
		if n.Phase != fleet.RollingBack || !slices.Equal(effects, []Effect{Abort}) || !n.Deadline.Equal(at.Add(time.Minute+n.Following)) {
			t.Errorf("restored after %s: %s %v, by %s", yes, n.Phase, effects, n.Deadline)
		}
		for _, step := range []struct {
			e    Event
			want fleet.Phase
		}{{Event{Kind: Waiting}, fleet.RollingBack}, {Event{Kind: Aborted}, fleet.RollingBack}, {Event{Kind: Observed, Health: fleet.InProgress}, fleet.RollingBack}, {Event{Kind: Observed, Health: fleet.Healthy}, fleet.RolledBack}} {
			if n, effects = Next(at.Add(2*time.Minute), n, step.e); n.Phase != step.want {
				t.Errorf("on the way back after %s: %s leads to %s %v", yes, step.e.Kind, n.Phase, effects)
			}
		}
	}
}
