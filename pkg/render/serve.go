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
	"time"
)

// A child that needs more than it may ends itself with one of these.
const (
	exitMemory    = 86
	exitProcessor = 87
)

// ChildMain belongs in the first line of main, and of TestMain where a test renders: in a process that
// was started as the render child it renders until its input ends, and then exits. In any other it
// returns false at once.
func ChildMain() bool {
	if len(os.Args) == 0 || os.Args[0] != childName {
		return false
	}
	confined := sandbox()
	debug.SetGCPercent(300) // little is alive between two renderings; speed matters more
	if err := serve(os.Stdin, os.Stdout, confined); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

// serve answers requests until the input ends.
func serve(in io.Reader, out io.Writer, confined string) error {
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
		done := watch(req)
		text, objects, problems := buildSafely(req.Source)
		done()
		head, err := json.Marshal(answer{Problems: problems, Objects: objects, Sandbox: confined})
		if err != nil {
			return fmt.Errorf("encoding answer: %w", err)
		}
		if err := errors.Join(writeFrame(w, head), writeFrame(w, text), w.Flush()); err != nil {
			return fmt.Errorf("writing answer: %w", err)
		}
	}
}

// buildSafely: kustomize panics on some malformed input, which is that input's fault.
func buildSafely(src Source) (text []byte, objects int, problems []string) {
	defer func() {
		if p := recover(); p != nil {
			text, objects, problems = nil, 0, []string{fmt.Sprintf("kustomize panicked: %v", p)}
		}
	}()
	text, objects, err := build(src)
	var be *BuildError
	switch {
	case errors.As(err, &be):
		problems = be.Problems
	case err != nil:
		problems = []string{err.Error()}
	}
	return text, objects, problems
}

// watch bounds the heap and the processor time of one rendering. The kernel's limits would not do: Go
// reserves far more address space than it uses, and processor time counts for the process's whole life.
func watch(req request) (done func()) {
	debug.SetMemoryLimit(req.Memory / 2) // collect harder from here on
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
			if sample[0].Value.Uint64() > uint64(req.Memory) {
				os.Exit(exitMemory)
			}
			if processorTime()-begin > req.Processor {
				os.Exit(exitProcessor)
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(stop)
	}
}
