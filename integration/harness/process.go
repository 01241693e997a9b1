package harness

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

// process is one child with its own process group and log file. It dies with this process, however
// that ends.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed once the child was waited for
	err  error         // how it ended; read after done
}

func startProcess(name, log, program string, args ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer file.Close()
	p := &process{name: name, log: log, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.Dir = filepath.Dir(log)
	p.cmd.SysProcAttr = processAttributes()
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

// stop kills the group and waits. Nothing here is worth a graceful end: the state is thrown away.
func (p *process) stop() error {
	select {
	case <-p.done:
		return p.failure()
	default:
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	return nil
}

// failure describes a process that ended by itself, with the end of its log.
func (p *process) failure() error {
	return fmt.Errorf("%s ended by itself (%v); the end of %s:\n%s", p.name, p.err, p.log, tail(p.log, 15))
}

// await polls check until it holds, the process ends, or the deadline passes.
func (p *process) await(ctx context.Context, what string, check func(context.Context) error) error {
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
			return fmt.Errorf("wait for %s: %w, last seen: %v; the end of %s:\n%s", what, ctx.Err(), last, p.log, tail(p.log, 15))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

const startTimeout = 3 * time.Minute

// tail returns the last lines of a file, long lines cut.
func tail(path string, lines int) string {
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

// freePorts finds ports that nobody listens on, all different.
func freePorts(n int) ([]int, error) {
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

// portAttempts covers the moment between finding a free port and the child's listening on it, in
// which another process may take it.
const portAttempts = 4

func portTaken(p *process) bool {
	select {
	case <-p.done:
		return strings.Contains(tail(p.log, 40), "address already in use")
	default:
		return false
	}
}

var errNoPort = errors.New("every port that was free a moment ago was taken by someone else")
