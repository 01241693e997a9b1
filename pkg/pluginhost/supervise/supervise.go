// Package supervise runs a program below a supervisor, so that it ends with everything that it started, and
// that it ends when this process does, however that comes about. The supervisor is this same program: see
// ChildMain. The package knows neither plugins nor what is said to them; on other systems than Linux only
// the program's own process is ended.
package supervise

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"
)

// FolderVariable is in the environment of everything that a program starts, and names its folder: by it
// Sweep finds what a supervisor left that was itself killed.
const FolderVariable = "WHEELWRIGHT_PLUGIN_FOLDER"

// childName is what the supervisor finds as its own name. The name, not an argument, so that no command
// line of the program can be mistaken for it.
const childName = "wheelwright-plugin"

// Order says what to run. It is the first line that a supervisor gets on its standard input. "stop" may
// follow; the end of the input means that nobody is there any more.
type Order struct {
	Path      string // to execute
	Args      []string
	Env       []string // FolderVariable among them
	Dir       string
	Remove    []string      // folders, at the end
	Grace     time.Duration // between SIGTERM and SIGKILL
	Processes int           // that it may have at once
	Inherit   bool          // whether the program keeps the descriptor of its own file: a script is read through it
}

// Ending is how it went, the one line that a supervisor answers.
type Ending struct {
	Exit   string // of the program's first process; empty: it did not start
	Reason string // why it was ended; empty: by itself
}

// wire is an Order as it travels.
type wire struct {
	Order
	Namespace bool // whether the supervisor is the first process of a PID namespace
}

// Starter starts supervisors in the strongest way that the machine lets them be started. The zero Starter
// is ready, and safe for several goroutines.
type Starter struct {
	// WithoutNamespaces keeps programs in this process's own PID namespace.
	WithoutNamespaces bool
	way               atomic.Int32 // index of the first that has not failed
}

// Supervisor is one, as who started it sees it.
type Supervisor struct {
	Isolation      string // of the program, in words
	Stdout, Stderr *os.File

	cmd          *exec.Cmd
	life, report *os.File // its standard input; its answer
}

// Start runs what o says. file is the program, which Path may name as ProgramPath where that is known.
func (s *Starter) Start(o Order, file *os.File) (*Supervisor, error) {
	ways := isolations(s.WithoutNamespaces)
	for {
		n := s.way.Load()
		started, err := startIn(o, file, ways[n])
		if err == nil || int(n) == len(ways)-1 || !notPermitted(err) {
			return started, err
		}
		s.way.CompareAndSwap(n, n+1)
	}
}

func startIn(o Order, file *os.File, way isolation) (_ *Supervisor, err error) {
	text, err := json.Marshal(wire{o, way.namespace})
	if err != nil {
		return nil, fmt.Errorf("write the supervisor's order: %w", err)
	}
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
	cmd := &exec.Cmd{
		Path: self(), Args: []string{childName}, Env: []string{}, Dir: "/",
		Stdin: theirLife, Stdout: theirStdout, Stderr: theirStderr, ExtraFiles: []*os.File{file, theirReport},
		SysProcAttr: way.attributes(),
	}
	if err == nil {
		if err = cmd.Start(); err != nil {
			err = fmt.Errorf("start its supervisor: %w", err)
		}
	}
	if err != nil {
		for _, f := range opened {
			f.Close()
		}
		return nil, err
	}
	for _, f := range []*os.File{theirLife, theirStdout, theirStderr, theirReport} {
		f.Close()
	}
	_, _ = life.Write(append(text, '\n')) // an error: it has ended, and its Ending says why
	return &Supervisor{Isolation: way.name, Stdout: stdout, Stderr: stderr, cmd: cmd, life: life, report: report}, nil
}

// Ending waits for the end of the program and of all that it started. It is false where the supervisor did
// not get to say: it was itself killed.
func (s *Supervisor) Ending() (e Ending, told bool) {
	told = json.NewDecoder(io.LimitReader(s.report, 64<<10)).Decode(&e) == nil
	return e, told
}

// Stop asks for the end and does not wait for it.
func (s *Supervisor) Stop() { _, _ = s.life.Write([]byte("stop\n")) } // an error: it has ended

// Kill ends the supervisor itself, and with it what its isolation holds.
func (s *Supervisor) Kill() { s.cmd.Process.Kill() }

// Wait returns when the supervisor's process is gone.
func (s *Supervisor) Wait() { s.cmd.Wait() } // how the program ended is in its Ending

// Close lets go of the pipes, but for Stdout. A supervisor that still runs ends.
func (s *Supervisor) Close() {
	for _, f := range []*os.File{s.Stderr, s.report, s.life} {
		f.Close()
	}
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
