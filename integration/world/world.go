// Package world puts the built binaries on a stage: one vendor with a real git repository, one hub
// process, spoke processes on real clusters. Stories and the demo act in it as people would, by
// commands, and look at what the commands print. It asserts nothing.
package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/child"
)

// Binaries holds the built commands.
type Binaries struct{ Hub, Spoke string }

// Build compiles hub and spoke, as `make build` does, into dir.
func Build(ctx context.Context, root, dir string, race bool) (Binaries, error) {
	b := Binaries{Hub: filepath.Join(dir, "hub"), Spoke: filepath.Join(dir, "spoke")}
	for path, pkg := range map[string]string{b.Hub: "./hub/cmd/hub", b.Spoke: "./spoke/cmd/spoke"} {
		args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", path}
		env := append(os.Environ(), "CGO_ENABLED=0")
		if race {
			args, env = append(args, "-race"), append(os.Environ(), "CGO_ENABLED=1")
		}
		cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
		cmd.Dir, cmd.Env = root, env
		if out, err := cmd.CombinedOutput(); err != nil {
			return Binaries{}, fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
	}
	return b, nil
}

// Root finds the project's root from the working folder.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.Contains(string(b), "module github.com/wheelwright-dev/wheelwright\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod of the project above the working folder")
		}
	}
}

// Result is what a command said.
type Result struct {
	Out, Err string
	Code     int
}

// command runs a program to its end.
func command(ctx context.Context, dir string, env []string, program string, args ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errOut bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errOut
	cmd.Env = append(os.Environ(), env...)
	err := cmd.Run()
	r := Result{Out: out.String(), Err: errOut.String(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, fmt.Errorf("running %s: %w", program, err)
	}
	return r, nil
}

// daemon is a process that goes on until it is stopped or killed, and can be started again.
type daemon struct {
	name    string
	log     string
	program string
	args    []string
	env     []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

func (d *daemon) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		return fmt.Errorf("%s runs already", d.name)
	}
	f, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(d.program, d.args...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = append(os.Environ(), d.env...)
	cmd.SysProcAttr = child.WithUs()
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // that starts it: it dies with that thread
		defer runtime.UnlockOSThread()
		defer f.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", d.name, err)
	}
	d.cmd, d.done = cmd, done
	return nil
}

// end sends sig and waits. It returns the exit code, -1 after a kill.
func (d *daemon) end(sig syscall.Signal) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return 0, nil
	}
	cmd, done := d.cmd, d.done
	d.cmd = nil
	_ = cmd.Process.Signal(sig)
	select {
	case <-done:
		return cmd.ProcessState.ExitCode(), nil
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		<-done
		return -1, fmt.Errorf("%s did not end within 30s of %v; log: %s", d.name, sig, d.log)
	}
}

// pid of the running process, 0 for none.
func (d *daemon) pid() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return 0
	}
	return d.cmd.Process.Pid
}

// exited: the process has ended by itself.
func (d *daemon) exited() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return true
	}
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// Tail is the end of a log.
func Tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Await calls check until it is nil, and gives check's last error when ctx ends first.
func Await(ctx context.Context, what string, check func(context.Context) error) error {
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // a check that was cut short says nothing
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// RSS is the resident memory of a process and its children, in bytes.
func RSS(pid int) (int64, error) {
	own, err := memoryOf(pid, "VmRSS")
	if err != nil {
		return 0, err
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has gone
		}
		for _, child := range strings.Fields(string(b)) {
			var c int
			if _, err := fmt.Sscan(child, &c); err != nil {
				return 0, err
			}
			if n, err := RSS(c); err == nil {
				own += n
			}
		}
	}
	return own, nil
}

// Peak is the most resident memory that a process has had so far, in bytes.
func Peak(pid int) (int64, error) { return memoryOf(pid, "VmHWM") }

func memoryOf(pid int, field string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			var kb int64
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				return 0, err
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}
