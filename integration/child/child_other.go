//go:build !linux

package child

import "syscall"

func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// WithUs are the attributes of a process that would die with the thread that starts it, where the kernel did that.
func WithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
