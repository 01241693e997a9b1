// Package child runs the programs of a test stage: each in a process group of its own, with a log file, gone with
// the process that started it however that ends, and with the end of its log in every error. It restarts nothing.
package child

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is one child. It dies with this process, however that ends.
type Process struct {
	Name string
	Log  string // its output, stdout and stderr

	cmd  *exec.Cmd
	done chan struct{} // closed once the child was waited for
	err  error         // how it ended; read after done
}

// Start runs a program in the folder of its log file. adjust, if given, changes the command before it starts.
func Start(name, log string, adjust func(*exec.Cmd), program string, args ...string) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer file.Close()
	p := &Process{Name: name, Log: log, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.Dir = filepath.Dir(log)
	p.cmd.SysProcAttr = processAttributes()
	if adjust != nil {
		adjust(p.cmd)
	}
	started := make(chan error)
	go func() {
		// The parent-death signal is bound to the thread that forked: keep that thread until the end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// PID of the child.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop kills the group and waits. Nothing here is worth a graceful end: the state is thrown away. A child that had
// ended by itself is an error.
func (p *Process) Stop() error {
	if p.Ended() {
		return p.failure()
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	return nil
}

// Ended tells whether the child has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// failure describes a process that ended by itself, with the end of its log.
func (p *Process) failure() error {
	return fmt.Errorf("%s ended by itself (%v); the end of %s:\n%s", p.Name, p.err, p.Log, Tail(p.Log, 15))
}

// Await polls check until it holds, the process ends, or the deadline passes.
func (p *Process) Await(ctx context.Context, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var last error
	for {
		if last = check(ctx); last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("wait for %s: %w", what, p.failure())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w, last seen: %v; the end of %s:\n%s", what, ctx.Err(), last, p.Log, Tail(p.Log, 15))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

const startTimeout = 3 * time.Minute

// Tail returns the last lines of a file, long lines cut.
func Tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	for i, l := range all {
		if len(l) > 400 {
			all[i] = l[:400] + "…"
		}
	}
	return "  " + strings.Join(all, "\n  ")
}

// FreePorts finds ports that nobody listens on, all different.
func FreePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// PortAttempts covers the moment between finding a free port and the child's listening on it, in
// which another process may take it.
const PortAttempts = 4

// PortTaken tells whether the child ended because somebody else listens where it was to.
func (p *Process) PortTaken() bool {
	return p.Ended() && strings.Contains(Tail(p.Log, 40), "address already in use")
}

// ErrNoPort is what to say after PortAttempts.
var ErrNoPort = errors.New("every port that was free a moment ago was taken by someone else")
