//go:build !linux

package pluginhost

import "os"

func privateFile(dir string) (*privateCopy, error) { return inFolder(dir) }

// seal leaves the copy in the host's folder, which is cleared when a host starts.
func (c *privateCopy) seal() (*os.File, string, error) {
	f, err := c.reopened()
	return f, c.Name(), err
}
