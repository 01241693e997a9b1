//go:build !linux

package render

import "syscall"

// sandbox has only the refusing HTTP transport to offer here.
func sandbox() string {
	denyHTTP()
	return "none"
}

func dieWithParent() *syscall.SysProcAttr { return nil }
