package rollout

import (
	"reflect"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// preview lays a plan over n clusters, changed first.
func preview(t *testing.T, n int, planText string, first ...func(st *story)) Layout {
	t.Helper()
	p, err := plan.Parse([]byte(planText))
	if err != nil {
		t.Fatal(err)
	}
	st := &story{t: t, now: t0, f: Fleet{}}
	for i := range n {
		st.join(i)
	}
	for _, do := range first {
		do(st)
	}
	return Preview(t0, New{Distribution: "shop", Version: version, Plan: p}, st.f)
}

func TestPreviewSaysOrderAmountsAndGates(t *testing.T) {
	l := preview(t, 5, `waves:
- {name: canary, clusters: {matchLabels: {ring: "4"}}, verdicts: {minimum: 1, passes: 90%}, soak: 30m}
- {name: rest, concurrency: 50%, budget: 10%, approval: vendor, windows: ["daily 01:00-03:00 UTC"], success: 75%}
`)
	var got []string
	for _, w := range l.Waves {
		var names []string
		for _, c := range w.Clusters {
			names = append(names, string(c.Cluster)+" "+c.Running)
		}
		got = append(got, strings.Join(names, ",")+"; "+strings.Join(w.Gates, "; "))
	}
	want := []string{"acme/c4 1.0.0; soak 30m; 1 verdicts, 90% of them pass",
		"acme/c0 1.0.0,acme/c1 1.0.0,acme/c2 1.0.0,acme/c3 1.0.0; approval by vendor; window daily 01:00-03:00 UTC, opens 2026-01-06T01:00:00Z; 75% healthy"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	if w := l.Waves[1]; w.Concurrency != 2 || w.Budget != 1 {
		t.Errorf("%d at once, %d may fail", w.Concurrency, w.Budget)
	}
	if len(l.Warnings)+len(l.LeftOut) > 0 {
		t.Errorf("%v %v", l.Warnings, l.LeftOut)
	}
}

func TestPreviewSaysEveryBlocker(t *testing.T) {
	l := preview(t, 9, `waves: [{name: all}]`, func(st *story) {
		for i, b := range []fleet.Block{fleet.BlockPin, fleet.BlockWindow, fleet.BlockSilent, fleet.BlockStop} {
			st.set(i, func(o *Observation) { o.Block = b })
		}
		st.set(4, func(o *Observation) { o.Running = version })
		st.set(5, func(o *Observation) { o.Running = "2.0.0" })
		st.set(6, func(o *Observation) { o.Target, o.Phase, o.Reason = version, fleet.Refused, "no signature" })
		st.set(7, func(o *Observation) { o.Health = fleet.Degraded })
	})
	var got []string
	for _, c := range l.Waves[0].Clusters {
		got = append(got, strings.Join(c.Blockers, "; "))
	}
	want := []string{"pinned", "outside its maintenance window", "silent", "another release has to run first", "runs it already", "runs 2.0.0, which is newer",
		"failed with it before: Refused: no signature", "is degraded now", ""}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

func TestPreviewWarns(t *testing.T) {
	for _, by := range []struct {
		name, plan string
		n          int
		want       []string
	}{
		{"nothing", `waves: [{name: first, max: 1}, {name: rest}]`, 3, nil},
		{"an overlap", `waves: [{name: first, clusters: {matchLabels: {ring: "0"}}}, {name: second, clusters: {matchExpressions: [{key: ring, operator: In, values: ["0", "1"]}]}}]`, 2,
			[]string{"waves first and second overlap, and the first has them: acme/c0"}},
		{"left out", `waves: [{name: first, clusters: {matchLabels: {ring: "0"}}}]`, 3,
			[]string{"in no wave, and offered the release when the rollout is completed: acme/c1, acme/c2"}},
		{"many left out", `waves: [{name: first, clusters: {matchLabels: {ring: "0"}}}]`, 13,
			[]string{"in no wave, and offered the release when the rollout is completed: " +
				"acme/c1, acme/c10, acme/c11, acme/c12, acme/c2, acme/c3, acme/c4, acme/c5, acme/c6, acme/c7, and 2 more"}},
		{"nobody", `waves: [{name: first, clusters: {matchLabels: {ring: "9"}}}]`, 1,
			[]string{"wave first is empty: it matches no cluster", "no wave matches any of 1 cluster: the rollout will hold"}},
		{"nobody is left", `waves: [{name: first}, {name: second}]`, 1, []string{"wave second is empty: waves before it have every cluster that it matches"}},
	} {
		if got := preview(t, by.n, by.plan).Warnings; !reflect.DeepEqual(got, by.want) {
			t.Errorf("%s: %q", by.name, got)
		}
	}
}

// A preview and the start that follows it come to the same.
func TestPreviewIsWhatStartDoes(t *testing.T) {
	text := `waves: [{name: canary, max: 20%, concurrency: 1}, {name: early, clusters: {matchExpressions: [{key: ring, operator: NotIn, values: ["7"]}]}, max: 50%, budget: 10%}]`
	l := preview(t, 10, text)
	st := tell(t, 10, text)
	for i, w := range l.Waves {
		if got := st.s.Waves[i]; got.Name != w.Name || got.Concurrency != w.Concurrency || got.Budget != w.Budget || st.s.Count(i).Total != len(w.Clusters) {
			t.Errorf("%+v, and %+v", w, got)
		}
		for _, c := range w.Clusters {
			if m := st.s.Members[c.Cluster]; m.Wave != i {
				t.Errorf("%s is in wave %d, was to be in %d", c.Cluster, m.Wave, i)
			}
		}
	}
	if len(l.LeftOut) != len(st.s.LeftOut) {
		t.Errorf("%v, and %v", l.LeftOut, st.s.LeftOut)
	}
}
