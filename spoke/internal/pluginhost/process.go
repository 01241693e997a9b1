package pluginhost

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// childName is what the supervisor finds as its own name. The name, not an argument, so that no command
// line of the program can be mistaken for it.
const childName = "wheelwright-plugin"

// folderVariable is in the environment of everything that a plugin starts, and names its folder.
const folderVariable = "WHEELWRIGHT_PLUGIN_FOLDER"

// order is the first line that a supervisor gets on its standard input. "stop" may follow; the end of
// the input means that nobody is there any more.
type order struct {
	Path      string // to execute
	Args      []string
	Env       []string
	Dir       string
	Remove    []string // folders, at the end
	Grace     time.Duration
	Processes int
	Namespace bool // whether it is the first process of a PID namespace
	Inherit   bool // whether the plugin keeps the descriptor of its own file: a script is read through it
}

// ending is the one line that a supervisor answers.
type ending struct {
	Exit   string // of the plugin's first process; empty: it did not start
	Reason string // why it was ended; empty: by itself
}

// process is one run of a plugin.
type process struct {
	began       time.Time
	isolation   string
	hello       *pluginv1.HandshakeResponse
	front       pluginv1.PluginServiceClient
	conformance pluginv1.ConformanceServiceClient
	canary      pluginv1.CanaryServiceClient
	notifier    pluginv1.NotifierServiceClient

	log    *slog.Logger
	logs   *logs
	folder string
	remove []string
	cmd    *exec.Cmd
	life   *os.File           // the supervisor's standard input
	exited chan struct{}      // how it ended is known, and its log is read
	ended  chan struct{}      // nothing of it is left
	quit   context.CancelFunc // of the tasks beside it
	tasks  sync.WaitGroup

	mu       sync.Mutex
	conn     *grpc.ClientConn
	stopping bool // an end is expected, or told by who started it
	ending   ending
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
	stdout, err := proc.launch(p.host, o, executable)
	if err != nil {
		quit()
		return nil, err
	}
	launched = true
	started := sync.OnceFunc(proc.tasks.Done) // nothing is cleared while this may still begin tasks
	defer started()
	if err := p.greet(ctx, tasks, proc, id, stdout); err != nil {
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
func (p *plugin) prepare(ctx context.Context, proc *process, executable *executable) (order, pluginwire.Identity, error) {
	id, err := pluginwire.NewIdentity()
	if err != nil {
		return order{}, id, err
	}
	work, sockets := filepath.Join(proc.folder, "work"), filepath.Join(proc.folder, "s")
	if len(sockets) > 80 { // a socket's path has 108 bytes at most
		if sockets, err = os.MkdirTemp("", "wheelwright-"); err != nil {
			return order{}, id, fmt.Errorf("make a folder for its socket: %w", err)
		}
		proc.remove = append(proc.remove, sockets)
	}
	for _, dir := range []string{work, sockets} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return order{}, id, fmt.Errorf("make its folder: %w", err)
		}
	}
	env := slices.Concat(p.cfg.Env, pluginwire.Environment(id, sockets), []string{"TMPDIR=" + work, folderVariable + "=" + proc.folder})
	if p.cfg.Kubeconfig {
		if _, err := p.authorise(ctx, proc); err != nil {
			return order{}, id, err
		}
		env = append(env, "KUBECONFIG="+proc.kubeconfig())
	}
	return order{
		Path: executable.path, Args: append([]string{filepath.Base(p.cfg.Path)}, p.cfg.Args...), Env: env, Dir: work, Remove: proc.remove,
		Grace: grace, Processes: p.cfg.Processes, Inherit: executable.script,
	}, id, nil
}

// launch starts the supervisor, in the strongest way that the machine lets it be started.
func (proc *process) launch(h *Host, o order, executable *executable) (*os.File, error) {
	ways := isolations(h.cfg.WithoutNamespaces)
	for {
		n := h.isolation.Load()
		o.Namespace, proc.isolation = ways[n].namespace, ways[n].name
		stdout, err := proc.launchIn(o, executable, ways[n])
		if err == nil || int(n) == len(ways)-1 || !notPermitted(err) {
			return stdout, err
		}
		h.isolation.CompareAndSwap(n, n+1)
	}
}

func (proc *process) launchIn(o order, executable *executable, way isolation) (_ *os.File, err error) {
	var opened []*os.File
	pipe := func() (r, w *os.File) {
		if err == nil {
			if r, w, err = os.Pipe(); err == nil {
				opened = append(opened, r, w)
			}
		}
		return r, w
	}
	theirLife, life := pipe()
	stdout, theirStdout := pipe()
	stderr, theirStderr := pipe()
	report, theirReport := pipe()
	fail := func(err error) (*os.File, error) {
		for _, f := range opened {
			f.Close()
		}
		return nil, err
	}
	if err != nil {
		return fail(err)
	}
	cmd := &exec.Cmd{
		Path: self(), Args: []string{childName}, Env: []string{}, Dir: "/",
		Stdin: theirLife, Stdout: theirStdout, Stderr: theirStderr, ExtraFiles: []*os.File{executable.File, theirReport},
		SysProcAttr: way.attributes(),
	}
	if err := cmd.Start(); err != nil {
		return fail(fmt.Errorf("start its supervisor: %w", err))
	}
	for _, f := range []*os.File{theirLife, theirStdout, theirStderr, theirReport} {
		f.Close()
	}
	text, err := json.Marshal(o)
	if err == nil {
		_, err = life.Write(append(text, '\n'))
	}
	if err != nil { // it ends without an order; what it reports says why
		proc.log.Debug("the supervisor took no order", logging.Error, err)
	}
	proc.cmd, proc.life, proc.stopping = cmd, life, true
	proc.tasks.Add(1) // the start
	proc.watch(stderr, report)
	return stdout, nil
}

// greet reads the handshake line, connects and agrees on a contract.
func (p *plugin) greet(ctx, tasks context.Context, proc *process, id pluginwire.Identity, stdout *os.File) error {
	type said struct {
		line pluginwire.Line
		err  error
	}
	first := make(chan said, 1)
	proc.tasks.Go(func() {
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
			return fmt.Errorf("it serves no %s: take that out of its kinds in spoke.yaml", pluginwire.KindName(k))
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

// unique is a name that nobody guesses.
func unique() string { return strings.ToLower(rand.Text()) }
