package plugintest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

const (
	startTimeout = 10 * time.Second
	endTimeout   = time.Second
)

// bench is the plugin under test: one process for all checks that do not need another.
type bench struct {
	cfg   Config
	proc  *process
	logs  output // of every process
	ended bool   // the shared process was, by the check for that
}

// process is one run of the plugin.
type process struct {
	cmd    *exec.Cmd
	dir    string
	line   pluginwire.Line
	conn   *grpc.ClientConn
	hello  *pluginv1.HandshakeResponse
	exited chan struct{}
	quit   context.CancelFunc
	tasks  sync.WaitGroup
}

// output counts what the plugin logs and keeps the end of it.
type output struct {
	mu      sync.Mutex
	total   int64
	line    int // length of the unfinished one
	longest int
	tail    []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.total += int64(len(p))
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			o.line += len(rest)
			o.longest = max(o.longest, o.line)
			break
		}
		o.longest = max(o.longest, o.line+end)
		o.line = 0
		rest = rest[end+1:]
	}
	o.tail = append(o.tail, p[max(0, len(p)-4096):]...)
	o.tail = o.tail[max(0, len(o.tail)-4096):]
	return len(p), nil
}

// last is the newest line, as an explanation.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(o.tail)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return fmt.Sprintf("; its log ends with %q", last)
	}
	return ""
}

// start runs the plugin with the host's variables and without the handshake's calls.
func (b *bench) start(ctx context.Context, env func(pluginwire.Identity, string) []string) (_ *process, _ pluginwire.Identity, err error) {
	id, err := pluginwire.NewIdentity()
	if err != nil {
		return nil, id, err
	}
	path, err := filepath.Abs(b.cfg.Path)
	if err != nil {
		return nil, id, err
	}
	dir, err := os.MkdirTemp("", "plugin-")
	if err != nil {
		return nil, id, fmt.Errorf("make a folder for the plugin: %w", err)
	}
	p := &process{dir: dir, exited: make(chan struct{})}
	life, quit := context.WithCancel(context.Background())
	p.quit = quit
	p.cmd = &exec.Cmd{Path: path, Args: append([]string{filepath.Base(path)}, b.cfg.Args...), Dir: dir, Stderr: &b.logs, SysProcAttr: ownGroup(), WaitDelay: endTimeout,
		Env: append(slices.Concat(b.cfg.Env, env(id, dir)), "TMPDIR="+dir)}
	stdout, theirs, err := os.Pipe()
	if err != nil {
		return nil, id, errors.Join(err, os.RemoveAll(dir))
	}
	p.cmd.Stdout = theirs
	err = p.cmd.Start()
	theirs.Close()
	if err != nil {
		stdout.Close()
		return nil, id, errors.Join(fmt.Errorf("start it: %w", err), os.RemoveAll(dir))
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	lines := make(chan error, 1)
	p.tasks.Go(func() {
		defer stdout.Close()
		defer context.AfterFunc(life, func() { stdout.Close() })()
		r := bufio.NewReader(stdout)
		var err error
		p.line, err = pluginwire.ReadLine(r)
		lines <- err
		io.Copy(&b.logs, r) // until it is closed
	})
	select {
	case err = <-lines:
	case <-time.After(startTimeout):
		err = fmt.Errorf("no handshake line within %s", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.kill()
		if _, coded := errors.AsType[pluginwire.ErrIncompatible](err); !coded {
			err = fmt.Errorf("%w (%s)%s", err, p.cmd.ProcessState, b.logs.last())
		}
		return nil, id, err
	}
	return p, id, nil
}

// connect starts the plugin and greets it.
func (b *bench) connect(ctx context.Context) (*process, error) {
	p, id, err := b.start(ctx, pluginwire.Environment)
	if err != nil {
		return nil, err
	}
	if p.conn, err = pluginwire.Dial(id, p.line); err == nil {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		p.hello, err = pluginwire.Greet(ctx, p.conn, "check", buildinfo.Version())
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	life, quit := context.WithCancel(context.Background())
	before := p.quit
	p.quit = func() { quit(); before() }
	p.tasks.Go(func() { _ = pluginwire.Stdio(life, p.conn, &b.logs, &b.logs) }) // where it is go-plugin's
	return p, nil
}

// shared is the process that most checks use. One that died is a problem of the check that finds it so.
func (b *bench) shared(ctx context.Context) (*process, error) {
	if b.proc == nil {
		return nil, skip("it does not shake hands")
	}
	select {
	case <-b.proc.exited:
		how := b.proc.cmd.ProcessState.String()
		b.proc.kill()
		var err error
		if b.proc, err = b.connect(ctx); err != nil {
			b.proc = nil
		}
		return nil, fmt.Errorf("it had ended before this (%s)%s", how, b.logs.last())
	default:
		return b.proc, nil
	}
}

// serving is the shared process, where it serves a kind.
func (b *bench) serving(ctx context.Context, k pluginv1.Kind) (*process, error) {
	p, err := b.shared(ctx)
	if err == nil && !slices.Contains(p.hello.GetKinds(), k) {
		return nil, skip("it is no " + pluginwire.KindName(k))
	}
	return p, err
}

// kill ends the process and all of its group, and waits.
func (p *process) kill() {
	killGroup(p.cmd.Process)
	<-p.exited
	p.quit()
	if p.conn != nil {
		p.conn.Close()
	}
	p.tasks.Wait()
	os.RemoveAll(p.dir)
}

func (b *bench) close() {
	if b.proc != nil {
		b.proc.kill()
	}
}
