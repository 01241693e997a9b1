package rollout

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// walker plays a random fleet and random people against a rollout.
type walker struct {
	*rand.Rand
	now  time.Time
	late time.Time // the latest that now was
	f    Fleet
	s    State
	next int  // number of the next cluster that joins
	well bool // from now on the fleet behaves and people answer
}

func pick[T any](w *walker, of ...T) T { return of[w.IntN(len(of))] }

func (w *walker) amount(percent bool) plan.Amount {
	if w.IntN(2) == 0 && percent {
		return plan.Amount{N: pick(w, 1, 10, 30, 50, 100), Percent: true}
	}
	return plan.Amount{N: 1 + w.IntN(3)}
}

func (w *walker) plan() plan.Plan {
	p := plan.Plan{Start: plan.Auto, OnFailure: pick(w, plan.Hold, plan.RollBackWave, plan.RollBackAll), Supersede: true,
		Joiners: pick(w, plan.JoinCompleted, plan.JoinWave), Patience: pick(w, time.Minute, time.Hour)}
	for i := range 1 + w.IntN(4) {
		v := plan.Wave{Name: fmt.Sprintf("w%d", i)}
		switch w.IntN(4) {
		case 0:
			v.Clusters.MatchLabels = map[string]string{"ring": strconv.Itoa(w.IntN(3))}
		case 1:
			v.Clusters.MatchExpressions = []plan.Expression{{Key: "ring", Operator: plan.NotIn, Values: []string{strconv.Itoa(w.IntN(3))}}}
		}
		for _, set := range []struct {
			odds int
			set  func()
		}{
			{3, func() { v.Max = w.amount(true) }},
			{2, func() { v.Concurrency = w.amount(true) }},
			{2, func() { v.Budget = w.amount(true) }},
			{2, func() { v.Soak = pick(w, time.Minute, time.Hour) }},
			{4, func() { v.Success = pick(w, 1, 50, 90, 100) }},
			{4, func() { v.Approval = "vendor" }},
			{5, func() { v.Verdicts = plan.Verdicts{Minimum: 1 + w.IntN(2), Passes: pick(w, 50, 100)} }},
			{5, func() {
				from := time.Duration(w.IntN(24)) * time.Hour
				v.Windows = fleet.Windows{{Days: [7]bool{true, true, true, true, true, true, true}, From: from, To: (from + 3*time.Hour) % (24 * time.Hour), Zone: time.UTC}}
			}},
			{4, func() { v.Patience = pick(w, 10*time.Second, 2*time.Hour) }},
		} {
			if w.IntN(set.odds) == 0 {
				set.set()
			}
		}
		p.Waves = append(p.Waves, v)
	}
	return p
}

func (w *walker) join() {
	c := fleet.Cluster(fmt.Sprintf("%s/c%02d", pick(w, "acme", "bolt"), w.next))
	w.next++
	o := Observation{Running: from, Target: from, Phase: fleet.Succeeded, Health: fleet.Healthy, Labels: map[string]string{"ring": strconv.Itoa(w.IntN(3))}}
	switch w.IntN(12) {
	case 0:
		o.Running, o.Target, o.Phase = "", "", fleet.PhaseNone
	case 1:
		o.Running, o.Target = "2.0.0", "2.0.0"
	case 2:
		o.Running, o.Target = version, version
	case 3:
		o.Block = pick(w, blocks()...)
	case 4:
		o.Target, o.Phase, o.Reason = version, fleet.RolledBack, "an earlier attempt"
	}
	w.f[c] = o
}

func blocks() []fleet.Block {
	return []fleet.Block{fleet.BlockPin, fleet.BlockWindow, fleet.BlockApproval, fleet.BlockSilent, fleet.BlockPolicy, fleet.BlockStop, fleet.BlockConfig, fleet.BlockHeld, fleet.BlockDeclined}
}

// spoke does what the spoke of one cluster might do next. One that is blocked finishes what it began.
func (w *walker) spoke(c fleet.Cluster) {
	o := w.f[c]
	withdrawal, withdrawn := w.s.Withdraws(c)
	offered := w.s.Offers(c) && !withdrawn
	bad := !w.well && w.IntN(5) == 0
	switch {
	case o.Block == fleet.BlockSilent: // the world goes on without the hub
	case withdrawn && o.Target == version && !o.Phase.Terminal() && o.Phase != fleet.PhaseNone:
		o.Phase, o.Reason = fleet.RolledBack, "the release was taken back"
	case withdrawn && o.Running == version && withdrawal.To != "":
		if o.Target != withdrawal.To {
			o.Target, o.Phase = withdrawal.To, fleet.RollingBack
		} else if bad {
			o.Phase, o.Reason = fleet.RollbackFailed, "cannot"
		} else {
			o.Running, o.Phase, o.Health = withdrawal.To, fleet.RolledBack, fleet.Healthy
		}
	case o.Target == version && o.Running != version && !o.Phase.Terminal():
		steps := []fleet.Phase{fleet.Fetching, fleet.Verifying, fleet.Rendering, fleet.Checking, fleet.Promoting, fleet.Settling, fleet.Testing}
		i := slices.Index(steps, o.Phase)
		switch {
		case o.Phase == fleet.RollingBack:
			o.Phase, o.Reason = pick(w, fleet.RolledBack, fleet.RollbackFailed), "never got ready"
		case bad && i < 4:
			o.Phase, o.Reason = pick(w, fleet.Refused, fleet.AwaitingApproval, fleet.AwaitingWindow, fleet.AwaitingConfig), "not so"
		case bad:
			o.Phase = fleet.RollingBack
		case i < 0:
			o.Phase = fleet.Checking
		case i == len(steps)-1:
			o.Running, o.Phase, o.Health, o.Reason = version, fleet.Succeeded, pick(w, fleet.Healthy, fleet.Healthy, fleet.InProgress), ""
			if w.well {
				o.Health = fleet.Healthy
			}
		default:
			o.Phase = steps[i+1]
		}
	case offered && o.Running != version && o.Block == fleet.BlockNone && !o.Phase.Touching() && o.Running != "2.0.0" &&
		!(o.Target == version && o.Phase.Failed()):
		o.Target, o.Phase, o.Reason = version, fleet.Fetching, ""
	case o.Running == version:
		if o.Health = fleet.Healthy; bad {
			o.Health = pick(w, fleet.Degraded, fleet.InProgress, fleet.HealthUnknown)
		}
	}
	w.f[c] = o
}

// provider changes its mind, or its network does.
func (w *walker) provider(c fleet.Cluster) {
	o := w.f[c]
	if w.well {
		if o.Block == fleet.BlockSilent || w.IntN(2) == 0 {
			o.Block = fleet.BlockNone
		}
		w.f[c] = o
		return
	}
	switch w.IntN(6) {
	case 0, 1:
		o.Block = pick(w, blocks()...)
	case 2, 3:
		o.Block = fleet.BlockNone
	case 4:
		if o.Target == version && o.Phase.Failed() { // another attempt by hand
			o.Phase, o.Reason = fleet.Fetching, ""
		}
	case 5:
		if o.Running == version && w.IntN(4) == 0 { // a revert in its repository
			o.Running, o.Target, o.Phase = from, from, fleet.Succeeded
		}
	}
	w.f[c] = o
}

// person says something; most of it is out of place.
func (w *walker) person() error {
	v := pick(w, Approve, Approve, Approve, Resume, Resume, Pause, Reject, Abort, Undo, Recall, Supersede)
	if (v == Abort || v == Undo || v == Recall || v == Supersede) && w.IntN(10) > 0 {
		v = Approve
	}
	if w.well {
		v = map[fleet.RolloutPhase]Verb{fleet.RolloutApproval: Approve, fleet.RolloutVerdicts: Approve, fleet.RolloutHolding: Resume, fleet.RolloutPaused: Resume}[w.s.Phase]
		if v == "" {
			return nil
		}
	}
	command := Command{Verb: v, By: "operator admin", Role: pick(w, "vendor", "admin"), Reason: "because", RollBack: w.IntN(2) == 0}
	if w.IntN(4) == 0 && !w.well {
		command.Wave, command.Role = pick(w, "w0", "w1", "w9"), pick(w, "", "vendor", "nobody")
	}
	old := clone(w.s)
	s, err := Do(w.now, w.s, command)
	if !same(old, w.s) {
		return fmt.Errorf("Do changed its argument")
	}
	if err != nil {
		return nil
	}
	w.s = s
	return nil
}

func (w *walker) step() string {
	names := slices.Sorted(maps.Keys(w.f))
	if len(names) > 0 {
		c := pick(w, names...)
		switch w.IntN(8) {
		case 0, 1, 2, 3:
			w.spoke(c)
		case 4:
			w.provider(c)
		case 5:
			if w.IntN(6) == 0 && !w.well && len(names) > 1 {
				delete(w.f, c)
			}
		}
	}
	switch n := w.IntN(40); {
	case n < 4:
		if err := w.person(); err != nil {
			return err.Error()
		}
	case n == 4 && !w.well && w.next < 14:
		w.join()
	case n == 5:
		w.now = w.now.Add(pick(w, time.Second, time.Minute, 20*time.Minute, 3*time.Hour))
	case n == 6:
		if due := w.s.Due(); due.After(w.now) {
			w.now = due
		}
	case n == 7 && !w.well:
		w.now = w.now.Add(-time.Minute) // somebody set the clock
	case n == 8: // the hub is killed, and reads what it stored
		data, err := json.Marshal(w.s)
		var back State
		if err == nil {
			err = json.Unmarshal(data, &back)
		}
		if err != nil {
			return err.Error()
		}
		w.s = back
	}
	return w.lookAndCheck()
}

func (w *walker) lookAndCheck() string {
	if w.now.After(w.late) {
		w.late = w.now
	}
	before := w.s
	var was State
	if w.IntN(4) == 0 {
		was = clone(before)
	}
	w.s = Next(w.now, before, w.f)
	if was.Waves != nil && !same(was, before) {
		return "Next changed its argument"
	}
	if problem := check(w.now, w.late, before, w.s, w.f); problem != "" || w.IntN(4) > 0 {
		return problem
	}
	return checkDue(w.now, w.s, w.f)
}

// run walks one rollout to its end. It returns the steps and what is wrong, if anything is.
func run(seed uint64, most int) (steps int, problem string, last fleet.RolloutPhase) {
	w := &walker{Rand: rand.New(rand.NewPCG(seed, 4)), now: t0, f: Fleet{}}
	for range w.IntN(9) {
		w.join()
	}
	w.s = Start(w.now, New{Distribution: "shop", Version: version, Plan: w.plan(), PlanSource: "--plan", StartedBy: "operator admin"}, w.f)
	if problem := check(w.now, w.now, State{Members: map[fleet.Cluster]Member{}}, w.s, w.f); problem != "" {
		return 0, problem, w.s.Phase
	}
	marked := excess{parked: map[fleet.Cluster]bool{}}
	good := 20 + w.IntN(most/3) // from then on
	for steps < most {
		w.well = steps > good
		steps++
		before := w.s
		if problem := w.step(); problem != "" {
			return steps, fmt.Sprintf("seed %d, step %d: %s", seed, steps, problem), w.s.Phase
		}
		if problem := marked.look(before, w.s); problem != "" {
			return steps, fmt.Sprintf("seed %d, step %d: %s", seed, steps, problem), w.s.Phase
		}
		if w.s.Phase.Terminal() && w.IntN(30) == 0 {
			return steps, "", w.s.Phase
		}
	}
	if !w.s.Phase.Terminal() {
		return steps, fmt.Sprintf("seed %d: no end within %d steps though all behave well: %s, %s, due %s\nnow %s waves %+v\nmembers %+v\nfleet %+v", seed, most, w.s.Phase, w.s.Waits(),
			w.s.Due(), w.now, w.s.Waves, w.s.Members, w.f), w.s.Phase
	}
	return steps, "", w.s.Phase
}

// excess bounds the failures of a wave: those within the budget, those that were on their way when it broke,
// those that had been parked, and those that took it back after they had it.
type excess struct{ parked map[fleet.Cluster]bool }

func (e *excess) look(before, s State) string {
	failed, late := make([]int, len(s.Waves)), make([]int, len(s.Waves))
	for c, m := range s.Members {
		if old := before.Members[c]; old.Mark == fleet.MarkParked || old.Mark == fleet.MarkDone || m.Mark == fleet.MarkParked || m.Mark == fleet.MarkDone {
			e.parked[c] = true
		}
		if m.Wave >= 0 && m.Mark == fleet.MarkFailed && !m.Offered.IsZero() { // else it failed in an earlier rollout
			if failed[m.Wave]++; e.parked[c] {
				late[m.Wave]++
			}
		}
	}
	for i, w := range s.Waves {
		if i <= s.Wave && failed[i]-w.Forgiven > w.Budget+w.Concurrency+late[i] {
			return fmt.Sprintf("wave %s: %d failed, %d forgiven, budget %d, concurrency %d, %d of them late", w.Name, failed[i], w.Forgiven, w.Budget, w.Concurrency, late[i])
		}
	}
	return ""
}

// The model: whatever the plan, the fleet, the people and the clock do, the invariants hold after each step,
// and once all behave well, every rollout comes to its end.
func TestRandomWalk(t *testing.T) {
	seed, want := uint64(20261121), 15_000
	if os.Getenv("WHEELWRIGHT_FIGURES") != "" {
		want = 1_200_000
	}
	if s := os.Getenv("WHEELWRIGHT_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	const most = 3000
	total, violations, runs := 0, 0, 0
	ends := map[fleet.RolloutPhase]int{}
	for ; total < want && violations < 3; runs++ {
		steps, problem, last := run(seed+uint64(runs), most)
		total += steps
		ends[last]++
		if problem != "" {
			violations++
			t.Error(problem)
		}
	}
	fmt.Printf("FIGURE rollout.model-steps %d steps seed %d, %d rollouts\n", total, seed, runs)
	fmt.Printf("FIGURE rollout.invariant-violations %d violations seed %d\n", violations, seed)
	t.Logf("%d rollouts ended: %v", runs, ends)
}
