// Package provenance links the files of a release to the git objects that its vendor tagged: files to a
// tree, trees to a commit, the commit to a tag. It works on raw object contents, recomputes every object
// id with a collision-detecting SHA-1, and knows no git library.
//
// It does not verify signatures: it says which tag object the files belong to, not who made it.
package provenance

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// File is one regular file of a release.
type File struct {
	Path       string // slash-separated, relative to the distribution's path
	Executable bool
	Data       []byte
}

// Proof is the chain of raw git objects, each without its "kind size" header.
type Proof struct {
	Tag     []byte   // the annotated tag object; nil for a lightweight tag
	Commit  []byte   // the commit object
	Trees   [][]byte // the root's tree first, then one for every folder down to Path
	Path    string   // the distribution's path; "." for the repository's root
	TagName string   // short name
}

// Claim is what a checked proof says: hexadecimal object ids.
type Claim struct {
	TagName   string
	TagObject string // empty for a lightweight tag
	Commit    string
	Tree      string // of the distribution's path
}

// Check recomputes the files' tree id and follows it up through the trees to the commit and the tag. The
// name written inside an annotated tag must be TagName, so that an old tag object under a new name is
// refused.
func (p Proof) Check(files []File) (Claim, error) {
	tree, err := TreeID(files)
	if err != nil {
		return Claim{}, fmt.Errorf("check provenance of %s: %w", p.TagName, err)
	}
	if err := p.checkTrees(tree); err != nil {
		return Claim{}, fmt.Errorf("check provenance of %s: %w", p.TagName, err)
	}
	commit, err := ObjectID("commit", p.Commit)
	if err != nil {
		return Claim{}, fmt.Errorf("check provenance of %s: %w", p.TagName, err)
	}
	c := Claim{TagName: p.TagName, Commit: hex.EncodeToString(commit[:]), Tree: tree}
	if p.Tag == nil {
		return c, nil
	}
	if c.TagObject, err = p.checkTag(c.Commit); err != nil {
		return Claim{}, fmt.Errorf("check provenance of %s: %w", p.TagName, err)
	}
	return c, nil
}

func (p Proof) checkTrees(tree string) error {
	names, err := Components(p.Path)
	if err != nil {
		return err
	}
	if len(p.Trees) != len(names)+1 {
		return fmt.Errorf("%d tree objects for path %q, want %d", len(p.Trees), p.Path, len(names)+1)
	}
	want, err := CommitTree(p.Commit)
	if err != nil {
		return err
	}
	for i, raw := range p.Trees {
		id, err := ObjectID("tree", raw)
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(id[:]); got != want {
			return fmt.Errorf("tree object %d of path %q is %s, want %s", i, p.Path, got, want)
		}
		if i == len(names) {
			break
		}
		entries, err := ParseTree(raw)
		if err != nil {
			return err
		}
		if want, err = subtree(entries, names[i]); err != nil {
			return fmt.Errorf("path %q: %w", p.Path, err)
		}
	}
	if want != tree {
		return fmt.Errorf("the files have tree id %s, the tagged commit has %s at %q", tree, want, p.Path)
	}
	return nil
}

func subtree(entries []Entry, name string) (string, error) {
	for _, e := range entries {
		if e.Name == name {
			if e.Mode != ModeDir {
				return "", fmt.Errorf("%q is no folder", name)
			}
			return hex.EncodeToString(e.ID[:]), nil
		}
	}
	return "", fmt.Errorf("no folder %q in its tree", name)
}

func (p Proof) checkTag(commit string) (string, error) {
	t, err := ParseTag(p.Tag)
	if err != nil {
		return "", err
	}
	if t.Kind != "commit" {
		return "", fmt.Errorf("the tag names a %s, want a commit", t.Kind)
	}
	if t.Object != commit {
		return "", fmt.Errorf("the tag names commit %s, the proof holds %s", t.Object, commit)
	}
	if t.Name != p.TagName {
		return "", fmt.Errorf("the tag object is of %q, not of %q", t.Name, p.TagName)
	}
	id, err := ObjectID("tag", p.Tag)
	return hex.EncodeToString(id[:]), err
}

// Components splits a distribution's path; none for ".".
func Components(path string) ([]string, error) {
	if path == "." {
		return nil, nil
	}
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	return strings.Split(path, "/"), nil
}

// Tag is what an annotated tag object says, but for its message and signature.
type Tag struct {
	Object string // hexadecimal id
	Kind   string // of the object
	Name   string
}

// ParseTag reads the fixed first lines of a raw tag object.
func ParseTag(raw []byte) (Tag, error) {
	var t Tag
	for _, h := range []struct {
		key string
		to  *string
	}{{"object", &t.Object}, {"type", &t.Kind}, {"tag", &t.Name}} {
		v, rest, err := header(raw, h.key)
		if err != nil {
			return Tag{}, fmt.Errorf("read tag object: %w", err)
		}
		*h.to, raw = v, rest
	}
	if !isID(t.Object) {
		return Tag{}, fmt.Errorf("read tag object: object id %q", t.Object)
	}
	return t, nil
}

// CommitTree is the hexadecimal id of a raw commit object's root tree.
func CommitTree(raw []byte) (string, error) {
	tree, _, err := header(raw, "tree")
	if err != nil {
		return "", fmt.Errorf("read commit object: %w", err)
	}
	if !isID(tree) {
		return "", fmt.Errorf("read commit object: tree id %q", tree)
	}
	return tree, nil
}

func header(raw []byte, key string) (value string, rest []byte, err error) {
	line, rest, ok := bytes.Cut(raw, []byte("\n"))
	if !ok {
		return "", nil, errors.New("it ends too early")
	}
	v, ok := strings.CutPrefix(string(line), key+" ")
	if !ok {
		return "", nil, fmt.Errorf("no %q line where it belongs", key)
	}
	return v, rest, nil
}

func isID(s string) bool {
	if len(s) != 40 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
