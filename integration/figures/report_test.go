package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	most := target{figure: "scale.b4-vs-bare", limit: 1.1, unit: "ratio", of: fleetOf}
	least := target{figure: "scale.b11-per-second", limit: 50_000, unit: "events/s", atLeast: true}
	none := target{figure: "scale.b4-store-writes", limit: 0, unit: "writes"}
	big := "simulated: spokes=10000, and more"
	for _, test := range []struct {
		name    string
		target  target
		figures []figure
		want    string
	}{
		{"nothing", most, nil, "not measured"},
		{"another", most, []figure{{name: "scale.b4-vs", value: "1", unit: "ratio", note: big}}, "not measured"},
		{"reached", most, []figure{{name: "scale.b4-vs-bare", value: "1.1", unit: "ratio", note: big}}, "reached"},
		{"missed", most, []figure{{name: "scale.b4-vs-bare", value: "2.2", unit: "ratio", note: big}}, "**missed** by 1.1 ×: 2.00 times the limit"},
		{"the worst counts", most, []figure{{name: "scale.b4-vs-bare", value: "1.0", unit: "ratio", note: big}, {name: "scale.b4-vs-bare", value: "3", unit: "ratio", note: big}}, "**missed** by 1.9 ×: 2.73 times the limit"},
		{"a smaller fleet", most, []figure{{name: "scale.b4-vs-bare", value: "0.5", unit: "ratio", note: "spokes=1000, and more"}}, "not judged: measured otherwise, the target is for spokes=10000"},
		{"a smaller fleet beside the right one", most, []figure{{name: "scale.b4-vs-bare", value: "9", unit: "ratio", note: "spokes=1000,"}, {name: "scale.b4-vs-bare", value: "0.5", unit: "ratio", note: big}}, "reached"},
		{"another unit", most, []figure{{name: "scale.b4-vs-bare", value: "0.5", unit: "%", note: big}}, "not judged: measured in %, the target is in ×"},
		{"no number", most, []figure{{name: "scale.b4-vs-bare", value: "NaN%", unit: "ratio", note: big}}, `not measured: "NaN%" is no number`},
		{"at least", least, []figure{{name: "scale.b11-per-second", value: "50000", unit: "events/s"}}, "reached"},
		{"not even", least, []figure{{name: "scale.b11-per-second", value: "60000", unit: "events/s"}, {name: "scale.b11-per-second", value: "10000", unit: "events/s"}}, "**missed** by 4e+04 events/s: 0.20 times the limit"},
		{"none", none, []figure{{name: "scale.b4-store-writes", value: "0", unit: "writes"}}, "reached"},
		{"some", none, []figure{{name: "scale.b4-store-writes", value: "7", unit: "writes"}}, "**missed** by 7 writes"},
	} {
		if got := test.target.judge(test.figures); got.text != test.want || got.missed != strings.HasPrefix(test.want, "**missed") {
			t.Errorf("%s: %q, want %q", test.name, got.text, test.want)
		}
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	for _, old := range []string{"report.md", "growth-spokes.svg", "scale.b2-idle-kb.pprof"} {
		if err := os.WriteFile(filepath.Join(dir, old), []byte("of before"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := fresh(dir); err != nil {
		t.Fatal(err)
	}
	grown := func(name, value, at string) figure {
		return figure{name: name, value: value, unit: "MB", note: "simulated: " + at + ", live"}
	}
	r := report{dir: dir, commit: "abc123", begun: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), took: time.Minute, failed: []string{"./somewhere: go test: exit status 1"},
		figures: []figure{
			{name: "scale.b2-idle-kb", value: "88", unit: "KB", note: "simulated: spokes=10000, a | b"},
			{name: "scale.b6-cached", value: "0.01", unit: "ratio"},
			grown("growth.memory-mb", "50", "spokes=1000 distributions=1"), grown("growth.memory-mb", "500", "spokes=10000 distributions=1"), grown("growth.memory-mb", "5000", "spokes=1000 distributions=10"),
		}}
	name, err := r.write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Benchmarks of abc123\n", "Begun 2026-01-02 03:04 UTC, took 1m0s.", " cores, ",
		"| B2 | hub live memory per idle spoke, mutual TLS | `scale.b2-idle-kb` | 88 KB | at most 44 KB | **missed** by 44 KB: 2.00 times the limit |\n",
		"| B6 | the same, cached | `scale.b6-cached` | 0.01 × | at most 0.02 × | reached |\n",
		"| B13 | spoke idle, memory | `scale.b13-idle-mb` |  | at most 40 MB | not measured |\n",
		"`scale.b2-idle-kb`: **missed** by 44 KB: 2.00 times the limit. No profile was taken.\n",
		"![Growth over spokes](growth-spokes.svg)\n\n- Live memory of the hub over spokes grows as n^1.00: linear or better.\n",
		"![Growth over distributions](growth-distributions.svg)\n\n- Live memory of the hub over distributions grows as n^2.00: **worse than linear**.\n",
		"- ./somewhere: go test: exit status 1\n", `simulated: spokes=10000, a \| b |`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, plot := range []string{"growth-spokes.svg", "growth-distributions.svg"} {
		if svg, err := os.ReadFile(filepath.Join(dir, plot)); err != nil || !strings.HasPrefix(string(svg), "<svg ") {
			t.Errorf("%s: %v", plot, err)
		}
	}
}
