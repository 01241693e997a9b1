//go:build amd64 || arm64

package render

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is one system call that a subverted child would make.
type attempt struct {
	name     string
	call     uintptr
	args     [6]uintptr
	harmless bool // it may be made without the sandbox, where it has to be more than refused
}

func attempts(parent uintptr) []attempt {
	path := uintptr(unsafe.Pointer(unsafe.StringData("/etc/passwd\x00")))
	at := ^uintptr(99) // AT_FDCWD
	buffer := uintptr(unsafe.Pointer(&make([]byte, 4096)[0]))
	self := uintptr(os.Getpid())
	return []attempt{
		{"fork", unix.SYS_CLONE, [6]uintptr{uintptr(unix.SIGCHLD)}, false},
		{"vfork", unix.SYS_CLONE, [6]uintptr{unix.CLONE_VFORK | unix.CLONE_VM | uintptr(unix.SIGCHLD)}, false},
		{"clone3", unix.SYS_CLONE3, [6]uintptr{buffer, 88}, false},
		{"execve", unix.SYS_EXECVE, [6]uintptr{path}, false},
		{"execveat", unix.SYS_EXECVEAT, [6]uintptr{at, path}, false},
		{"memfd_create", unix.SYS_MEMFD_CREATE, [6]uintptr{path}, true},
		{"memfd_secret", unix.SYS_MEMFD_SECRET, [6]uintptr{}, false},
		{"executable memory", unix.SYS_MMAP, [6]uintptr{0, 4096, unix.PROT_EXEC | unix.PROT_READ, unix.MAP_ANON | unix.MAP_PRIVATE, ^uintptr(0)}, true},
		{"memory made executable", unix.SYS_MPROTECT, [6]uintptr{buffer &^ 4095, 4096, unix.PROT_EXEC | unix.PROT_READ | unix.PROT_WRITE}, false},
		{"inet socket", unix.SYS_SOCKET, [6]uintptr{unix.AF_INET, unix.SOCK_DGRAM}, true},
		{"unix socket", unix.SYS_SOCKET, [6]uintptr{unix.AF_UNIX, unix.SOCK_STREAM}, true},
		{"netlink socket", unix.SYS_SOCKET, [6]uintptr{unix.AF_NETLINK, unix.SOCK_RAW}, true},
		{"socketpair", unix.SYS_SOCKETPAIR, [6]uintptr{unix.AF_UNIX, unix.SOCK_STREAM, 0, buffer}, true},
		{"io_uring", unix.SYS_IO_URING_SETUP, [6]uintptr{4, buffer}, false},
		{"signal to the parent", unix.SYS_KILL, [6]uintptr{parent, 0}, true},
		{"signal to a thread of the parent", unix.SYS_TGKILL, [6]uintptr{parent, parent, 0}, true},
		{"signal by tkill", unix.SYS_TKILL, [6]uintptr{parent, 0}, true},
		{"signal with a value", unix.SYS_RT_SIGQUEUEINFO, [6]uintptr{parent, 0, buffer}, false},
		{"signal through a pipe", unix.SYS_FCNTL, [6]uintptr{0, unix.F_SETOWN, parent}, true},
		{"handle of the parent", unix.SYS_PIDFD_OPEN, [6]uintptr{parent}, true},
		{"the parent's descriptors", unix.SYS_PIDFD_GETFD, [6]uintptr{0, 0}, false},
		{"ptrace", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_ATTACH, parent}, false},
		{"the parent's memory", unix.SYS_PROCESS_VM_READV, [6]uintptr{parent, buffer, 1, buffer, 1}, true},
		{"into the parent's memory", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{parent, buffer, 0, buffer, 0}, true},
		{"the parent's limits", unix.SYS_PRLIMIT64, [6]uintptr{parent, unix.RLIMIT_CPU, 0, buffer}, true},
		{"the parent's memory limit", unix.SYS_PRLIMIT64, [6]uintptr{parent, unix.RLIMIT_DATA, 0, buffer}, true},
		{"own limits", unix.SYS_PRLIMIT64, [6]uintptr{0, unix.RLIMIT_FSIZE, 0, buffer}, true},
		{"the parent's priority", unix.SYS_SETPRIORITY, [6]uintptr{0, parent, 0}, true},
		{"the parent's processors", unix.SYS_SCHED_SETAFFINITY, [6]uintptr{parent, 8, 0}, false},
		{"own name and flags", unix.SYS_PRCTL, [6]uintptr{unix.PR_GET_DUMPABLE}, true},
		{"open", unix.SYS_OPENAT, [6]uintptr{at, path}, true},
		{"openat2", unix.SYS_OPENAT2, [6]uintptr{at, path, buffer, 24}, false},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{at, buffer}, false},
		{"is there such a file", unix.SYS_FACCESSAT, [6]uintptr{at, path}, true},
		{"where a link leads", unix.SYS_READLINKAT, [6]uintptr{at, path, buffer, 4096}, false},
		{"change of mode", unix.SYS_FCHMODAT, [6]uintptr{at, 0}, false},
		{"change of owner", unix.SYS_FCHOWNAT, [6]uintptr{at, 0}, false},
		{"truncate", unix.SYS_TRUNCATE, [6]uintptr{0}, false},
		{"unlink", unix.SYS_UNLINKAT, [6]uintptr{at, 0}, false},
		{"mount", unix.SYS_MOUNT, [6]uintptr{}, false},
		{"chroot", unix.SYS_CHROOT, [6]uintptr{}, false},
		{"unshare", unix.SYS_UNSHARE, [6]uintptr{0}, true},
		{"setns", unix.SYS_SETNS, [6]uintptr{}, false},
		{"bpf", unix.SYS_BPF, [6]uintptr{}, false},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{}, false},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{}, false},
		{"keyring", unix.SYS_KEYCTL, [6]uintptr{}, false},
		{"shared memory", unix.SYS_SHMGET, [6]uintptr{0, 4096, 0o600}, false},
		{"message queue", unix.SYS_MSGGET, [6]uintptr{0, 0o600}, false},
		{"inotify", unix.SYS_INOTIFY_INIT1, [6]uintptr{}, true},
		{"ioctl", unix.SYS_IOCTL, [6]uintptr{0, unix.TIOCSTI, buffer}, false},
		{"another filter", unix.SYS_SECCOMP, [6]uintptr{unix.SECCOMP_SET_MODE_FILTER, 0, 0}, false},
		{"another process's identity", unix.SYS_SETUID, [6]uintptr{self}, false},
	}
}

// TestCallsInsideSandbox is the other half of TestSandboxCalls.
func TestCallsInsideSandbox(t *testing.T) {
	parent, err := strconv.Atoi(os.Getenv("WHEELWRIGHT_TEST_PARENT"))
	if err != nil {
		t.Log("runs as part of TestSandboxCalls")
		return
	}
	runtime.LockOSThread()
	list := attempts(uintptr(parent))
	for _, a := range list {
		if !a.harmless {
			continue
		}
		if _, _, errno := unix.RawSyscall6(a.call, a.args[0], a.args[1], a.args[2], a.args[3], a.args[4], a.args[5]); errno == unix.EPERM || errno == unix.ENOSYS {
			t.Errorf("%s: %v even without the sandbox, so it proves nothing", a.name, errno)
		}
	}
	if _, err := unix.FcntlInt(3, unix.F_GETFD, 0); err != nil {
		t.Errorf("no descriptor was inherited: %v", err)
	}
	if active := sandbox(); active != "landlock+seccomp" && active != "seccomp" {
		t.Skipf("sandbox: %s", active)
	}
	for _, a := range list {
		result, _, errno := unix.RawSyscall6(a.call, a.args[0], a.args[1], a.args[2], a.args[3], a.args[4], a.args[5])
		if result == 0 && errno == 0 && a.call == unix.SYS_CLONE {
			unix.Exit(0) // the child that was not to be
		}
		if errno != unix.EPERM && errno != unix.ENOSYS {
			t.Errorf("%s: %d, %v", a.name, result, errno)
		}
	}
	if _, err := unix.FcntlInt(3, unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("an inherited descriptor is open: %v", err)
	}
	t.Logf("%d calls refused", len(list))
}
