package render

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// sandbox confines this process for good, as far as the kernel can, and says with what. README.md of
// this folder says what each of these is for.
func sandbox() string {
	denyHTTP()
	closeInherited()
	limitSelf()
	var active []string
	if landlockABI() > 0 {
		if err := restrictFiles(); err != nil {
			fmt.Fprintln(os.Stderr, "render process: landlock:", err)
		} else {
			active = append(active, layerLandlock)
		}
	}
	if err := filterSyscalls(); err != nil {
		fmt.Fprintln(os.Stderr, "render process: seccomp:", err)
	} else {
		active = append(active, layerSeccomp)
	}
	return confinement(active)
}

// Offered says what this kernel has to confine a render child with, in Result.Sandbox's words, without
// confining anything.
func Offered() string {
	var active []string
	if landlockABI() > 0 {
		active = append(active, layerLandlock)
	}
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno == 0 && auditArch != 0 {
		active = append(active, layerSeccomp)
	}
	return confinement(active)
}

func landlockABI() int {
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return abi
}

// closeInherited closes every descriptor that came from the parent but the three pipes. What this
// program opened itself is marked to be closed when another is executed; what it inherited cannot be.
func closeInherited() {
	last := 4096
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		last = 2
		for _, e := range entries {
			if n, err := strconv.Atoi(e.Name()); err == nil {
				last = max(last, n)
			}
		}
	}
	for fd := 3; fd <= last; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// limitSelf: no core dumps, no file may grow, few descriptors; and where memory runs out for the machine
// or the container, this process is the one to end. Not limited are processes (the limit counts threads
// too, which Go needs; filterSyscalls has them), address space and processor time (see watch).
func limitSelf() {
	limit := func(what int, n uint64) {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			fmt.Fprintln(os.Stderr, "render process: limit:", err)
		}
	}
	// Before the files' size is limited. Without /proc another process may be chosen: nothing to stop for.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	limit(unix.RLIMIT_CORE, 0)
	limit(unix.RLIMIT_FSIZE, 0)
	limit(unix.RLIMIT_NOFILE, 32)
	limit(unix.RLIMIT_MEMLOCK, 0)
	limit(unix.RLIMIT_MSGQUEUE, 0)
}

// restrictFiles: no path can be opened, executed or changed, no TCP, no abstract unix sockets and no
// signals beyond this process, as far as this kernel's Landlock has them.
func restrictFiles() error { return landlock.V8.BestEffort().Restrict() }

// allowed are the system calls that Go's runtime and two pipes need; allowedHere, those that only one
// architecture has. Everything else fails with EPERM: what a later kernel brings, too.
var allowed = [...]uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_PPOLL,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_BRK, unix.SYS_MREMAP, unix.SYS_MINCORE, unix.SYS_MEMBARRIER,
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ,
	unix.SYS_SET_TID_ADDRESS, unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_GETRUSAGE, unix.SYS_GETRANDOM,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}

// Offsets in struct seccomp_data, for the low halves of the arguments.
const (
	seccompNumber = 0
	seccompArch   = 4
	seccompArg0   = 16
	seccompArg1   = 24
	seccompArg2   = 32
)

// filter is the program for the kernel.
type filter []unix.SockFilter

const (
	bpfLoad   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	bpfEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	bpfAny    = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	bpfReturn = unix.BPF_RET | unix.BPF_K
	deny      = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	absent    = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// on puts what is to be done for one call; each of the steps has to end the program. The number is
// loaded when they begin.
func (f *filter) on(call uint32, steps ...unix.SockFilter) {
	*f = append(*f, unix.SockFilter{Code: bpfEqual, Jf: uint8(len(steps)), K: call})
	*f = append(*f, steps...)
}

// returning is the pair of ends: what a test that holds leads to, and what one that does not.
func returning(yes, no uint32) (unix.SockFilter, unix.SockFilter) {
	return unix.SockFilter{Code: bpfReturn, K: yes}, unix.SockFilter{Code: bpfReturn, K: no}
}

// onBits lets a call through where an argument has one of the bits, or has none of them.
func (f *filter) onBits(call, arg, bits uint32, wanted bool) {
	yes, no := returning(unix.SECCOMP_RET_ALLOW, deny)
	if !wanted {
		yes, no = no, yes
	}
	f.on(call, unix.SockFilter{Code: bpfLoad, K: arg}, unix.SockFilter{Code: bpfAny, Jf: 1, K: bits}, yes, no)
}

// onValues lets a call through where an argument is one of the values.
func (f *filter) onValues(call, arg uint32, values ...uint32) {
	yes, no := returning(unix.SECCOMP_RET_ALLOW, deny)
	steps := []unix.SockFilter{{Code: bpfLoad, K: arg}}
	for i, v := range values {
		steps = append(steps, unix.SockFilter{Code: bpfEqual, Jt: uint8(len(values) - i), K: v})
	}
	f.on(call, append(steps, no, yes)...)
}

// syscallFilter is a list of what is allowed. Threads may be started and no processes; memory may be
// mapped and not made executable; of signals and limits only this process's own; and of what fcntl does
// not who gets the signals of a pipe.
func syscallFilter() filter {
	yes, no := returning(unix.SECCOMP_RET_ALLOW, deny)
	f := filter{
		{Code: bpfLoad, K: seccompArch},
		{Code: bpfEqual, Jt: 1, K: auditArch},
		no,
		{Code: bpfLoad, K: seccompNumber}, // of amd64's other numbering, too: those numbers are not on the list
	}
	f.on(unix.SYS_CLONE3, unix.SockFilter{Code: bpfReturn, K: absent}) // its flags are out of sight; libc falls back to clone
	f.onBits(unix.SYS_CLONE, seccompArg0, unix.CLONE_THREAD, true)
	f.onBits(unix.SYS_MMAP, seccompArg2, unix.PROT_EXEC, false)
	f.onBits(unix.SYS_MPROTECT, seccompArg2, unix.PROT_EXEC, false)
	f.onValues(unix.SYS_FCNTL, seccompArg1, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL)
	f.onValues(unix.SYS_TGKILL, seccompArg0, uint32(os.Getpid()))
	other := unix.SockFilter{Code: bpfEqual, Jf: 2} // to no: another process
	f.on(unix.SYS_PRLIMIT64, unix.SockFilter{Code: bpfLoad, K: seccompArg0}, other,
		unix.SockFilter{Code: bpfLoad, K: seccompArg1}, unix.SockFilter{Code: bpfEqual, Jt: 1, K: unix.RLIMIT_DATA}, no, yes)
	for _, list := range [][]uint32{allowed[:], allowedHere[:]} {
		for _, nr := range list {
			f.on(nr, yes)
		}
	}
	return append(f, no)
}

func filterSyscalls() error {
	if auditArch == 0 {
		return unix.ENOSYS
	}
	prog := syscallFilter()
	// The filter goes to all threads, and with it the promise that the kernel asks for first.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return errno
	}
	if thread != 0 {
		return fmt.Errorf("thread %d does not follow", thread)
	}
	return nil
}

// dataSize is how much writable memory this process has mapped, in bytes.
func dataSize() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 1 << 30
	}
	_, rest, _ := strings.Cut(string(status), "VmData:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 1 << 30
	}
	kib, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return 1 << 30
	}
	return kib << 10
}

// limitData has the kernel refuse memory where watch, which looks every now and then, comes too late:
// for twice what may be used and what Go needs beside, over what was mapped at the start.
func limitData(begin uint64, memory int64) {
	n := begin + 2*uint64(memory) + 512<<20
	// The hard limit stays: another source may have another limit. Where this fails, watch has to do.
	_ = unix.Prlimit(0, unix.RLIMIT_DATA, &unix.Rlimit{Cur: n, Max: unix.RLIM_INFINITY}, nil)
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
