// Package fleet is the load generator: it starts thousands of simulated spokes in a second process (package
// spokes), or a bare server and its clients (package bare), drives them over a socket pair, and ends them. It
// measures nothing itself.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/child"
	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
)

// Build compiles the second process's program into dir, and returns its path.
func Build(ctx context.Context, root, dir string, race bool) (string, error) {
	program := filepath.Join(dir, "fleet")
	args := []string{"build", "-trimpath", "-o", program}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./integration/fleet/cmd/fleet")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the fleet's program: %w\n%s", err, out)
	}
	return program, nil
}

// process is one of the program.
type process struct {
	child *child.Process
	rpc   *rpc.Client
}

// start runs program with its log below dir.
func start(name, program, dir string) (*process, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c, err := child.Start(name, filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".log"), func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{theirs} }, program)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &process{c, rpc.NewClient(conn)}, nil
}

// call is one of a method; its error says which.
func (p *process) call(ctx context.Context, method string, argument, result any) error {
	call := p.rpc.Go(method, argument, result, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if errors.Is(call.Error, rpc.ErrShutdown) || errors.Is(call.Error, net.ErrClosed) {
			return fmt.Errorf("%s: %w; its log ends:\n%s", p.child.Name, call.Error, child.Tail(p.child.Log, 15))
		}
		if call.Error != nil {
			return fmt.Errorf("%s: %w", p.child.Name, call.Error)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %s: %w", p.child.Name, method, ctx.Err())
	}
}

// PID of the process.
func (p *process) PID() int { return p.child.PID() }

// Close ends the process and waits for it.
func (p *process) Close() error { return errors.Join(p.child.Stop(), p.rpc.Close()) }

// Fleet is simulated spokes in a process of their own. Its methods may be called concurrently.
type Fleet struct{ *process }

// Start starts the process: program is what Build made, dir takes its log.
func Start(program, dir string) (*Fleet, error) {
	p, err := start("simulated spokes", program, dir)
	return &Fleet{p}, err
}

// Enrol has clusters invited and joined at the hub of an operator's context file, and writes their identities.
func (f *Fleet) Enrol(ctx context.Context, e spokes.Enrolment) error {
	return f.call(ctx, "Spokes.Enrol", e, nil)
}

// Open makes spokes of identities that Enrol wrote; it returns how many.
func (f *Fleet) Open(ctx context.Context, o spokes.Opening) (size int, err error) {
	err = f.call(ctx, "Spokes.Open", o, &size)
	return size, err
}

// Connect keeps the spokes from, up to and without to, connected from now on; it does not wait.
func (f *Fleet) Connect(ctx context.Context, from, to int) error {
	return f.call(ctx, "Spokes.Connect", spokes.Range{From: from, To: to}, nil)
}

// Attack has the spokes from, up to and without to, misbehave from now on, until Disconnect.
func (f *Fleet) Attack(ctx context.Context, from, to int, m spokes.Manner) error {
	return f.call(ctx, "Spokes.Attack", spokes.Attackers{Range: spokes.Range{From: from, To: to}, Manner: m}, nil)
}

// Disconnect ends every connection.
func (f *Fleet) Disconnect(ctx context.Context) error {
	return f.call(ctx, "Spokes.Disconnect", spokes.None{}, nil)
}

// Cut closes every connection under the spokes, which come back by themselves.
func (f *Fleet) Cut(ctx context.Context) error {
	return f.call(ctx, "Spokes.Cut", spokes.None{}, nil)
}

// Fail has spokes fail with a version.
func (f *Fleet) Fail(ctx context.Context, version string, which ...int) error {
	return f.call(ctx, "Spokes.Fail", spokes.Failure{Version: version, Spokes: which}, nil)
}

// Skew puts a spoke's clock ahead, or behind.
func (f *Fleet) Skew(ctx context.Context, n int, by time.Duration) error {
	return f.call(ctx, "Spokes.Skew", spokes.Clock{N: n, By: by}, nil)
}

// Await waits until a goal is reached, and returns when that was.
func (f *Fleet) Await(ctx context.Context, g spokes.Goal) (at time.Time, err error) {
	err = f.call(ctx, "Spokes.Await", g, &at)
	return at, err
}

// Count returns what was counted since Open or Reset.
func (f *Fleet) Count(ctx context.Context) (c spokes.Counters, err error) {
	err = f.call(ctx, "Spokes.Count", spokes.None{}, &c)
	return c, err
}

// Reset begins the counters anew.
func (f *Fleet) Reset(ctx context.Context) error {
	return f.call(ctx, "Spokes.Reset", spokes.None{}, nil)
}
