package provenance

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Commit is what a commit object says that decides on anything.
type Commit struct {
	Tree    string   // hexadecimal id
	Parents []string // hexadecimal ids
	Time    time.Time
}

// ParseCommit reads a raw commit object strictly: one tree, its parents, one author, one committer, in
// this order, then headers of other names. What those say (a signature, an encoding, the tag of a merged
// branch) changes the reading of the text alone, which nobody does here.
func ParseCommit(raw []byte) (Commit, error) {
	c, err := parseCommit(raw)
	if err != nil {
		return Commit{}, fmt.Errorf("read commit object: %w", err)
	}
	return c, nil
}

func parseCommit(raw []byte) (c Commit, err error) {
	if bytes.IndexByte(raw, 0) >= 0 {
		return c, errors.New("it holds a zero byte, where git would stop reading")
	}
	if c.Tree, raw, err = header(raw, "tree"); err != nil {
		return c, err
	}
	if !isID(c.Tree) {
		return c, fmt.Errorf("tree id %q", c.Tree)
	}
	for bytes.HasPrefix(raw, []byte("parent ")) {
		var parent string
		if parent, raw, err = header(raw, "parent"); err != nil {
			return c, err
		}
		if !isID(parent) {
			return c, fmt.Errorf("parent id %q", parent)
		}
		c.Parents = append(c.Parents, parent)
	}
	for _, key := range []string{"author", "committer"} {
		var who string
		if who, raw, err = header(raw, key); err != nil {
			return c, err
		}
		if c.Time, err = parseIdent(who); err != nil {
			return c, fmt.Errorf("%s %w", key, err)
		}
	}
	return c, checkOtherHeaders(raw)
}

// checkOtherHeaders reads up to the empty line. A line that begins with a space goes on with the one
// before.
func checkOtherHeaders(raw []byte) error {
	ours := []string{"tree", "parent", "author", "committer"}
	for first := true; ; first = false {
		line, rest, ok := bytes.Cut(raw, []byte("\n"))
		if !ok {
			return errors.New("no empty line before its message")
		}
		if len(line) == 0 {
			return nil
		}
		raw = rest
		if line[0] == ' ' {
			if first {
				return errors.New("its committer has a second line")
			}
			continue
		}
		key, _, ok := strings.Cut(string(line), " ")
		if !ok || strings.ContainsFunc(key, isControl) {
			return fmt.Errorf("%q is not a header", line)
		}
		if slices.Contains(ours, key) {
			return fmt.Errorf("a %q line where it does not belong", key)
		}
	}
}

// CommitTree is the hexadecimal id of a raw commit object's root tree.
func CommitTree(raw []byte) (string, error) {
	c, err := ParseCommit(raw)
	return c.Tree, err
}
