package provenance

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Modes of tree entries, as git writes them. There are no others: 100664 and 040000, which old tools
// wrote, are read by git as if they were others, and are refused.
const (
	ModeFile       = "100644"
	ModeExecutable = "100755"
	ModeDir        = "40000"
	ModeSymlink    = "120000"
	ModeSubmodule  = "160000"
)

// Entry is one entry of a raw tree object.
type Entry struct {
	Mode string
	Name string
	ID   ID
}

// ParseTree reads a raw tree object strictly: entries sorted as git sorts them, no name twice, the five
// modes of git and no other, no name that git's checkout would have to refuse. Symlinks and submodules
// are entries like others here: beside the way to a release they are nobody's business; in the release
// its readers refuse them by name.
func ParseTree(raw []byte) ([]Entry, error) {
	var entries []Entry
	seen := map[string]struct{}{}
	last := ""
	for len(raw) > 0 {
		e, rest, err := parseEntry(raw)
		if err != nil {
			return nil, fmt.Errorf("read tree object: %w", err)
		}
		raw = rest
		key := e.Name
		if e.Mode == ModeDir {
			key += "/"
		}
		if _, twice := seen[e.Name]; twice {
			return nil, fmt.Errorf("read tree object: entry %q is there twice", e.Name)
		}
		if len(entries) > 0 && key <= last {
			return nil, fmt.Errorf("read tree object: entry %q is out of order", e.Name)
		}
		seen[e.Name] = struct{}{}
		last = key
		entries = append(entries, e)
	}
	return entries, nil
}

func parseEntry(raw []byte) (Entry, []byte, error) {
	mode, rest, ok := bytes.Cut(raw, []byte(" "))
	if !ok {
		return Entry{}, nil, errors.New("it ends too early")
	}
	name, rest, ok := bytes.Cut(rest, []byte{0})
	if !ok || len(rest) < len(ID{}) {
		return Entry{}, nil, errors.New("it ends too early")
	}
	e := Entry{Mode: string(mode), Name: string(name), ID: ID(rest[:len(ID{})])}
	switch e.Mode {
	case ModeFile, ModeExecutable, ModeDir, ModeSubmodule:
	case ModeSymlink:
		if asCheckedOut(e.Name) == ".gitmodules" {
			return Entry{}, nil, fmt.Errorf("%q is a symlink, which git refuses for this file", e.Name)
		}
	default:
		return Entry{}, nil, fmt.Errorf("%q has mode %q, want 100644 or 100755 for a file, 40000 for a folder; commit it with a newer git", e.Name, e.Mode)
	}
	switch {
	case e.Name == "" || e.Name == "." || e.Name == ".." || strings.Contains(e.Name, "/"):
		return Entry{}, nil, fmt.Errorf("%q is not a name", e.Name)
	case isGitFolder(e.Name):
		return Entry{}, nil, fmt.Errorf("%q is git's own folder, or becomes it on some file system", e.Name)
	case e.ID == ID{}:
		return Entry{}, nil, fmt.Errorf("%q has no object id", e.Name)
	}
	return e, rest[len(ID{}):], nil
}

// CheckPath accepts clean, relative, slash-separated paths of printable UTF-8 that stay inside their
// root and name no git folder.
func CheckPath(path string) error {
	if plain(path) {
		return nil
	}
	return checkClosely(path)
}

func checkClosely(path string) error {
	if path == "" {
		return errors.New("path is empty")
	}
	if !utf8.ValidString(path) {
		return fmt.Errorf("path %q is not UTF-8", path)
	}
	for _, r := range path {
		if r < 0x20 || r == 0x7f || r == '\\' {
			return fmt.Errorf("path %q holds a control character or a backslash", path)
		}
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || isGitFolder(name) {
			return fmt.Errorf("path %q is absolute, not clean, leaves its root or names git's own folder", path)
		}
	}
	return nil
}

// plain is true of paths that hold nothing to look at closer: ASCII without control characters and backslashes, in
// parts that begin with neither a dot nor a g. Most are, and there are many.
func plain(path string) bool {
	begin := true // of a part
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			if begin {
				return false
			}
			begin = true
			continue
		case begin && (c == '.' || c == 'g' || c == 'G'), c < 0x20, c >= 0x7f, c == '\\':
			return false
		}
		begin = false
	}
	return !begin
}

// isGitFolder is wider than git's own two rules for it (verify_path and fsck's hasDotgit).
func isGitFolder(name string) bool {
	if !mayBeGit(name) {
		return false
	}
	for part := range strings.SplitSeq(name, `\`) { // a separator on NTFS
		switch asCheckedOut(part) {
		case ".git", "git~1":
			return true
		}
	}
	return false
}

// mayBeGit spares nearly every name the work: one that becomes git's own holds a g.
func mayBeGit(name string) bool { return strings.ContainsAny(name, "gG") }

// asCheckedOut is the file that a name becomes on the most forgetful file systems: HFS+ drops code points
// that show nothing, NTFS the end of a name from a colon on and trailing dots and spaces, and both do not
// know upper from lower case. Git takes the first byte that is not UTF-8 for the end of a name on HFS+.
func asCheckedOut(name string) string {
	for i, r := range name {
		if _, size := utf8.DecodeRuneInString(name[i:]); r == utf8.RuneError && size == 1 {
			name = name[:i]
			break
		}
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	name, _, _ = strings.Cut(name, ":")
	return strings.ToLower(strings.TrimRight(name, ". "))
}
