package render

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
)

// childName is what the child finds as its own name. The name, not an argument, so that no command line
// of the program can be mistaken for it.
const childName = "wheelwright-render"

// request is a frame that the child gets.
type request struct {
	Source Source
	Limits Limits
}

// answer is the first frame that the child sends back; the manifest is the second.
type answer struct {
	Problems []string `json:"problems,omitempty"`
	Objects  int      `json:"objects"`
	Sandbox  string   `json:"sandbox"`
}

// child is the parent's end of the render process.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr tail
	dead   bool
	told   bool // how it is confined was looked at
}

// self is the running program, also where its file was replaced meanwhile.
func self() string {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe"
	}
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func start(command []string) (*child, error) {
	c := &child{cmd: &exec.Cmd{
		Path:        command[0],
		Args:        append([]string{childName}, command[1:]...),
		Env:         []string{}, // nil would hand down ours
		Dir:         "/",
		SysProcAttr: dieWithParent(),
	}}
	c.cmd.Stderr = &c.stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	c.in, c.out = in, bufio.NewReaderSize(out, 64<<10)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// render exchanges one source for one answer. After any error but a *BuildError from a living child,
// the child is dead and waited for.
func (c *child) render(ctx context.Context, req request) (Result, error) {
	unhook := context.AfterFunc(ctx, func() { c.cmd.Process.Kill() })
	a, text, err := c.exchange(req)
	if !unhook() && err == nil { // killed, though it had just answered
		err = ctx.Err()
	}
	if err != nil {
		return Result{}, c.autopsy(req, err)
	}
	if len(a.Problems) > 0 {
		return Result{Sandbox: a.Sandbox}, &BuildError{a.Problems}
	}
	return Result{Manifest: text, Digest: bundle.DigestOf(text), Objects: a.Objects, Sandbox: a.Sandbox}, nil
}

func (c *child) exchange(req request) (answer, []byte, error) {
	var frame bytes.Buffer
	if err := gob.NewEncoder(&frame).Encode(req); err != nil {
		return answer{}, nil, err
	}
	if err := writeFrame(c.in, frame.Bytes()); err != nil {
		return answer{}, nil, err
	}
	head, err := readFrame(c.out, maxHead)
	if err != nil {
		return answer{}, nil, err
	}
	// JSON, not gob: what comes from the child is not to be trusted.
	var a answer
	if err := json.Unmarshal(head, &a); err != nil {
		return answer{}, nil, err
	}
	a.Problems = shorten(a.Problems)
	text, err := readFrame(c.out, req.Limits.Bytes)
	return a, text, err
}

// autopsy ends the child and says why it failed.
func (c *child) autopsy(req request, cause error) error {
	c.dead = true
	c.cmd.Process.Kill()
	c.in.Close()
	c.cmd.Wait() // the exit status is read below
	last := c.stderr.last()
	switch code := c.cmd.ProcessState.ExitCode(); {
	case code == exitMemory, code == exitFatal && outOfMemory(last):
		return &BuildError{[]string{tooMuch(req.Source, "rendering needs more than %d MiB of memory", req.Limits.Memory>>20)}}
	case code == exitProcessor:
		return &BuildError{[]string{tooMuch(req.Source, "rendering needs more than %s of processor time", req.Limits.Processor)}}
	case code == exitFatal && strings.Contains(last, "stack exceeds"):
		return &BuildError{[]string{tooMuch(req.Source, "rendering nests too deep")}}
	}
	if last != "" {
		return fmt.Errorf("render process ended (%s): %s", c.cmd.ProcessState, last)
	}
	return fmt.Errorf("render process ended (%s): %w", c.cmd.ProcessState, cause)
}

// outOfMemory tells Go's own last words when the kernel gives no more.
func outOfMemory(last string) bool {
	return strings.Contains(last, "out of memory") || strings.Contains(last, "cannot allocate memory")
}

// stop lets the child end by itself, which it does when its input is closed, for a while.
func (c *child) stop() {
	c.dead = true
	c.in.Close()
	kill := time.AfterFunc(2*time.Second, func() { c.cmd.Process.Kill() })
	defer kill.Stop()
	c.cmd.Wait() // however it ended, it is gone
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if n := len(t.text) - tailSize; n > 0 {
		t.text = append(t.text[:0], t.text[n:]...)
	}
	return len(p), nil
}

// last is the last line that is a message, rather than part of a stack.
func (t *tail) last() string {
	var found string
	for line := range strings.Lines(string(t.text)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "panic: ") || strings.Contains(line, "stack exceeds") {
			return line
		}
		if line != "" && !strings.HasPrefix(line, "\t") {
			found = line
		}
	}
	return found
}
