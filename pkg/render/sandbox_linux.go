package render

import (
	"fmt"
	"os"
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

// containerLimit is what the control group that this process is in may have, as a container sees it: of
// version 2, else of version 1.
func containerLimit() int64 {
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(name); err == nil {
			return cgroupLimit(text)
		}
	}
	return 0
}

// limitData has the kernel refuse memory where watch, which looks every now and then, comes too late:
// for half as much again as may be used and what Go needs beside, over what was mapped at the start.
func limitData(begin uint64, memory int64) {
	n := begin + uint64(memory)*3/2 + 128<<20
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
