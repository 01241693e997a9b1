// Command figures is `make figures`: it runs the tests and benchmarks that print FIGURE lines, long
// ones included, one package at a time, and ends with a table of what they printed.
//
//	go run ./integration/figures            # all
//	go run ./integration/figures -only '^render\.'
//
// With packages it is `make bench` and `make bench-fleet`: their benchmarks run, and -out takes a report: what of the
// targets was reached, by what they were missed, and how things grow.
//
//	go run ./integration/figures -out dist/bench ./hub/internal/store ./integration/fleet
//
// A line is `FIGURE <area>.<what> <value> <unit> [note]`. Which functions print which figure is read
// from their source: a string literal that begins with "FIGURE <area>.<what> ", or the literal name
// given to a function called Figure. Where the name is only known at run time, its whole package runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/table"
)

func main() {
	only := flag.String("only", "", "regular expression that a figure's name must match")
	benchmarks := flag.String("benchmarks", ".", "regular expression of the packages' benchmarks")
	out := flag.String("out", "", "folder for the report of the packages' benchmarks")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if flag.NArg() > 0 {
		err = bench(ctx, *benchmarks, *out, flag.Args())
	} else {
		err = run(ctx, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("read ONLY=%s: %w", only, err)
	}
	sources, err := find(os.DirFS("."))
	if err != nil {
		return fmt.Errorf("find what prints figures: %w", err)
	}
	plans := plan(sources, wanted)
	if len(plans) == 0 {
		return fmt.Errorf("nothing prints a figure whose name matches %q; the names are: %s", only, strings.Join(names(sources), ", "))
	}
	figures, failed := measure(ctx, plans)
	figures = slices.DeleteFunc(figures, func(f figure) bool { return !wanted.MatchString(f.name) })
	if err := write(figures, commit(ctx)); err != nil {
		return err
	}
	return incomplete(failed)
}

func incomplete(failed []string) error {
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("not everything could be measured:\n  %s", strings.Join(failed, "\n  "))
}

// bench runs the benchmarks of packages and writes a report where a folder is given for it.
func bench(ctx context.Context, benchmarks, out string, packages []string) error {
	var plans []invocation
	for _, p := range packages {
		plans = append(plans, invocation{dir: path.Clean(p), benchmarks: benchmarks})
	}
	r := report{commit: commit(ctx), begun: time.Now()}
	if out != "" {
		var err error
		if r.dir, err = filepath.Abs(out); err != nil {
			return err
		}
		if err := fresh(r.dir); err != nil {
			return err
		}
		if err := os.Setenv(harness.ProfilesVariable, r.dir); err != nil {
			return err
		}
	}
	r.figures, r.failed = measure(ctx, plans)
	r.took = time.Since(r.begun)
	if err := write(r.figures, r.commit); err != nil {
		return err
	}
	if out != "" {
		name, err := r.write(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("\n%s\n", name)
	}
	return incomplete(r.failed)
}

// measure runs one package at a time.
func measure(ctx context.Context, plans []invocation) (figures []figure, failed []string) {
	for i, p := range plans {
		fmt.Fprintf(os.Stderr, "figures: %d of %d: %s\n", i+1, len(plans), p)
		printed, err := p.measure(ctx, os.Stderr)
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", p.dir, err))
		}
		figures = append(figures, printed...)
		if ctx.Err() != nil {
			break
		}
	}
	return figures, failed
}

func write(figures []figure, commit string) error {
	slices.SortStableFunc(figures, func(a, b figure) int { return strings.Compare(a.name, b.name) })
	var rows [][]string
	for _, f := range figures {
		rows = append(rows, []string{f.name, f.value, f.unit, f.note, commit, f.took.Round(100 * time.Millisecond).String()})
	}
	fmt.Println()
	return table.Write(os.Stdout, []string{"NAME", "VALUE", "UNIT", "SEED/NOTE", "COMMIT", "DURATION"}, rows, false)
}

// commit is the source that was measured, marked when it is not what is committed.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
