package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// target is what one figure is to reach.
type target struct {
	id, what string
	figure   string
	limit    float64
	unit     string
	atLeast  bool   // the figure is not to be below the limit; else not above it
	of       string // what the figure's note has to say for it to count
}

// fleetOf is in the note of what was measured with as many spokes as its target speaks of.
const fleetOf = "spokes=10000,"

// targets are those of scale, in the order of the report.
var targets = []target{
	{id: "B1", what: "tag stored → 10,000 simulated spokes hold and acknowledge the bundle: the hub's processor time over a bare grpc loop's", figure: "scale.b1-vs-bare", limit: 1.5, unit: "ratio", of: fleetOf},
	{id: "B1", what: "the same in wall time", figure: "scale.b1-wall-vs-bare", limit: 1.5, unit: "ratio", of: fleetOf},
	{id: "B1", what: "the same in seconds, a delta of 10 KB", figure: "scale.b1-seconds", limit: 10, unit: "s", of: fleetOf},
	{id: "B2", what: "hub live memory per idle spoke, mutual TLS", figure: "scale.b2-idle-kb", limit: 44, unit: "KB", of: fleetOf},
	{id: "B2", what: "the same behind a relay", figure: "scale.b2-relay-kb", limit: 8, unit: "KB"},
	{id: "B3", what: "fan-out processor time per message over a hand-written pre-encoded sender's", figure: "scale.b3-vs-preencoded", limit: 1.15, unit: "ratio"},
	{id: "B4", what: "10,000 spokes reconnect after a hub kill: the hub's processor time over bare mutual-TLS stream set-up", figure: "scale.b4-vs-bare", limit: 1.1, unit: "ratio", of: fleetOf},
	{id: "B4", what: "store writes of that", figure: "scale.b4-store-writes", limit: 0, unit: "writes", of: fleetOf},
	{id: "B4", what: "all back within", figure: "scale.b4-seconds", limit: 60, unit: "s", of: fleetOf},
	{id: "B4", what: "handshakes in the busiest second over the mean", figure: "scale.b4-peak-mean", limit: 3, unit: "ratio", of: fleetOf},
	{id: "B5", what: "bundle build over `git archive` + sha256sum, warm", figure: "scale.b5-vs-git-archive", limit: 1, unit: "ratio"},
	{id: "B5", what: "the same, incremental", figure: "scale.b5-incremental", limit: 0.2, unit: "ratio"},
	{id: "B6", what: "first render over `kubectl kustomize`", figure: "scale.b6-first", limit: 0.5, unit: "ratio"},
	{id: "B6", what: "the same, cached", figure: "scale.b6-cached", limit: 0.02, unit: "ratio"},
	{id: "B9", what: "`hub status` with 10,000 clusters over process start", figure: "scale.b9-status-vs-start", limit: 1.5, unit: "ratio"},
	{id: "B9", what: "the full list as JSON", figure: "scale.b9-json-ms", limit: 200, unit: "ms"},
	{id: "B10", what: "patch release on the wire over C `zstd --patch-from -19`", figure: "scale.b10-vs-zstd19", limit: 1.5, unit: "ratio"},
	{id: "B10", what: "median of how much smaller than the whole bundle", figure: "scale.b10-median-shrink", limit: 20, unit: "ratio", atLeast: true},
	{id: "B11", what: "durable health transitions, group-committed", figure: "scale.b11-per-second", limit: 50_000, unit: "events/s", atLeast: true},
	{id: "B11", what: "store writes of heartbeats and of what is no news", figure: "scale.b11-writes-without-news", limit: 0, unit: "writes"},
	{id: "B12", what: "three waves over 100 of 1,000 clusters, hub time", figure: "scale.b12-rollout-s", limit: 2, unit: "s"},
	{id: "B12", what: "restart to full knowledge of 10,000", figure: "scale.b12-restart-s", limit: 2, unit: "s"},
	{id: "B13", what: "spoke idle, memory", figure: "scale.b13-idle-mb", limit: 40, unit: "MB"},
	{id: "B13", what: "spoke idle, processor", figure: "scale.b13-idle-millicores", limit: 2, unit: "millicores"},
}

// verdict is what became of a target.
type verdict struct {
	target
	figure *figure // nil: not measured
	missed bool
	text   string
}

// judge finds the target's figure among those that were printed. Of several of one name the worst counts of those that
// were measured as the target wants it.
func (t target) judge(figures []figure) verdict {
	v := verdict{target: t, text: "not measured"}
	worst := 0.0
	named := func(f figure) bool { return f.name == t.figure && strings.Contains(f.note, t.of) }
	if !slices.ContainsFunc(figures, named) {
		named = func(f figure) bool { return f.name == t.figure }
	}
	for _, f := range figures {
		if !named(f) {
			continue
		}
		value, err := strconv.ParseFloat(f.value, 64)
		if err != nil {
			v.text = fmt.Sprintf("not measured: %q is no number", f.value)
			continue
		}
		if v.figure == nil || (value > worst) != t.atLeast {
			worst, v.figure = value, &f
		}
	}
	switch {
	case v.figure == nil:
	case shown(v.figure.unit) != shown(t.unit):
		v.text = fmt.Sprintf("not judged: measured in %s, the target is in %s", shown(v.figure.unit), shown(t.unit))
	case !strings.Contains(v.figure.note, t.of):
		v.text = "not judged: measured otherwise, the target is for " + strings.TrimSuffix(t.of, ",")
	case t.atLeast && worst < t.limit, !t.atLeast && worst > t.limit:
		v.missed, v.text = true, "**missed** by "+t.by(worst)
	default:
		v.text = "reached"
	}
	return v
}

// by is how far a value is from the limit.
func (t target) by(value float64) string {
	if t.limit == 0 {
		return fmt.Sprintf("%g %s", value, shown(t.unit))
	}
	return fmt.Sprintf("%.3g %s: %.2f times the limit", max(value, t.limit)-min(value, t.limit), shown(t.unit), value/t.limit)
}

func (t target) bound() string {
	most := "at most"
	if t.atLeast {
		most = "at least"
	}
	return fmt.Sprintf("%s %g %s", most, t.limit, shown(t.unit))
}

// shown is a unit as the report has it: figures write ratios in several ways.
func shown(unit string) string {
	switch unit {
	case "ratio", "times", "x":
		return "×"
	}
	return unit
}
