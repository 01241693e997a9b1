package rollout

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

var update = flag.Bool("update", false, "write the golden files")

var t0 = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC) // a Monday

// rowText is a row as the golden file has it, without where it comes from.
func rowText(r row) string {
	name := func(f any) string {
		full := runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
		return full[strings.LastIndex(full, ".")+1:]
	}
	var conditions, effects []string
	for _, c := range r.when {
		conditions = append(conditions, name(c))
	}
	for _, c := range r.unless {
		conditions = append(conditions, "not "+name(c))
	}
	for _, e := range r.do {
		effects = append(effects, name(e))
	}
	on := string(r.on)
	if r.on == look {
		on = "(look)"
	}
	say := ""
	if r.say != nil {
		say = " says " + name(r.say)
		if r.tell != nil {
			say += ", tells " + name(r.tell)
		}
	}
	return strings.TrimRight(fmt.Sprintf("  %-9s %-38s -> %-16s [%s]%s", on, strings.Join(conditions, ", "), r.to, strings.Join(effects, ", "), say), " ")
}

func TestTheMachineIsPrinted(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# Phase: word or look, what has to hold; next phase, effects, what is said. The first line that matches\n" +
		"# is taken; looks are taken until none does. Words that are not listed are refused.\n")
	for _, p := range fleet.RolloutPhases {
		fmt.Fprintf(&b, "\n%s\n", p)
		for _, r := range table() {
			if slices.Contains(r.from, p) {
				b.WriteString(rowText(r) + "\n")
			}
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
		t.Errorf("the machine is another one; look at the difference and run go test ./hub/internal/rollout -run Machine -update\n%s", b.Bytes())
	}
}

const from, version = "1.0.0", "1.1.0"

// story is one rollout, told step by step.
type story struct {
	t   *testing.T
	now time.Time
	f   Fleet
	s   State
}

// tell starts a rollout over clusters acme/c0, acme/c1, …; each has the label ring of its number. What was so
// before is done first.
func tell(t *testing.T, n int, planText string, first ...func(st *story)) *story {
	t.Helper()
	st := &story{t: t, now: t0, f: Fleet{}}
	for i := range n {
		st.join(i)
	}
	for _, do := range first {
		do(st)
	}
	p, err := plan.Parse([]byte(planText))
	if err != nil {
		t.Fatal(err)
	}
	st.s = Start(st.now, New{Distribution: "shop", Version: version, Plan: p, PlanSource: "--plan", StartedBy: "operator admin"}, st.f)
	st.look()
	return st
}

func c(i int) fleet.Cluster { return fleet.Cluster(fmt.Sprintf("acme/c%d", i)) }

func (st *story) join(i int) {
	st.f[c(i)] = Observation{Running: from, Target: from, Phase: fleet.Succeeded, Health: fleet.Healthy, Labels: map[string]string{"ring": fmt.Sprint(i)}}
}

// set changes what is seen of a cluster; see looks at it too.
func (st *story) set(i int, change func(o *Observation)) {
	o := st.f[c(i)]
	change(&o)
	st.f[c(i)] = o
}

func (st *story) see(i int, change func(o *Observation)) { st.t.Helper(); st.set(i, change); st.look() }

func (st *story) begins(i int) {
	st.see(i, func(o *Observation) { o.Target, o.Phase = version, fleet.Promoting })
}
func (st *story) takes(i ...int) {
	for _, i := range i {
		if !st.s.Offers(c(i)) {
			st.t.Helper()
			st.t.Fatalf("%s is not offered the release: %s %+v", c(i), st.s.Phase, st.s.Members[c(i)])
		}
		st.begins(i)
		st.see(i, func(o *Observation) { o.Running, o.Phase, o.Health = version, fleet.Succeeded, fleet.Healthy })
	}
}
func (st *story) fails(i int) {
	st.begins(i)
	st.see(i, func(o *Observation) {
		o.Running, o.Target, o.Phase, o.Reason = from, version, fleet.RolledBack, "backend never got ready"
	})
}
func (st *story) blocks(i int, b fleet.Block) { st.see(i, func(o *Observation) { o.Block = b }) }
func (st *story) returns(i int) {
	st.see(i, func(o *Observation) {
		o.Running, o.Target, o.Phase, o.Health = from, from, fleet.RolledBack, fleet.Healthy
	})
}
func (st *story) leaves(i int) { delete(st.f, c(i)); st.look() }

func (st *story) after(d time.Duration) { st.now = st.now.Add(d); st.look() }

func (st *story) look() {
	st.t.Helper()
	was := clone(st.s)
	before := st.s
	st.s = Next(st.now, st.s, st.f)
	if !reflect.DeepEqual(before, was) {
		st.t.Fatalf("Next changed its argument")
	}
	for _, problem := range []string{check(st.now, st.now, before, st.s, st.f), checkDue(st.now, st.s, st.f)} {
		if problem != "" {
			st.t.Fatal(problem)
		}
	}
	data, err := json.Marshal(st.s)
	var back State
	if err == nil {
		err = json.Unmarshal(data, &back)
	}
	if err == nil { // a plan is stored as its text
		back.Plan, err = plan.Parse(st.s.Plan.YAML())
	}
	if err != nil {
		st.t.Fatal(err)
	}
	if again := Next(st.now, back, st.f); !same(again, st.s) {
		st.t.Fatalf("not the same after it was stored:\n%+v\n%+v", st.s, again)
	}
	st.s = back
}

func (st *story) do(c Command) {
	st.t.Helper()
	if err := st.try(c); err != nil {
		st.t.Fatal(err)
	}
}

func (st *story) try(c Command) error {
	st.t.Helper()
	if c.Role == "" {
		c.By, c.Role = "operator admin", "admin"
	}
	was := clone(st.s)
	s, err := Do(st.now, st.s, c)
	if !reflect.DeepEqual(st.s, was) {
		st.t.Fatal("Do changed its argument")
	}
	if err == nil {
		st.s = s
		st.look()
	}
	return err
}

// is checks the phase and the marks, in the order of the clusters' numbers: "WODF…" by first letters.
func (st *story) is(phase fleet.RolloutPhase, marks string) {
	st.t.Helper()
	if got := st.marks(); st.s.Phase != phase || got != marks {
		st.t.Fatalf("it is %s %s, want %s %s: %s / %s\n%+v", st.s.Phase, got, phase, marks, st.s.Reason, st.s.Waits(), st.s.Members)
	}
}

// offers checks to whom the release is offered: "yn" to the first of two.
func (st *story) offers(want string) {
	st.t.Helper()
	got := ""
	for i := range len(want) {
		got += map[bool]string{true: "y", false: "n"}[st.s.Offers(c(i))]
	}
	if got != want {
		st.t.Fatalf("offered to %s, want %s: %s %s\n%+v", got, want, st.s.Phase, st.marks(), st.s.Members)
	}
}

// goes checks where a cluster that has the release should go; "-": it is not withdrawn there.
func (st *story) goes(i int, want string) {
	st.t.Helper()
	got := "-"
	if w, yes := st.s.Withdraws(c(i)); yes {
		got = strings.TrimSpace(string(w.Kind) + " " + w.To)
	}
	if got != want {
		st.t.Fatalf("%s is withdrawn %q, want %q: %+v", c(i), got, want, st.s.Members[c(i)])
	}
}

// says checks what the rollout waits for.
func (st *story) says(want string) {
	st.t.Helper()
	if got := st.s.Waits(); got != want {
		st.t.Fatalf("it waits for %q, want %q", got, want)
	}
}

// due checks when time alone does something, after the start; -1: never.
func (st *story) due(want time.Duration) {
	st.t.Helper()
	got := st.s.Due()
	if want < 0 && got.IsZero() || want >= 0 && got.Equal(t0.Add(want)) {
		return
	}
	st.t.Fatalf("due %s after the start, want %s: %s %s", got.Sub(t0), want, st.s.Phase, st.marks())
}

// letters of the marks.
func letter(m fleet.Mark) string {
	return map[fleet.Mark]string{"": "-", fleet.MarkWaiting: "w", fleet.MarkOffered: "o", fleet.MarkUnderway: "u", fleet.MarkDone: "D", fleet.MarkFailed: "F",
		fleet.MarkParked: "p", fleet.MarkUnaffected: "n", fleet.MarkLeft: "l", fleet.MarkReturning: "r", fleet.MarkReturned: "R", fleet.MarkStranded: "S"}[m]
}

func (st *story) marks() (all string) {
	most := -1
	for name := range st.s.Members {
		var i int
		if _, err := fmt.Sscanf(string(name), "acme/c%d", &i); err == nil {
			most = max(most, i)
		}
	}
	for i := range most + 1 {
		all += letter(st.s.Members[c(i)].Mark)
	}
	return all
}

func clone(s State) State {
	s.Waves = slices.Clone(s.Waves)
	s.LeftOut = slices.Clone(s.LeftOut)
	if s.Members != nil {
		members := map[fleet.Cluster]Member{}
		for c, m := range s.Members {
			members[c] = m
		}
		s.Members = members
	}
	return s
}

// same: equal in all that is stored.
func same(a, b State) bool {
	return sameHead(a, b) && len(a.Changed(b)) == 0 && slices.Equal(a.LeftOut, b.LeftOut) && a.PlanSource == b.PlanSource && a.Started == b.Started
}
