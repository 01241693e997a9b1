//go:build linux

package pluginhost

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost/supervise"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// alive lists the processes that have mark among their arguments, and those whose parent is parent.
func alive(mark string) []int {
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && slices.Contains(strings.Split(string(line), "\x00"), mark) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			found = append(found, pid)
		}
	}
	return found
}

// stop waits until each thread stands still: the signal alone is no promise that none answers a call.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	running := func(task string) bool {
		stat, err := os.ReadFile(task)
		_, state, _ := strings.Cut(string(stat), ") ")
		return err == nil && !strings.HasPrefix(state, "T")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if len(tasks) > 0 && !slices.ContainsFunc(tasks, running) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// bad is a plugin that misbehaves.
type bad struct {
	mode  string
	below int // processes beside its first that it starts
	want  string
	limit int
}

var badPlugins = []bad{
	{"crash-start", 0, "ended at once (exit status 3); its last line: no configuration", 0},
	{"mute", 0, "no handshake within", 0},
	{"chatter", 0, `said "hello, is this thing on?" where a handshake line belongs`, 0},
	{"wrong-protocol", 0, "speaks plugin protocol 99, this host 1", 0},
	{"plain", 0, "mutual TLS is not optional", 0},
	{"deaf", 0, "want a loopback address", 0},
	{"crash", 0, "ended during Notify: exit status 7: about to divide by zero", 0},
	{"panic", 0, "plugin example: Notify: panic: out of cheese", 0},
	{"refuse", 0, `plugin example: Notify: no channel "#ops"`, 0},
	{"hang", 0, "did not answer Notify within", 0},
	{"slow", 0, "did not answer Notify within", 0},
	{"double-fork", 1, "", 0},
	{"ignore-term", 1, "", 0},
	{"bomb", 50, "", 0},
	{"bomb", 50, "more than 20", 20},
}

// TestBadPlugins: whatever a plugin does, the host says what it was, and nothing is left two seconds
// after it was closed.
func TestBadPlugins(t *testing.T) {
	orphans, cells := 0, 0
	for _, without := range []bool{false, true} {
		for _, b := range badPlugins {
			name := b.mode
			if b.limit > 0 {
				name += " over its limit"
			}
			if without {
				name += " without namespaces"
			}
			t.Run(name, func(t *testing.T) {
				cells++
				orphans += b.try(t, without)
			})
		}
	}
	t.Run("host killed", func(t *testing.T) {
		for _, mode := range []string{"good", "double-fork", "ignore-term", "bomb"} {
			for _, without := range []bool{false, true} {
				cells++
				orphans += killed(t, mode, without)
			}
		}
	})
	t.Run("supervisor killed", func(t *testing.T) {
		for _, without := range []bool{false, true} {
			cells++
			orphans += supervisorKilled(t, without)
		}
	})
	fmt.Printf("FIGURE plugin.orphans %d processes of %d cells, 2 s after the end\n", orphans, cells)
}

func (b bad) try(t *testing.T, without bool) (orphans int) {
	mark := "mark-" + unique()
	p := example(b.mode, mark)
	p.Timeout, p.Processes = 10*time.Second, b.limit
	if b.mode == "hang" || b.mode == "slow" {
		p.Timeout = 500 * time.Millisecond
	}
	ctx := t.Context()
	if b.mode == "mute" {
		late, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
		defer cancel()
		ctx = late
	}
	h, log := host(t, Config{Plugins: []Plugin{p}, WithoutNamespaces: without})
	_, err := notify(ctx, h)
	if b.limit > 0 { // ended by the count: during the start, which says so, or the call, or after it
		if err == nil || !strings.Contains(err.Error(), b.want) {
			log.await(t, b.want)
		}
	} else if b.want != "" && (err == nil || !strings.Contains(err.Error(), b.want)) || b.want == "" && err != nil {
		t.Errorf("got %v, want %q\n%s", err, b.want, log)
	}
	if n := len(alive(mark)); b.below > 0 && b.limit == 0 && n != 1+b.below {
		t.Errorf("%d processes run, want %d", n, 1+b.below)
	}
	begin := time.Now()
	h.Close()
	return survivors(t, mark, begin, log)
}

// survivors counts what is there two seconds after begin.
func survivors(t *testing.T, mark string, begin time.Time, log fmt.Stringer) int {
	t.Helper()
	for len(alive(mark)) > 0 && time.Since(begin) < 2*time.Second {
		time.Sleep(5 * time.Millisecond)
	}
	left := alive(mark)
	if took := time.Since(begin); took > 2*time.Second || len(left) > 0 {
		t.Errorf("%d processes are left after %s\n%s", len(left), took, log)
	}
	for _, pid := range left {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(left)
}

// TestCrashAndBack: one process at a time, a new one after a pause; what was in flight fails by name.
func TestCrashAndBack(t *testing.T) {
	mark := "mark-" + unique()
	h, log := host(t, Config{Plugins: []Plugin{example("good", mark)}})
	if _, err := notify(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	for crash := range 2 {
		pids := alive(mark)
		if len(pids) != 1 {
			t.Fatalf("processes: %v", pids)
		}
		syscall.Kill(pids[0], syscall.SIGKILL)
		for end := time.Now().Add(30 * time.Second); strings.Count(log.String(), "plugin ended") <= crash && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := notify(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if again := alive(mark); len(again) != 1 || again[0] == pids[0] {
			t.Errorf("processes: %v after %v", again, pids)
		}
	}
	h.Close()
	if _, err := notify(t.Context(), h); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}

	h, _ = host(t, Config{Plugins: []Plugin{example("crash", mark)}})
	var ended *ErrEnded
	for range 3 {
		if _, err := notify(t.Context(), h); !errors.As(err, &ended) || ended.How != "exit status 7" {
			t.Fatalf("got %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := notify(ctx, h); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "ended 3 times in a row (exit status 7: about to divide by zero), is started again at ") {
		t.Errorf("within the pause: %v", err)
	}
}

// TestAHangingPluginIsReplaced: one that only its call hangs in goes on; one that answers nothing at all
// does not.
func TestAHangingPluginIsReplaced(t *testing.T) {
	mark := "mark-" + unique()
	p := example("good", mark)
	p.Timeout = 2 * time.Second
	h, log := host(t, Config{Plugins: []Plugin{p}})
	if _, err := notify(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	pids := alive(mark)
	if len(pids) != 1 {
		t.Fatalf("processes: %v", pids)
	}
	stop(t, pids[0])
	var late *ErrDeadline
	if _, err := notify(t.Context(), h); !errors.As(err, &late) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	log.await(t, "plugin hangs")
	for end := time.Now().Add(30 * time.Second); ; {
		if _, err := notify(t.Context(), h); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if again := alive(mark); len(again) != 1 || again[0] == pids[0] {
		t.Errorf("processes: %v after %v", again, pids)
	}
}

func TestFlood(t *testing.T) {
	h, _ := host(t, Config{Plugins: []Plugin{example("flood", "")}})
	c, _ := h.Conformance("example")
	told := 0
	_, err := c.Run(t.Context(), &pluginv1.RunRequest{Call: &pluginv1.Call{Id: "1"}, Subject: subject}, func(*pluginv1.Progress) { told++ })
	var flood *ErrFlood
	if !errors.As(err, &flood) || told != maxProgress {
		t.Errorf("told %d times, got %v", told, err)
	}
	if _, err := notify(t.Context(), h); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

// TestGigabyteOfLog: it is read, so that the plugin goes on, and little of it is kept.
func TestGigabyteOfLog(t *testing.T) {
	p := example("gigabyte", "")
	p.Timeout = time.Minute
	h, log := host(t, Config{Plugins: []Plugin{p}})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := notify(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	h.Close()
	runtime.ReadMemStats(&after)
	if n := len(log.String()); n > 3<<20 {
		t.Errorf("%d bytes of log were kept", n)
	}
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 32<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if n := strings.Count(log.String(), "writes more log than is kept"); n != 1 {
		t.Errorf("told %d times", n)
	}
	log.await(t, "dropped_bytes=10")
}

// TestLeftovers: what an earlier host could not clear is cleared by the next.
func TestLeftovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plugins")
	if err := os.MkdirAll(filepath.Join(dir, "example-1", "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	mark := "mark-" + unique()
	orphan := exec.Command(built.path, "sleep", mark)
	orphan.Env = []string{supervise.FolderVariable + "=" + filepath.Join(dir, "example-1")}
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- orphan.Wait() }()
	host(t, Config{Dir: dir})
	if err := <-ended; err == nil || err.Error() != "signal: killed" {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

const doomedVariable = "WHEELWRIGHT_TEST_DOOMED_HOST"

// doomed is a process of its own with a host in it, that is killed.
func doomed() bool {
	text, ok := os.LookupEnv(doomedVariable)
	if !ok {
		return false
	}
	f := strings.Split(text, "|")
	built.path, built.sum = f[0], f[1]
	h, err := New(Config{Dir: f[2], Plugins: []Plugin{example(f[3], f[4])}, WithoutNamespaces: f[5] == "true"})
	if err == nil {
		_, err = notify(context.Background(), h)
	}
	fmt.Println("ready", err)
	select {}
}

// killed kills a host with SIGKILL and counts what is left.
func killed(t *testing.T, mode string, without bool) int {
	t.Helper()
	mark := "mark-" + unique()
	dir := filepath.Join(t.TempDir(), "plugins")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%s|%s|%s|%s|%v", doomedVariable, built.path, built.sum, dir, mode, mark, without))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready <nil>\n" {
		t.Fatalf("got %q, %v: %s", line, err, &errs)
	}
	if len(alive(mark)) == 0 {
		t.Fatal("no plugin runs")
	}
	cmd.Process.Kill()
	begin := time.Now()
	cmd.Wait()
	n := survivors(t, mark, begin, &errs)
	for { // the credentials would be there
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return n
		}
		if time.Since(begin) > 2*time.Second {
			t.Errorf("%s: %v is left in the folder", mode, left)
			return n
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// supervisorKilled: a plugin kills its parent, or the kernel does for want of memory.
func supervisorKilled(t *testing.T, without bool) int {
	t.Helper()
	mark := "mark-" + unique()
	h, log := host(t, Config{Plugins: []Plugin{example("ignore-term", mark)}, WithoutNamespaces: without})
	if _, err := notify(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	proc := h.named("example").proc
	proc.below.Kill()
	begin := time.Now()
	<-proc.ended
	return survivors(t, mark, begin, log)
}
