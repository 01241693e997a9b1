//go:build !linux

package render

import (
	"syscall"
	"time"
)

// sandbox has only the refusing HTTP transport to offer here.
func sandbox() string {
	denyHTTP()
	return "none"
}

func dieWithParent() *syscall.SysProcAttr { return nil }

// processorTime is not measured here: the parent's deadline has to do.
func processorTime() time.Duration { return 0 }
