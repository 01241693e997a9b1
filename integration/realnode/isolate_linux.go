package realnode

import (
	"os/exec"
	"syscall"
)

// isolate gives a command namespaces of its own.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID
}
