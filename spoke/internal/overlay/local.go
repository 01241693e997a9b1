package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

// loadLocal reads a folder on this machine.
func loadLocal(folder string) (Overlay, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return Overlay{}, fmt.Errorf("read overlay: %w", err)
	}
	own := inTree(folder)
	o, err := gather(own, func(p string) ([]provenance.File, error) {
		if p != own && !holdsKustomization("/"+p) { // it could be anything of this machine
			return nil, errAbsent
		}
		return readFolder("/" + p)
	})
	if errors.Is(err, errAbsent) {
		return Overlay{}, fmt.Errorf("read overlay: there is no folder %s; make it, or set overlay.path in spoke.yaml", folder)
	}
	if err != nil {
		return Overlay{}, fmt.Errorf("read overlay: %w", err)
	}
	return o, nil
}

// inTree is an absolute path as gather names it.
func inTree(p string) string {
	return path.Clean(strings.TrimPrefix(filepath.ToSlash(p), "/"))
}

func holdsKustomization(folder string) bool {
	for _, name := range render.KustomizationFiles() {
		if _, err := os.Stat(filepath.Join(folder, name)); err == nil {
			return true
		}
	}
	return false
}

// kubernetesData is the link to the current content that Kubernetes puts in a mounted ConfigMap or
// Secret, and changes in one step.
const kubernetesData = "..data"

// readFolder reads every file below a folder. Links are refused, but for those of a mounted ConfigMap.
func readFolder(root string) ([]provenance.File, error) {
	if info, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) || (err == nil && !info.IsDir()) {
		return nil, errAbsent
	} else if err != nil {
		return nil, err
	}
	at := root
	if current, err := os.Readlink(filepath.Join(root, kubernetesData)); err == nil && current == filepath.Base(current) {
		at = filepath.Join(root, current)
	}
	var files []provenance.File
	total := 0
	err := filepath.WalkDir(at, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(at, p)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir() && e.Name() == ".git":
			return fs.SkipDir
		case e.IsDir():
			return nil
		case !e.Type().IsRegular():
			return fmt.Errorf("%s is a %s: an overlay holds files and folders only; put a copy in its place", filepath.Join(root, rel), kindOf(e.Type()))
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		total += int(min(info.Size(), maxBytes+1))
		if err := limits(root, len(files)+1, total); err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files = append(files, provenance.File{Path: filepath.ToSlash(rel), Executable: info.Mode()&0o111 != 0, Data: data})
		return nil
	})
	return files, err
}

func kindOf(m fs.FileMode) string {
	if m&fs.ModeSymlink != 0 {
		return "symbolic link"
	}
	return "special file"
}
