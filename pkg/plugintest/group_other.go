//go:build !unix

package plugintest

import (
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return nil }

func killGroup(p *os.Process) { p.Kill() }

func groupAlive(*os.Process) bool { return false }
