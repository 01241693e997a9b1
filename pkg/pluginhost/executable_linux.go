package pluginhost

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost/supervise"
)

// privateFile is in memory, where it can be sealed; in the folder where the kernel does not execute from
// memory.
func privateFile(dir string) (*privateCopy, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("wheelwright-plugin", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // the kernel does not know MFD_EXEC, and always does what it says
		fd, err = unix.MemfdCreate("wheelwright-plugin", flags)
	}
	if err != nil {
		return inFolder(dir)
	}
	return &privateCopy{File: os.NewFile(uintptr(fd), "wheelwright-plugin"), memory: true}, nil
}

// seal answers the file as it is executed.
func (c *privateCopy) seal() (*os.File, string, error) {
	if c.memory {
		_, err := unix.FcntlInt(c.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
		return c.File, supervise.ProgramPath, err
	}
	f, err := c.reopened()
	if err == nil {
		err = os.Remove(c.Name()) // reached through its descriptor alone
	}
	return f, supervise.ProgramPath, err
}
