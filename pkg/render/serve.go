package render

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"
)

// A child that needs more than it may ends itself with one of these.
const (
	exitMemory    = 86
	exitProcessor = 87
	exitFatal     = 2 // Go's own, of what cannot be recovered from
)

const childGC = 300 // percent

// ChildMain belongs in the first line of main, and of TestMain where a test renders: in a process that
// was started as the render child it renders until its input ends, and then exits. In any other it
// returns false at once.
func ChildMain() bool {
	if len(os.Args) == 0 || os.Args[0] != childName {
		return false
	}
	begin := dataSize()
	confined := sandbox()
	debug.SetGCPercent(childGC) // little is alive between two renderings; speed matters more
	if err := serve(os.Stdin, os.Stdout, confined, begin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

// serve answers requests until the input ends. begin is the memory that was mapped at the start.
func serve(in io.Reader, out io.Writer, confined string, begin uint64) error {
	r, w := bufio.NewReaderSize(in, 64<<10), bufio.NewWriterSize(out, 64<<10)
	for {
		frame, err := readFrame(r, math.MaxUint32)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading request: %w", err)
		}
		var req request
		if err := gob.NewDecoder(bytes.NewReader(frame)).Decode(&req); err != nil {
			return fmt.Errorf("decoding request: %w", err)
		}
		limitData(begin, req.Limits.Memory)
		done := watch(req.Limits)
		text, objects, problems, panicked := buildSafely(req.Source, req.Limits)
		done()
		head, err := json.Marshal(answer{Problems: shorten(problems), Objects: objects, Sandbox: confined})
		if err != nil {
			return fmt.Errorf("encoding answer: %w", err)
		}
		if err := errors.Join(writeFrame(w, head), writeFrame(w, text), w.Flush()); err != nil {
			return fmt.Errorf("writing answer: %w", err)
		}
		if panicked { // perhaps with a lock held: this process is not used again
			return nil
		}
	}
}

// What is said about one source, at most: an answer's head has to fit into maxHead.
const (
	maxProblems = 100
	maxProblem  = 4 << 10
	maxHead     = 8 << 20
)

// shorten bounds what a hostile source can have said about it. What was shortened stays as it is: the
// parent does it again, as it does not trust the child.
func shorten(problems []string) []string {
	if more := len(problems) - maxProblems; more > 1 {
		problems = append(problems[:maxProblems:maxProblems], fmt.Sprintf("and %d problems more", more))
	}
	for i, p := range problems {
		if len(p) > maxProblem+len("…") {
			problems[i] = strings.ToValidUTF8(p[:maxProblem], "") + "…"
		}
	}
	return problems
}

// buildSafely: kustomize panics on some malformed input, which is that input's fault.
func buildSafely(src Source, limits Limits) (text []byte, objects int, problems []string, panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			text, objects, problems, panicked = nil, 0, []string{fmt.Sprintf("kustomize panicked: %v", p)}, true
		}
	}()
	text, objects, err := build(src, limits)
	var be *BuildError
	switch {
	case errors.As(err, &be):
		problems = be.Problems
	case err != nil:
		problems = []string{err.Error()}
	case int64(len(text)) > limits.Bytes:
		problems = []string{tooMuch(src, "the rendered manifest has %d bytes, more than the %d that are taken", len(text), limits.Bytes)}
		text, objects = nil, 0
	}
	return text, objects, problems, false
}

// watch bounds the heap and the processor time of one rendering. The kernel's own limits would not do
// alone: Go reserves far more address space than it uses, and processor time counts for the process's
// whole life.
func watch(limits Limits) (done func()) {
	debug.SetMemoryLimit(limits.Memory / 2) // collect harder from here on
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	begin := processorTime()
	ticker, stop := time.NewTicker(20*time.Millisecond), make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			metrics.Read(sample)
			if sample[0].Value.Uint64() > uint64(limits.Memory) {
				os.Exit(exitMemory)
			}
			if processorTime()-begin > limits.Processor {
				os.Exit(exitProcessor)
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(stop)
	}
}
