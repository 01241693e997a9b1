// Command figures is `make figures`: it runs the tests and benchmarks that print FIGURE lines, long
// ones included, one package at a time, and ends with a table of what they printed.
//
//	go run ./integration/figures            # all
//	go run ./integration/figures -only '^render\.'
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
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/table"
)

func main() {
	only := flag.String("only", "", "regular expression that a figure's name must match")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only); err != nil {
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
	var figures []figure
	var failed []string
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
	figures = slices.DeleteFunc(figures, func(f figure) bool { return !wanted.MatchString(f.name) })
	if err := write(figures, commit(ctx)); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("not everything could be measured:\n  %s", strings.Join(failed, "\n  "))
	}
	return nil
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
