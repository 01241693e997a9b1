package render

import (
	"fmt"
	"os"
	"runtime"
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

// sandbox confines this process for good, as far as the kernel can, and says with what:
//
//   - HTTP of Go's default transport is refused in any case.
//   - Limits: no core dumps, no file may grow, few descriptors. Not limited are processes (the limit
//     counts threads too, which Go needs), address space and processor time (see watch).
//   - Landlock: no path can be opened, executed or changed, no TCP, no signals to others.
//   - seccomp: opening files, executing, sockets of any kind and looking into other processes fail with
//     EPERM. It needs no Landlock in the kernel, and covers UDP.
func sandbox() string {
	denyHTTP()
	limit := func(what int, n uint64) {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			fmt.Fprintln(os.Stderr, "render process: limit:", err)
		}
	}
	limit(unix.RLIMIT_CORE, 0)
	limit(unix.RLIMIT_FSIZE, 0)
	limit(unix.RLIMIT_NOFILE, 32)

	var active []string
	if abi, err := llsys.LandlockGetABIVersion(); err == nil && abi > 0 {
		if err := landlock.V8.BestEffort().Restrict(); err != nil {
			fmt.Fprintln(os.Stderr, "render process: landlock:", err)
		} else {
			active = append(active, "landlock")
		}
	}
	if err := filterSyscalls(); err != nil {
		fmt.Fprintln(os.Stderr, "render process: seccomp:", err)
	} else {
		active = append(active, "seccomp")
	}
	if len(active) == 0 {
		return "none"
	}
	return strings.Join(active, "+")
}

// forbidden on every architecture; forbiddenHere are the older ones that only some have.
var forbidden = [...]uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_TREE,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND,
	unix.SYS_IO_URING_SETUP, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_MEMFD_CREATE, unix.SYS_BPF, unix.SYS_MOUNT, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_SYMLINKAT,
}

func filterSyscalls() error {
	if auditArch == 0 {
		return unix.ENOSYS
	}
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		deny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		x32   = 0x40000000 // system calls of amd64's other numbering
	)
	prog := []unix.SockFilter{
		{Code: load, K: 4}, // seccomp_data.arch
		{Code: equal, Jt: 1, K: auditArch},
		{Code: ret, K: deny},
		{Code: load, K: 0}, // seccomp_data.nr
		{Code: least, Jf: 1, K: x32},
		{Code: ret, K: deny},
	}
	for _, list := range [][]uint32{forbidden[:], forbiddenHere[:]} {
		for _, nr := range list {
			prog = append(prog, unix.SockFilter{Code: equal, Jf: 1, K: nr}, unix.SockFilter{Code: ret, K: deny})
		}
	}
	prog = append(prog, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})

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

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
