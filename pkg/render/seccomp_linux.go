//go:build amd64 || arm64

package render

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
