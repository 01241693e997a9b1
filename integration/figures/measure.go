package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// invocation is one run of `go test` on one package.
type invocation struct {
	dir       string
	functions []string // empty: all of the package

	benchmarks string // not empty: benchmarks that match, no tests, and none of the long roads
}

// plan groups the sources whose figure is wanted by package. A figure without a known name is run
// whatever is wanted: it may be the one.
func plan(sources []source, wanted *regexp.Regexp) []invocation {
	var out []invocation
	for _, s := range sources {
		if s.name != "" && !wanted.MatchString(s.name) {
			continue
		}
		i := slices.IndexFunc(out, func(p invocation) bool { return p.dir == s.dir })
		switch {
		case i < 0 && s.function == "":
			out = append(out, invocation{dir: s.dir})
		case i < 0:
			out = append(out, invocation{dir: s.dir, functions: []string{s.function}})
		case s.function == "":
			out[i].functions = nil
		case len(out[i].functions) > 0 && !slices.Contains(out[i].functions, s.function):
			out[i].functions = append(out[i].functions, s.function)
		}
	}
	return out
}

func (p invocation) String() string {
	if len(p.functions) == 0 {
		return p.dir
	}
	return p.dir + " " + strings.Join(p.functions, ", ")
}

func (p invocation) arguments() []string {
	run, bench := ".", "."
	if p.benchmarks != "" {
		run, bench = "^$", p.benchmarks
	}
	if len(p.functions) > 0 {
		run, bench = pattern(p.functions, "Test"), pattern(p.functions, "Benchmark")
	}
	return []string{"test", "-json", "-count=1", "-timeout=3h", "-run", run, "-bench", bench, "./" + p.dir}
}

// pattern matches exactly the functions of one sort, and nothing when there are none.
func pattern(functions []string, sort string) string {
	var of []string
	for _, f := range functions {
		if strings.HasPrefix(f, sort) {
			of = append(of, f)
		}
	}
	return "^(" + strings.Join(of, "|") + ")$"
}

// figure is one printed line.
type figure struct {
	name, value, unit, note string
	test                    string
	took                    time.Duration // of the test that printed it, or of the package's run
}

// measure runs the invocation. Everything that the tests print goes to progress.
func (p invocation) measure(ctx context.Context, progress io.Writer) ([]figure, error) {
	cmd := exec.CommandContext(ctx, "go", p.arguments()...)
	cmd.Env = os.Environ()
	if p.benchmarks == "" {
		cmd.Env = append(cmd.Env, "WHEELWRIGHT_FIGURES=1")
	}
	cmd.Stderr = progress
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start go test: %w", err)
	}
	figures, parseErr := collect(stdout, progress)
	if err := cmd.Wait(); err != nil {
		return figures, fmt.Errorf("go test: %w", err)
	}
	if parseErr == nil && len(figures) == 0 && p.benchmarks == "" {
		parseErr = errors.New("no FIGURE line was printed")
	}
	return figures, parseErr
}

// collect reads `go test -json` as long as there is some, so that the child never blocks.
func collect(in io.Reader, progress io.Writer) ([]figure, error) {
	var figures []figure
	partial := map[string]string{} // by test: output without its newline yet
	decoder := json.NewDecoder(in)
	for {
		var event struct {
			Action, Test, Output string
			Elapsed              float64 // seconds
		}
		switch err := decoder.Decode(&event); {
		case errors.Is(err, io.EOF):
			return figures, nil
		case err != nil:
			io.Copy(progress, in)
			return figures, fmt.Errorf("read go test -json: %w", err)
		}
		switch event.Action {
		case "output":
			io.WriteString(progress, event.Output)
			text := partial[event.Test] + event.Output
			end := strings.LastIndexByte(text, '\n')
			partial[event.Test] = text[end+1:]
			for line := range strings.Lines(text[:end+1]) {
				if f, ok := parseFigure(line); ok {
					f.test = event.Test
					figures = append(figures, f)
				}
			}
		case "pass", "fail":
			for i, f := range figures {
				if f.took == 0 && (f.test == event.Test || event.Test == "") {
					figures[i].took = time.Duration(event.Elapsed * float64(time.Second))
				}
			}
		}
	}
}

// figureLine may follow the file and line that t.Log writes, or a benchmark's name.
var figureLine = regexp.MustCompile(`(?:^|\s)FIGURE (` + figureName + `) (\S+) (\S+)(?: (.*))?$`)

func parseFigure(line string) (figure, bool) {
	match := figureLine.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
	if match == nil {
		return figure{}, false
	}
	return figure{name: match[1], value: match[2], unit: match[3], note: strings.TrimSpace(match[4])}, true
}
