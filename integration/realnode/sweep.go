package realnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	folderPrefix = "wheelwright-node-"
	cgroup       = "wheelwright-node"
	cgroups      = "/sys/fs/cgroup"

	// What the next run needs to know is at fixed places too, whatever TMPDIR says.
	lockFile   = "/run/wheelwright-node.lock"
	dirFile    = "/run/wheelwright-node.dir"    // the folder of the last node
	hiddenFile = "/run/wheelwright-node.hidden" // those of the hidden folders that were not there before, a line each
)

// bulk are the parts of a node's folder that nobody wants to read when it is gone.
var bulk = [...]string{"state", "images", "cni"}

// lock waits until no other process has a node on this machine: link and cgroup have fixed names, so that a later
// run finds what a killed one left.
func lock(ctx context.Context, log io.Writer) (unlock func() error, err error) {
	file, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the machine: %w", err)
	}
	for said := false; ; said = true {
		if err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return file.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", lockFile, err)
		}
		if !said {
			fmt.Fprintf(log, "realnode: another process has a node on this machine, waiting for it (%s)\n", lockFile)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for the other node's end (%s): %w", lockFile, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// sweep takes away what a run that was killed left behind. The caller has the lock, so nobody uses it.
func sweep() error {
	errs := []error{removeLink(), removeCgroup(), removeHidden()}
	dir, err := os.ReadFile(dirFile)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(errs...)
	}
	if errs = append(errs, err); err == nil {
		errs = append(errs, removeBulk(string(dir)), os.Remove(dirFile))
	}
	return errors.Join(errs...)
}

func removeBulk(dir string) error {
	var errs []error
	for _, name := range bulk {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

func removeLink() error {
	if _, err := net.InterfaceByName(link); err != nil {
		return nil // it went with the node
	}
	if _, err := run(context.Background(), "ip", "link", "delete", link); err != nil {
		if _, gone := net.InterfaceByName(link); gone == nil {
			return err
		}
	}
	return nil
}

// hierarchies are the folders below which the node gets a cgroup: one in version 2, one for each controller in
// version 1, with the empty version 2 that may stand beside them.
func hierarchies() (folders []string, unified bool) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}, true
	}
	entries, _ := os.ReadDir(cgroups)
	for _, entry := range entries {
		path := filepath.Join(cgroups, entry.Name())
		if info, err := os.Stat(path); err == nil && info.IsDir() && !slices.Contains(folders, path) {
			folders = append(folders, path)
		}
	}
	return folders, false
}

// makeCgroup makes the cgroup that all pods are below.
func makeCgroup() error {
	folders, unified := hierarchies()
	if len(folders) == 0 {
		return fmt.Errorf("no cgroups below %s: kubelet needs them mounted there", cgroups)
	}
	for _, folder := range folders {
		path := filepath.Join(folder, cgroup)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("make the node's cgroup: %w", err)
		}
		if !unified {
			continue
		}
		controllers, err := os.ReadFile(filepath.Join(folder, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("make the node's cgroup: %w", err)
		}
		for controller := range strings.FieldsSeq(string(controllers)) {
			for _, at := range []string{folder, path} {
				// One that cannot be delegated is missed by kubelet, if it needs it, with a better message.
				_ = os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
			}
		}
	}
	return nil
}

// removeCgroup removes the node's cgroup and all below. Their processes are dead; the kernel may need a moment.
func removeCgroup() error {
	folders, _ := hierarchies()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var errs []error
		for _, folder := range folders {
			var dirs []string
			_ = filepath.WalkDir(filepath.Join(folder, cgroup), func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(dirs) {
				if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, err)
				}
			}
		}
		if len(errs) == 0 || time.Now().After(deadline) {
			return errors.Join(errs...)
		}
	}
}

// makeHidden makes the folders that are mounted over on the node, and remembers which it made.
func makeHidden() error {
	var list []string
	for _, folder := range hidden {
		if _, err := os.Stat(folder); err == nil {
			continue
		}
		list = append(list, folder)
		if err := os.WriteFile(hiddenFile, []byte(strings.Join(list, "\n")), 0o644); err != nil {
			return err
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// removeHidden removes them again, where they are still empty.
func removeHidden() error {
	list, err := os.ReadFile(hiddenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for folder := range strings.SplitSeq(string(list), "\n") {
		if slices.Contains(hidden[:], folder) {
			_ = os.Remove(folder)
		}
	}
	return os.Remove(hiddenFile)
}
