package pluginhost

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost/supervise"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// process is one run of a plugin.
type process struct {
	began       time.Time
	hello       *pluginv1.HandshakeResponse
	front       pluginv1.PluginServiceClient
	conformance pluginv1.ConformanceServiceClient
	canary      pluginv1.CanaryServiceClient
	notifier    pluginv1.NotifierServiceClient

	log    *slog.Logger
	logs   *logs
	folder string
	remove []string
	below  *supervise.Supervisor
	exited chan struct{}      // how it ended is known, and its log is read
	ended  chan struct{}      // nothing of it is left
	quit   context.CancelFunc // of the tasks beside it
	tasks  sync.WaitGroup

	mu       sync.Mutex
	conn     *grpc.ClientConn
	stopping bool // an end is expected, or told by who started it
	ending   supervise.Ending
	expires  time.Time // of the credentials
}

// start runs the plugin and shakes hands. ctx bounds the start only.
func (p *plugin) start(ctx context.Context) (_ *process, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	proc := &process{began: time.Now(), log: p.log, logs: newLogs(p.log, time.Now), exited: make(chan struct{}), ended: make(chan struct{})}
	executable, err := load(p.cfg, p.host.cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer executable.Close()
	if proc.folder, err = os.MkdirTemp(p.host.cfg.Dir, p.cfg.Name+"-"); err != nil {
		return nil, fmt.Errorf("make its folder: %w", err)
	}
	proc.remove = []string{proc.folder}
	launched := false
	defer func() {
		if err != nil && !launched {
			proc.clear()
		}
	}()
	o, id, err := p.prepare(ctx, proc, executable)
	if err != nil {
		return nil, err
	}
	tasks, quit := context.WithCancel(p.life)
	proc.quit = quit
	if proc.below, err = p.host.starter.Start(o, executable.File); err != nil {
		quit()
		return nil, err
	}
	launched, proc.stopping = true, true
	proc.tasks.Add(1) // the start
	proc.watch()
	started := sync.OnceFunc(proc.tasks.Done) // nothing is cleared while this may still begin tasks
	defer started()
	if err := p.greet(ctx, tasks, proc, id); err != nil {
		over := proc.over()
		started()
		proc.stop()
		var incompatible pluginwire.ErrIncompatible
		switch {
		case over && !errors.As(err, &incompatible):
			return nil, fmt.Errorf("it ended at once (%s)%s", proc.how(), said(proc.logs.last()))
		case ctx.Err() != nil:
			return nil, fmt.Errorf("no handshake within %s%s: %w", time.Since(proc.began).Round(time.Millisecond), said(proc.logs.last()), ctx.Err())
		}
		return nil, err
	}
	if p.cfg.Kubeconfig {
		proc.tasks.Go(func() { p.renew(tasks, proc) })
	}
	return proc, nil
}

func said(last string) string {
	if last == "" {
		return ""
	}
	return "; its last line: " + last
}

// prepare fills the plugin's folder and says what to run.
func (p *plugin) prepare(ctx context.Context, proc *process, executable *executable) (supervise.Order, pluginwire.Identity, error) {
	id, err := pluginwire.NewIdentity()
	if err != nil {
		return supervise.Order{}, id, err
	}
	work, sockets := filepath.Join(proc.folder, "work"), filepath.Join(proc.folder, "s")
	if len(sockets) > 80 { // a socket's path has 108 bytes at most
		if sockets, err = os.MkdirTemp("", "wheelwright-"); err != nil {
			return supervise.Order{}, id, fmt.Errorf("make a folder for its socket: %w", err)
		}
		proc.remove = append(proc.remove, sockets)
	}
	for _, dir := range []string{work, sockets} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return supervise.Order{}, id, fmt.Errorf("make its folder: %w", err)
		}
	}
	env := slices.Concat(p.cfg.Env, pluginwire.Environment(id, sockets), []string{"TMPDIR=" + work, supervise.FolderVariable + "=" + proc.folder})
	if p.cfg.Kubeconfig {
		if _, err := p.authorise(ctx, proc); err != nil {
			return supervise.Order{}, id, err
		}
		env = append(env, "KUBECONFIG="+proc.kubeconfig())
	}
	return supervise.Order{
		Path: executable.path, Args: append([]string{filepath.Base(p.cfg.Path)}, p.cfg.Args...), Env: env, Dir: work, Remove: proc.remove,
		Grace: grace, Processes: p.cfg.Processes, Inherit: executable.script,
	}, id, nil
}

// greet reads the handshake line, connects and agrees on a contract.
func (p *plugin) greet(ctx, tasks context.Context, proc *process, id pluginwire.Identity) error {
	type said struct {
		line pluginwire.Line
		err  error
	}
	first := make(chan said, 1)
	proc.tasks.Go(func() {
		stdout := proc.below.Stdout
		defer stdout.Close()
		defer context.AfterFunc(tasks, func() { stdout.Close() })()
		r := bufio.NewReader(stdout)
		line, err := pluginwire.ReadLine(r)
		first <- said{line, err}
		lines := proc.logs.stream("stdout")
		io.Copy(lines, r) // until it is closed
		lines.Flush()
	})
	var line pluginwire.Line
	select {
	case s := <-first:
		if s.err != nil {
			select { // an end is the better explanation, and it is on its way
			case <-proc.exited:
			case <-time.After(150 * time.Millisecond):
			}
			return s.err
		}
		line = s.line
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := pluginwire.Dial(id, line)
	if err != nil {
		return err
	}
	proc.mu.Lock()
	proc.conn = conn
	proc.mu.Unlock()
	if proc.hello, err = pluginwire.Greet(ctx, conn, p.cfg.Name, p.host.cfg.Version); err != nil {
		return err
	}
	for _, k := range p.cfg.Kinds {
		if !slices.Contains(proc.hello.GetKinds(), k) {
			return fmt.Errorf("it serves no %s: take that out of its kinds under `plugins`", pluginwire.KindName(k))
		}
	}
	proc.front, proc.conformance = pluginv1.NewPluginServiceClient(conn), pluginv1.NewConformanceServiceClient(conn)
	proc.canary, proc.notifier = pluginv1.NewCanaryServiceClient(conn), pluginv1.NewNotifierServiceClient(conn)
	proc.mu.Lock()
	proc.stopping = false
	proc.mu.Unlock()
	proc.tasks.Go(func() {
		out, errs := proc.logs.stream("stdout"), proc.logs.stream("stderr")
		_ = pluginwire.Stdio(tasks, conn, out, errs) // a plugin that is not go-plugin's has none
		out.Flush()
		errs.Flush()
	})
	return nil
}

// unique is a name that nobody guesses.
func unique() string { return strings.ToLower(rand.Text()) }
