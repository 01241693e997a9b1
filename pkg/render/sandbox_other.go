//go:build !linux

package render

import (
	"syscall"
	"time"
)

// sandbox has only the refusing HTTP transport to offer here.
func sandbox() string {
	denyHTTP()
	return confinement(nil)
}

// Offered says what this system has to confine a render child with.
func Offered() string { return confinement(nil) }

func dieWithParent() *syscall.SysProcAttr { return nil }

func containerLimit() int64 { return 0 }

func dataSize() uint64 { return 0 }

func limitData(uint64, int64) {}

// processorTime is not measured here: the parent's deadline has to do.
func processorTime() time.Duration { return 0 }
