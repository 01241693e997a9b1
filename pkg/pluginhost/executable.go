package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxExecutable bounds what is read into memory of one plugin.
const maxExecutable = 512 << 20

// executable is a plugin's file as it was hashed.
type executable struct {
	*os.File
	path   string // to execute in the supervisor
	script bool   // begins with #!
}

// ErrChecksum is a file that is not the one that the configuration names.
type ErrChecksum struct{ Plugin, Path, Want, Got string }

func (e *ErrChecksum) Error() string {
	return fmt.Sprintf("%s has the SHA-256 %s, and its sha256 under `plugins` is %s: it is not run; where the file is the one that you want, put what `sha256sum %s` prints under its sha256",
		e.Path, e.Got, e.Want, e.Path)
}

// source opens a plugin's file, if it is one that can be run.
func source(p Plugin) (*os.File, os.FileInfo, error) {
	f, err := os.Open(p.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("open it: %w; set its path under `plugins`", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("open it: %w", err)
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a file", p.Path)
	case info.Mode().Perm()&0o111 == 0:
		err = fmt.Errorf("%s is not executable: `chmod +x %s`", p.Path, p.Path)
	case info.Size() > maxExecutable:
		err = fmt.Errorf("%s has %d bytes: at most %d are run", p.Path, info.Size(), int64(maxExecutable))
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// load reads the plugin's file once, into a private copy, and compares the sum of exactly those bytes.
func load(p Plugin, dir string) (*executable, error) {
	source, _, err := source(p)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	copied, err := privateFile(dir)
	if err != nil {
		return nil, fmt.Errorf("make a copy of it: %w", err)
	}
	e, err := fill(copied, source, p)
	if err != nil {
		copied.discard()
		return nil, err
	}
	return e, nil
}

// inspection is what was found of a plugin's file, and of which one.
type inspection struct {
	mu   sync.Mutex
	file os.FileInfo
	err  error
}

// inspect is load without the copy.
func (p *plugin) inspect() error {
	source, info, err := source(p.cfg)
	if err != nil {
		return err
	}
	defer source.Close()
	l := &p.looked
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && os.SameFile(l.file, info) && l.file.Size() == info.Size() && l.file.ModTime().Equal(info.ModTime()) {
		return l.err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(source, maxExecutable)); err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	l.file, l.err = info, nil
	if got := hex.EncodeToString(sum.Sum(nil)); got != strings.ToLower(p.cfg.SHA256) {
		l.err = &ErrChecksum{Plugin: p.cfg.Name, Path: p.cfg.Path, Want: p.cfg.SHA256, Got: got}
	}
	return l.err
}

func fill(copied *privateCopy, source io.Reader, p Plugin) (*executable, error) {
	sum := sha256.New()
	head := &prefix{}
	n, err := io.Copy(io.MultiWriter(copied.File, sum, head), io.LimitReader(source, maxExecutable+1))
	if err != nil {
		return nil, fmt.Errorf("make a copy of it: %w", err)
	}
	if n > maxExecutable {
		return nil, fmt.Errorf("%s has more than %d bytes", p.Path, int64(maxExecutable))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != strings.ToLower(p.SHA256) {
		return nil, &ErrChecksum{Plugin: p.Name, Path: p.Path, Want: p.SHA256, Got: got}
	}
	f, path, err := copied.seal()
	if err != nil {
		return nil, fmt.Errorf("make a copy of it: %w", err)
	}
	return &executable{File: f, path: path, script: string(head.text) == "#!"}, nil
}

// prefix keeps the first two bytes.
type prefix struct{ text []byte }

func (p *prefix) Write(b []byte) (int, error) {
	p.text = append(p.text, b[:min(len(b), 2-len(p.text))]...)
	return len(b), nil
}

// privateCopy is a file that only this process writes, until it is sealed.
type privateCopy struct {
	*os.File
	memory bool
}

func (c *privateCopy) discard() {
	c.Close()
	if !c.memory {
		os.Remove(c.Name())
	}
}

// inFolder is where the machine has no files in memory that can be executed.
func inFolder(dir string) (*privateCopy, error) {
	f, err := os.OpenFile(filepath.Join(dir, "."+unique()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o700)
	if err != nil {
		return nil, err
	}
	return &privateCopy{File: f}, nil
}

// reopened is the copy for reading alone: a file that is open for writing is not executed.
func (c *privateCopy) reopened() (*os.File, error) {
	f, err := os.Open(c.Name())
	if err != nil {
		return nil, err
	}
	return f, errors.Join(c.Chmod(0o500), c.Close())
}
