package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wheelwright-dev/wheelwright/hub/internal/backup"
	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// maxBundle bounds a bundle that is unpacked, in bytes.
const maxBundle = 1 << 30

// Compact writes the database of a data folder anew without its free pages, and returns its size before and after.
// ErrRuns where a hub runs.
func Compact(dir string) (before, after int64, err error) {
	if err := isDataFolder(dir); err != nil {
		return 0, 0, err
	}
	return store.Compact(filepath.Join(dir, storeFile))
}

// CheckReport is what Check found.
type CheckReport struct {
	Schema   uint64
	Size     int64 // of the database, in bytes
	Free     int64 // of them, free
	Findings []CheckFinding
}

// CheckFinding is one part of a check.
type CheckFinding struct {
	Part     string
	Checked  int
	Problems []string // none: all is well
	Next     string   // the command to type next; empty where there is no problem
}

// Sound: nothing was found.
func (r CheckReport) Sound() bool {
	for _, f := range r.Findings {
		if len(f.Problems) > 0 {
			return false
		}
	}
	return true
}

// Check reads all of a data folder of which no hub runs and changes nothing. Errors are for what cannot be checked at
// all: ErrRuns, and a folder that is none; damage is in the report.
func Check(dir string) (r CheckReport, err error) {
	if err := isDataFolder(dir); err != nil {
		return r, err
	}
	path := filepath.Join(dir, storeFile)
	stored, err := store.Check(path)
	if errors.Is(err, store.ErrCorrupt) {
		r.Findings = []CheckFinding{{Part: "database", Checked: 1, Problems: []string{errors.Unwrap(err).Error()}, Next: putAside(path)}}
		return r, nil
	}
	if err != nil {
		return r, err
	}
	r.Schema, r.Size, r.Free = stored.Schema, stored.Size, stored.Free
	for _, f := range stored.Findings {
		one := CheckFinding{Part: f.Part, Checked: f.Checked, Problems: f.Problems}
		if len(f.Problems) > 0 {
			one.Next = putAside(path)
		}
		r.Findings = append(r.Findings, one)
	}
	r.Findings = append(r.Findings, checkBundles(dir, stored.Bundles), checkAuthorityFile(dir))
	if f, there := checkList(dir); there {
		r.Findings = append(r.Findings, f)
	}
	return r, nil
}

func putAside(path string) string {
	return fmt.Sprintf("mv %s %s.damaged, and put %s of a backup in its place", path, path, filepath.Base(path))
}

// checkBundles unpacks each bundle that a release needs, and compares its digest.
func checkBundles(dir string, needed []store.Bundle) CheckFinding {
	f := CheckFinding{Part: "bundles of releases", Checked: len(needed)}
	for _, b := range needed {
		name := filepath.Join(dir, bundlesFolder, blob.Name(b.Digest))
		if err := checkBundle(name, b.Digest); err != nil {
			f.Problems = append(f.Problems, fmt.Sprintf("%s: %v", b.Release, err))
			f.Next = fmt.Sprintf("put the folder %s of a backup in place, or recall the release: hub release recall %s", filepath.Join(dir, bundlesFolder), b.Release)
		}
	}
	return f
}

func checkBundle(name string, digest fleet.Digest) error {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing", name)
	}
	if err != nil {
		return err
	}
	tar, err := bundle.Decompress(data, maxBundle)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if sum := sha256.Sum256(tar); hex.EncodeToString(sum[:]) != digest.Hex() {
		return fmt.Errorf("%s holds the bundle sha256:%x", name, sum)
	}
	return nil
}

// checkAuthorityFile reads the authority's file, and makes none where there is none.
func checkAuthorityFile(dir string) CheckFinding {
	folder := filepath.Join(dir, authorityFolder)
	f := CheckFinding{Part: "authority", Checked: 1}
	err := identity.Check(folder)
	if err != nil {
		f.Problems = []string{err.Error()}
		f.Next = "put the folder " + folder + " of a copy in place; a backup that was made with --data has it"
	}
	return f
}

// checkList compares with the list of the backup that the folder was made of, until the hub runs on it.
func checkList(dir string) (f CheckFinding, there bool) {
	name := filepath.Join(dir, backup.List)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f, false
	}
	f = CheckFinding{Part: "files of the backup"}
	m := backup.Manifest{}
	if err == nil {
		m, err = backup.ParseList(data)
	}
	if err != nil {
		f.Problems = append(f.Problems, err.Error())
	}
	for _, missing := range m.Missing {
		f.Problems = append(f.Problems, missing+" was missing when the backup was made")
	}
	for _, file := range m.Files {
		f.Checked++
		if file.Name == storeFile {
			continue // opening it may have changed it
		}
		if err := sameFile(filepath.Join(dir, filepath.FromSlash(file.Name)), file); err != nil {
			f.Problems = append(f.Problems, err.Error())
		}
	}
	if len(f.Problems) > 0 {
		f.Next = "unpack the backup again into an empty folder, or an earlier one: tar -xf FILE -C DIR"
	}
	return f, true
}

func sameFile(name string, want backup.File) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("%s: %s", want.Name, strings.TrimPrefix(err.Error(), "open "))
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("%s: %w", want.Name, err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != want.SHA256 {
		return fmt.Errorf("%s is not as it was backed up", want.Name)
	}
	return nil
}
