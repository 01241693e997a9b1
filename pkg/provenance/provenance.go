// Package provenance links the files of a release to the git objects that its vendor tagged, and those to
// the keys that signed them: files to a tree, trees to a commit, the commit to a tag, the tag to its
// signers. It works on raw object contents, with its own strict readers of them, recomputes every object
// id with a collision-detecting SHA-1, and knows no git library.
//
// Proof.Check says which tag object the files belong to, Verify says in addition who signed it. What a
// signature and a key are is package signer's business. Neither knows whether a release may be installed.
package provenance

import (
	"encoding/hex"
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

	// Cosigned are further annotated tag objects of the same name for the same commit, by other signers: a
	// tag object carries one signature, so that two of three keys are two tag objects. A vendor keeps them
	// beside the tag, made by git alone: git tag -s 1.4.0 COMMIT, then push
	// refs/tags/1.4.0:refs/signatures/1.4.0/NAME.
	Cosigned [][]byte
}

// MaxCosigned bounds the tag objects beside the first one.
const MaxCosigned = 15

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
	if _, err := p.tags(&c); err != nil {
		return Claim{}, fmt.Errorf("check provenance of %s: %w", p.TagName, err)
	}
	return c, nil
}

// tags reads the tag objects, which must all be of this name and commit.
func (p Proof) tags(c *Claim) ([]Tag, error) {
	if p.Tag == nil && len(p.Cosigned) > 0 || len(p.Cosigned) > MaxCosigned {
		return nil, fmt.Errorf("%d further tag objects, want at most %d, and none without the tag itself", len(p.Cosigned), MaxCosigned)
	}
	if p.Tag == nil {
		return nil, nil
	}
	var tags []Tag
	for i, raw := range append([][]byte{p.Tag}, p.Cosigned...) {
		t, err := ParseTag(raw)
		if err != nil {
			return nil, err
		}
		switch {
		case t.Kind != "commit":
			return nil, fmt.Errorf("the tag names a %s, want a commit", t.Kind)
		case t.Object != c.Commit:
			return nil, fmt.Errorf("the tag names commit %s, the proof holds %s", t.Object, c.Commit)
		case t.Name != p.TagName:
			return nil, fmt.Errorf("the tag object is of %q, not of %q", t.Name, p.TagName)
		}
		id, err := ObjectID("tag", raw)
		if err != nil {
			return nil, err
		}
		t.id = hex.EncodeToString(id[:])
		if i == 0 {
			c.TagObject = t.id
		}
		tags = append(tags, t)
	}
	return tags, nil
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
		entries, err := ParseTree(raw)
		if err != nil {
			return err
		}
		if i == len(names) {
			return checkLast(entries, p.Path, want, tree)
		}
		if want, err = subtree(entries, names[i], p.Path); err != nil {
			return err
		}
	}
	return nil
}

// checkLast compares the distribution's own tree with the files'. A symlink or submodule makes them
// different in any case: no files have such a tree. It is said by name.
func checkLast(entries []Entry, path, want, tree string) error {
	for _, e := range entries {
		if e.Mode == ModeSymlink || e.Mode == ModeSubmodule {
			return refused(e, path)
		}
	}
	if want != tree {
		return fmt.Errorf("the files have tree id %s, the tagged commit has %s at %q", tree, want, path)
	}
	return nil
}

func refused(e Entry, path string) error {
	if e.Mode == ModeSymlink {
		return fmt.Errorf("%q in %q is a symlink; commit the file itself", e.Name, path)
	}
	return fmt.Errorf("%q in %q is a submodule; commit its files", e.Name, path)
}

func subtree(entries []Entry, name, path string) (string, error) {
	for _, e := range entries {
		if e.Name != name {
			continue
		}
		switch e.Mode {
		case ModeDir:
			return hex.EncodeToString(e.ID[:]), nil
		case ModeSymlink, ModeSubmodule:
			return "", refused(e, path)
		}
		return "", fmt.Errorf("%q in %q is a file, want a folder", name, path)
	}
	return "", fmt.Errorf("no folder %q in its tree, want the path %q", name, path)
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
