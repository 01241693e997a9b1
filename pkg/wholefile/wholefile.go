// Package wholefile puts files in place so that a kill or a power loss leaves the old one or the new one, never a part.
// It knows nothing of what is in them.
package wholefile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write puts data in path's place, readable for its owner alone, and survives power loss once it has returned nil.
// Until then it is in a file of the same folder that aside names, as os.CreateTemp reads it; only a kill leaves that
// behind.
func Write(path, aside string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, aside) // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone, where it got its name
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncFolder(dir)
}

// SyncFolder brings the names in a folder to the disk.
func SyncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
