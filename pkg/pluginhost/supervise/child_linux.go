package supervise

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ProgramPath is the path that a supervisor has the program's file under.
const ProgramPath = "/proc/self/fd/3"

// isolation is one way of starting a supervisor.
type isolation struct {
	name      string
	flags     uintptr
	namespace bool
}

// isolations are the ways, the strongest first.
func isolations(without bool) []isolation {
	plain := isolation{name: "subreaper"}
	switch {
	case without:
		return []isolation{plain}
	case os.Geteuid() == 0:
		return []isolation{{"pid namespace", syscall.CLONE_NEWPID, true}, plain}
	}
	return []isolation{{"user and pid namespace", syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, true}, plain}
}

// attributes: a process group of its own, so that a terminal's interrupt is the host's to pass on.
func (i isolation) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: i.flags, Setpgid: true}
	if i.flags&syscall.CLONE_NEWUSER != 0 { // nobody else than who it is, and no more than it may
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// notPermitted: the kernel, a container's profile or a limit is against this way of starting.
func notPermitted(err error) bool {
	for _, no := range []error{unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSYS, unix.ENOSPC, unix.EUSERS} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// supervisor is the process between spoke or hub and one plugin.
type supervisor struct {
	order wire
	main  int           // process id of the plugin's first process
	exit  chan string   // how that ended
	empty chan struct{} // closed when there is no child left, hence no descendant
}

// ChildMain belongs in the first line of main, and of TestMain where a test runs plugins: in a process
// that was started as a supervisor it supervises and exits. In any other it returns false at once.
func ChildMain() bool {
	if len(os.Args) == 0 || os.Args[0] != childName {
		return false
	}
	// The plugin is killed when the thread that starts it ends, which this one does with the process.
	runtime.LockOSThread()
	s := &supervisor{exit: make(chan string, 1), empty: make(chan struct{})}
	e := s.run(bufio.NewReader(os.Stdin))
	syscall.Close(2) // whoever reads the plugin's log has all of it
	for _, dir := range s.order.Remove {
		os.RemoveAll(dir) // the credentials go even where the host was killed
	}
	json.NewEncoder(os.NewFile(4, "report")).Encode(e) // nobody may be there to read it
	os.Exit(0)
	return true
}

func (s *supervisor) run(in *bufio.Reader) Ending {
	text, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &s.order)
	}
	if err == nil {
		err = confine(s.order)
	}
	if err == nil {
		err = s.start()
	}
	if err != nil {
		return Ending{Reason: err.Error()}
	}
	words := make(chan string)
	go func() {
		for {
			word, err := in.ReadString('\n')
			if err != nil {
				close(words)
				return
			}
			words <- word
		}
	}()
	go s.reap()
	reason := s.wait(words)
	s.kill()
	return Ending{Exit: <-s.exit, Reason: reason}
}

// wait returns when the plugin has ended, or should, and then says why; empty: it has, by itself.
func (s *supervisor) wait(words <-chan string) string {
	count := time.NewTicker(250 * time.Millisecond)
	defer count.Stop()
	var late <-chan time.Time
	for {
		select {
		case how := <-s.exit:
			s.exit <- how
			return ""
		case _, ok := <-words:
			if !ok {
				return "its host is gone"
			}
			syscall.Kill(s.main, syscall.SIGTERM)
			late = time.After(s.order.Grace)
		case <-late:
			return fmt.Sprintf("killed: it did not end within %s of SIGTERM", s.order.Grace)
		case <-count.C:
			if n := descendants(); n > s.order.Processes {
				return fmt.Sprintf("killed: it had %d processes, more than %d", n, s.order.Processes)
			}
		}
	}
}

// confine restricts this process and all below it.
func confine(o wire) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	// No program changes its user on the way: such a one could not be killed.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up privileges: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit core dumps: %w", err)
	}
	// The kernel counts threads, of all of the user's processes, so this is a second line behind the
	// counting above; root is exempt from it.
	if threads := usersThreads(); threads > 0 {
		limit := uint64(threads + 16*o.Processes)
		var now unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NPROC, &now) == nil && limit < now.Cur {
			if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
				return fmt.Errorf("limit processes: %w", err)
			}
		}
	}
	return nil
}

// start runs the plugin from descriptor 3, with this process's standard output and error.
func (s *supervisor) start() error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), 1, 2}
	if s.order.Inherit {
		files = append(files, 3)
	}
	syscall.CloseOnExec(3) // which it is executed through before that counts
	syscall.CloseOnExec(4)
	s.main, err = syscall.ForkExec(s.order.Path, s.order.Args, &syscall.ProcAttr{
		Dir: s.order.Dir, Env: s.order.Env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return fmt.Errorf("execute it: %w", err)
	}
	// Who waits for the end of the plugin's output must not wait for this process.
	return syscall.Dup3(int(null.Fd()), 1, 0)
}

// reap waits for every child, its own and adopted ones.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			close(s.empty)
			return
		case pid == s.main && status.Signaled():
			s.exit <- "signal: " + status.Signal().String()
		case pid == s.main:
			s.exit <- "exit status " + strconv.Itoa(status.ExitStatus())
		}
	}
}

// kill returns when nothing is left below this process, or after 1.5 seconds. Whatever is killed
// hands its children to this process, so that without a child there is no descendant.
func (s *supervisor) kill() {
	end := time.After(1500 * time.Millisecond)
	for {
		if s.order.Namespace && os.Getpid() == 1 {
			syscall.Kill(-1, syscall.SIGKILL) // all of the namespace, but not its first process
		} else {
			below := family()
			for _, pid := range below { // first nobody may fork any more
				syscall.Kill(pid, syscall.SIGSTOP)
			}
			for _, pid := range below {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		select {
		case <-s.empty:
			return
		case <-end:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// descendants counts the processes below this one, cheaply: a few may be missed while they come and go.
// The numbers are those of the namespace that /proc was mounted in.
func descendants() int {
	me, err := os.Readlink("/proc/self")
	if err != nil {
		return 0
	}
	n, next := -1, []string{me}
	for len(next) > 0 && n < 1<<16 {
		pid := next[len(next)-1]
		next = next[:len(next)-1]
		n++
		lists, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
		for _, file := range lists {
			text, _ := os.ReadFile(file)
			next = append(next, strings.Fields(string(text))...)
		}
	}
	return n
}

// family lists the processes below this one.
func family() []int {
	parents := map[int]int{}
	eachProcess(func(pid int) {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			// The name, in parentheses, may contain anything.
			if fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(fields) > 1 {
				parents[pid], _ = strconv.Atoi(fields[1])
			}
		}
	})
	me := os.Getpid()
	var below []int
	for pid := range parents {
		for p, steps := parents[pid], 0; p > 0 && steps < len(parents); p, steps = parents[p], steps+1 {
			if p == me {
				below = append(below, pid)
				break
			}
		}
	}
	return below
}

// usersThreads counts the threads of this user's processes; 0 for root.
func usersThreads() int {
	me := os.Getuid()
	if me == 0 {
		return 0
	}
	n := 0
	eachProcess(func(pid int) {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == me {
			n += max(int(st.Nlink)-2, 1)
		}
	})
	return n
}

// Sweep kills what has the folder, or one below it where it ends in a slash, in its environment: what a
// supervisor left that was itself killed. Processes of this one's own ancestry are never among them.
func Sweep(folder string) error {
	mark := []byte("\x00" + FolderVariable + "=" + folder)
	if !strings.HasSuffix(folder, "/") {
		mark = append(mark, 0)
	}
	for range 50 { // again while it finds any: they may fork
		found := false
		eachProcess(func(pid int) {
			environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if err != nil || pid == os.Getpid() {
				return // another user's, or gone
			}
			if bytes.Contains(append([]byte{0}, environ...), mark) {
				found = syscall.Kill(pid, syscall.SIGKILL) == nil || found
			}
		})
		if !found {
			return nil
		}
		time.Sleep(2 * time.Millisecond) // a killed process is listed until its parent has waited for it
	}
	return errors.New("they come faster than they are killed")
}

func eachProcess(do func(pid int)) {
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			do(pid)
		}
	}
}
