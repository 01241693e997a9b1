// Package backup is the form of a hub's backup: a tar that is unpacked into an empty folder to make a data folder of
// it, with the list of what is in it, and the SHA-256 of each, as its last file. A copy that was cut short has no such
// list. The package knows neither what is in the files nor which belong to a hub.
package backup

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// List is the name of the last file of a backup.
const List = "backup.json"

// maxList bounds it, in bytes.
const maxList = 64 << 20

// ErrBroken: a backup is not whole, or not what it was.
var ErrBroken = errors.New("not a whole backup")

// Manifest is what the list says.
type Manifest struct {
	Version    int       `json:"version"` // of this form: 1
	At         time.Time `json:"at"`
	HubVersion string    `json:"hubVersion"`
	// Keys: the authority's private keys are in it. A hub that is put back without them needs them from elsewhere.
	Keys    bool     `json:"keys"`
	Missing []string `json:"missing,omitempty"` // what the hub should have had, and has not
	Files   []File   `json:"files"`
}

// File is one of a backup.
type File struct {
	Name   string `json:"name"` // below the data folder, with slashes
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Writer writes a backup. Its methods are for one goroutine.
type Writer struct {
	tar  *tar.Writer
	list Manifest
}

// NewWriter begins a backup of what a hub of this version keeps at this time.
func NewWriter(w io.Writer, at time.Time, hubVersion string) *Writer {
	return &Writer{tar: tar.NewWriter(w), list: Manifest{Version: 1, At: at.UTC().Truncate(time.Second), HubVersion: hubVersion}}
}

// Add puts a file into the backup: the next size bytes of r.
func (w *Writer) Add(name string, size int64, r io.Reader) error {
	sum := sha256.New()
	if err := w.put(name, size, io.TeeReader(io.LimitReader(r, size), sum)); err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	w.list.Files = append(w.list.Files, File{Name: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))})
	return nil
}

// Missing notes what should be there and is not.
func (w *Writer) Missing(what string) { w.list.Missing = append(w.list.Missing, what) }

// Keys notes that the authority's private keys are in it.
func (w *Writer) Keys() { w.list.Keys = true }

func (w *Writer) put(name string, size int64, r io.Reader) error {
	if !inside(name) {
		return fmt.Errorf("%w: %q is no name of a file below a folder", ErrBroken, name)
	}
	err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: w.list.At, Format: tar.FormatPAX})
	if err != nil {
		return err
	}
	n, err := io.Copy(w.tar, r)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Close ends the backup with its list.
func (w *Writer) Close() (Manifest, error) {
	data, err := json.MarshalIndent(w.list, "", "  ")
	if err == nil {
		err = w.put(List, int64(len(data))+1, strings.NewReader(string(data)+"\n"))
	}
	if err == nil {
		err = w.tar.Close()
	}
	if err != nil {
		return w.list, fmt.Errorf("end the backup: %w", err)
	}
	return w.list, nil
}

// Copy puts all of another backup into this one, and with it when that was made and of what.
func (w *Writer) Copy(r io.Reader) error {
	m, err := Read(r, func(f File, content io.Reader) error { return w.Add(f.Name, f.Size, content) })
	if err != nil {
		return err
	}
	w.list.At, w.list.HubVersion, w.list.Keys, w.list.Missing = m.At, m.HubVersion, m.Keys, m.Missing
	return nil
}

// Read hands over each file, whose SHA256 is not known yet, and then looks whether the backup is whole and as it was
// written: ErrBroken.
func Read(r io.Reader, each func(f File, content io.Reader) error) (m Manifest, err error) {
	t := tar.NewReader(r)
	var found []File
	for {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return m, fmt.Errorf("%w: it ends without %s", ErrBroken, List)
		case err != nil:
			return m, fmt.Errorf("%w: %w", ErrBroken, err)
		case h.Typeflag != tar.TypeReg || !inside(h.Name):
			return m, fmt.Errorf("%w: %q has no place in one", ErrBroken, h.Name)
		}
		if h.Name == List {
			return listed(t, found)
		}
		sum := sha256.New()
		content := &source{Reader: io.TeeReader(t, sum)}
		err = each(File{Name: h.Name, Size: h.Size}, content)
		if err == nil {
			_, err = io.Copy(io.Discard, content) // what each left
		}
		if content.broken != nil {
			return m, fmt.Errorf("%w: %s: %w", ErrBroken, h.Name, content.broken)
		}
		if err != nil {
			return m, err
		}
		found = append(found, File{Name: h.Name, Size: h.Size, SHA256: hex.EncodeToString(sum.Sum(nil))})
	}
}

// source remembers that it could not be read: whoever reads it may say so in other words.
type source struct {
	io.Reader
	broken error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.broken = err
	}
	return n, err
}

// listed reads the list, which comes last, and compares.
func listed(r io.Reader, found []File) (m Manifest, err error) {
	data, err := io.ReadAll(io.LimitReader(r, maxList))
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if m, err = ParseList(data); err != nil {
		return m, err
	}
	for i, f := range m.Files {
		if i >= len(found) || found[i] != f {
			return m, fmt.Errorf("%w: %s is not as it was written", ErrBroken, f.Name)
		}
	}
	if len(found) > len(m.Files) {
		return m, fmt.Errorf("%w: %s is not in its list", ErrBroken, found[len(m.Files)].Name)
	}
	return m, nil
}

// ParseList reads the list of a backup.
func ParseList(data []byte) (m Manifest, err error) {
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrBroken, List, err)
	}
	if m.Version != 1 {
		return m, fmt.Errorf("%w: its form is %d, this hub reads form 1; use the hub that wrote it, %s", ErrBroken, m.Version, m.HubVersion)
	}
	return m, nil
}

// Has says whether the list names a file.
func (m Manifest) Has(name string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == name })
}

// Size is that of all files, in bytes.
func (m Manifest) Size() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// inside: a relative path that stays below its folder.
func inside(name string) bool {
	return name != "" && name != "." && path.Clean(name) == name && !path.IsAbs(name) && name != ".." && !strings.HasPrefix(name, "../") && !strings.Contains(name, `\`)
}
