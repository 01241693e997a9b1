//go:build unix

package plugintest

import (
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(p *os.Process) { syscall.Kill(-p.Pid, syscall.SIGKILL) }

// groupAlive: some process of the group is there.
func groupAlive(p *os.Process) bool { return syscall.Kill(-p.Pid, 0) == nil }
