package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/plot"
)

// report is what a run of benchmarks measured.
type report struct {
	dir     string // takes report.md, the plots and the profiles
	commit  string
	begun   time.Time
	took    time.Duration
	figures []figure
	failed  []string
}

// write writes report.md and what it shows, and returns its path.
func (r report) write(ctx context.Context) (string, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Benchmarks of %s\n\n%s\n\nBegun %s, took %s.\n\n", r.commit, machine(), r.begun.UTC().Format("2006-01-02 15:04 UTC"), r.took.Round(time.Second))
	var missed []verdict
	b.WriteString("| | measured | figure | value | to reach | |\n|---|---|---|---|---|---|\n")
	for _, t := range targets {
		v := t.judge(r.figures)
		value := ""
		if v.figure != nil {
			value = v.figure.value + " " + shown(v.figure.unit)
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` | %s | %s | %s |\n", t.id, t.what, t.figure, value, t.bound(), v.text)
		if v.missed {
			missed = append(missed, v)
		}
	}
	b.WriteString("\nSpokes are simulated where a figure's note says so: real certificates, TLS, streams and fetches; nothing is rendered or applied.\n")
	if err := r.grown(&b); err != nil {
		return "", err
	}
	r.held(ctx, &b, missed)
	if len(r.failed) > 0 {
		fmt.Fprintf(&b, "\n## Not measured because it failed\n\n- %s\n", strings.Join(r.failed, "\n- "))
	}
	b.WriteString("\n## Every figure\n\n| figure | value | | note |\n|---|---|---|---|\n")
	for _, f := range r.figures {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, f.value, f.unit, cell(f.note))
	}
	name := filepath.Join(r.dir, "report.md")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write the report: %w", err)
	}
	return name, nil
}

// cell is text inside of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// grows are the quantities that are plotted, by the figure that has a point in each of its lines.
var grows = []struct{ figure, title string }{
	{"growth.memory-mb", "Live memory of the hub"},
	{"growth.cpu-s", "Processor time of a release"},
	{"growth.to-all-s", "Time to all"},
}

// point is how a figure's note says what it is one of.
var point = regexp.MustCompile(`spokes=(\d+) distributions=(\d+)`)

// linear is the exponent up to which growth counts as linear: what is measured on a busy machine scatters.
const linear = 1.05

// grown plots how figures grow over spokes, at one distribution, and over distributions, at the number of spokes that
// has several.
func (r report) grown(b *bytes.Buffer) error {
	heading := "\n## Growth\n"
	for _, over := range []struct {
		what string
		pick func(spokes, distributions float64) (x float64, of float64)
		of   string
	}{
		{"spokes", func(s, d float64) (float64, float64) { return s, d }, "distributions"},
		{"distributions", func(s, d float64) (float64, float64) { return d, s }, "spokes"},
	} {
		var panels []plot.Panel
		var lines []string
		for _, g := range grows {
			series, fixed, unit := r.series(g.figure, over.pick)
			if len(series) < 2 {
				continue
			}
			panels = append(panels, plot.Panel{Title: g.title, X: fmt.Sprintf("%s (%s: %g)", over.what, over.of, fixed), Y: unit, Points: series})
			e := plot.Exponent(series)
			says := "linear or better"
			if e > linear {
				says = "**worse than linear**"
			}
			lines = append(lines, fmt.Sprintf("- %s over %s grows as n^%.2f: %s.", g.title, over.what, e, says))
		}
		if len(panels) == 0 {
			continue
		}
		name := "growth-" + over.what + ".svg"
		f, err := os.Create(filepath.Join(r.dir, name))
		if err != nil {
			return fmt.Errorf("write the plots: %w", err)
		}
		if err := errors.Join(plot.Write(f, panels...), f.Close()); err != nil {
			return fmt.Errorf("write the plots: %w", err)
		}
		fmt.Fprintf(b, "%s\n![Growth over %s](%s)\n\n%s\n", heading, over.what, name, strings.Join(lines, "\n"))
		heading = ""
	}
	return nil
}

// series are the points of a figure whose other quantity is the same; of several such series the one with the most.
func (r report) series(name string, pick func(spokes, distributions float64) (x, of float64)) (best []plot.Point, fixed float64, unit string) {
	all := map[float64][]plot.Point{}
	for _, f := range r.figures {
		at := point.FindStringSubmatch(f.note)
		y, err := strconv.ParseFloat(f.value, 64)
		if f.name != name || at == nil || err != nil || y <= 0 {
			continue
		}
		s, _ := strconv.ParseFloat(at[1], 64) // digits
		d, _ := strconv.ParseFloat(at[2], 64)
		x, of := pick(s, d)
		all[of], unit = append(all[of], plot.Point{X: x, Y: y}), f.unit
		if len(all[of]) > len(best) {
			best, fixed = all[of], of
		}
	}
	return best, fixed, unit
}

// held shows, for what was missed, where the time or the memory is: by the profile of the figure, or of another of the
// same target.
func (r report) held(ctx context.Context, b *bytes.Buffer, missed []verdict) {
	if len(missed) == 0 {
		return
	}
	b.WriteString("\n## What holds what was missed\n")
	shown := map[string]bool{}
	for _, v := range missed {
		fmt.Fprintf(b, "\n`%s`: %s.", v.target.figure, v.text)
		file := r.profile(v.target)
		switch {
		case file == "":
			b.WriteString(" No profile was taken.\n")
		case shown[file]:
			fmt.Fprintf(b, " Its profile is the one above, `%s`.\n", filepath.Base(file))
		default:
			shown[file] = true
			top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-cum", "-nodecount=40", file).CombinedOutput()
			if err != nil {
				top = fmt.Appendf(top, "go tool pprof: %v", err)
			}
			fmt.Fprintf(b, " Its profile, `%s`:\n\n```\n%s\n```\n", filepath.Base(file), bytes.TrimSpace(top))
		}
	}
}

// profile is the path of one for a target; empty: none was taken.
func (r report) profile(t target) string {
	for _, pattern := range []string{t.figure, "scale." + strings.ToLower(t.id) + "-*"} {
		if all, err := filepath.Glob(filepath.Join(r.dir, pattern+".pprof")); err == nil && len(all) > 0 {
			return all[0]
		}
	}
	return ""
}

// machine is what the figures were taken on.
func machine() string {
	parts := []string{fmt.Sprintf("%d cores", runtime.NumCPU())}
	for _, source := range []struct{ file, line, after string }{{"/proc/cpuinfo", "model name", ": "}, {"/proc/meminfo", "MemTotal", ": "}} {
		text, err := os.ReadFile(source.file)
		if err != nil {
			continue // not Linux
		}
		for line := range strings.Lines(string(text)) {
			if _, rest, found := strings.Cut(line, source.after); found && strings.HasPrefix(line, source.line) {
				parts = append(parts, source.line+" "+strings.TrimSpace(rest))
				break
			}
		}
	}
	kernel := runtime.GOOS
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel += " " + strings.TrimSpace(string(text))
	}
	return strings.Join(append(parts, kernel, runtime.Version()+" "+runtime.GOARCH), ", ") + "."
}

// fresh makes the folder of a report, without what an earlier one left there.
func fresh(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the report's folder: %w", err)
	}
	for _, pattern := range []string{"report.md", "growth-*.svg", "*.pprof"} {
		old, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range slices.Compact(old) {
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("clear the report's folder: %w", err)
			}
		}
	}
	return nil
}
