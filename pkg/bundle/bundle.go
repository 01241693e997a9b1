// Package bundle writes and reads a release's content as one canonical tar, so that equal content has
// equal bytes and one digest on every machine.
//
// The tar is POSIX ustar, entries sorted by name, mtime and owner 0, modes 0644 and 0755, regular files
// only, ended by exactly two zero blocks:
//
//	files/PATH              each file below the distribution's path
//	provenance/commit       the raw commit object
//	provenance/release      three lines: the format's name and number, the path, the tag's name
//	provenance/tag          the raw tag object; left out for a lightweight tag
//	provenance/tag-000 …    the raw tag objects of further signers, if any
//	provenance/tree-000 …   the raw tree objects, the root's first, down to the path
//
// A name of more than 100 bytes, or not ASCII, has a PAX header in front that holds its path. The headers
// are written here and not by archive/tar, whose choices may change from one Go release to the next, and
// with them every digest.
//
// For storage and the wire a tar is compressed, or is made of an earlier one and a delta; neither has a part in its
// digest, and whoever has unpacked one checks that.
//
// The package does not check the proof (package provenance does) and stores nothing.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

const (
	filesDir    = "files/"
	commitName  = "provenance/commit"
	releaseName = "provenance/release"
	tagName     = "provenance/tag"
	tagPrefix   = "provenance/tag-"
	treePrefix  = "provenance/tree-"

	release    = "wheelwright-bundle 1\npath %s\ntag %s\n"
	maxDepth   = 64   // folders from the repository's root to the distribution's path
	maxPath    = 4096 // bytes of a path, as Linux has it
	maxTagName = 250
)

// ErrInvalid: the bytes are not a canonical bundle.
var ErrInvalid = errors.New("not a canonical bundle")

// Bundle is an opened bundle. Its content shares memory with the tar: read only.
type Bundle struct {
	files  []provenance.File
	proof  provenance.Proof
	digest fleet.Digest
}

// Files are sorted by path.
func (b *Bundle) Files() []provenance.File { return b.files }

// Proof is as packed; it is not checked.
func (b *Bundle) Proof() provenance.Proof { return b.proof }

// Digest is of the canonical tar.
func (b *Bundle) Digest() fleet.Digest { return b.digest }

// DigestOf is the sha256 of a canonical tar.
func DigestOf(tar []byte) fleet.Digest {
	sum := sha256.Sum256(tar)
	return fleet.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

type entry struct {
	name       string
	executable bool
	data       []byte
}

// check holds for what Pack writes and what Open accepts. The files are sorted by path.
func check(files []provenance.File, proof provenance.Proof) error {
	for i, f := range files {
		if err := provenance.CheckPath(f.Path); err != nil {
			return err
		}
		if len(f.Path) > maxPath {
			return fmt.Errorf("path of %d bytes, at most %d are allowed: %q…", len(f.Path), maxPath, f.Path[:80])
		}
		known := 0 // bytes that it begins with as the one before, whose folders were looked for
		if i > 0 {
			before := files[i-1].Path
			if before == f.Path {
				return fmt.Errorf("%q is there twice", f.Path)
			}
			for known < len(before) && before[known] == f.Path[known] {
				known++
			}
		}
		for at := known; at < len(f.Path); at++ {
			if f.Path[at] != '/' {
				continue
			}
			if _, isFile := slices.BinarySearchFunc(files[:i], f.Path[:at], byPath); isFile {
				return fmt.Errorf("%q is a file and a folder", f.Path[:at])
			}
		}
	}
	return checkProof(proof)
}

func byPath(f provenance.File, path string) int { return strings.Compare(f.Path, path) }

func checkProof(p provenance.Proof) error {
	parts, err := provenance.Components(p.Path)
	switch {
	case err != nil:
		return fmt.Errorf("distribution's path: %w", err)
	case len(p.Path) > maxPath || len(parts) > maxDepth:
		return fmt.Errorf("distribution's path is longer than %d bytes or %d folders", maxPath, maxDepth)
	case len(p.Trees) != len(parts)+1:
		return fmt.Errorf("%d tree objects for path %q, want %d", len(p.Trees), p.Path, len(parts)+1)
	case len(p.Commit) == 0:
		return errors.New("no commit object")
	case p.Tag != nil && len(p.Tag) == 0:
		return errors.New("the tag object is empty")
	case len(p.Cosigned) > provenance.MaxCosigned || (p.Tag == nil && len(p.Cosigned) > 0):
		return fmt.Errorf("%d further tag objects, at most %d are allowed, beside a tag object", len(p.Cosigned), provenance.MaxCosigned)
	case slices.ContainsFunc(p.Cosigned, func(t []byte) bool { return len(t) == 0 }):
		return errors.New("a further tag object is empty")
	case p.TagName == "" || len(p.TagName) > maxTagName || !utf8.ValidString(p.TagName) || strings.ContainsFunc(p.TagName, isControl):
		return fmt.Errorf("tag name %q is empty, too long or holds control characters", p.TagName)
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// Open reads a bundle and accepts only what Pack would have written, byte for byte.
func Open(tar []byte) (*Bundle, error) {
	b := &Bundle{digest: DigestOf(tar)}
	rest, last, sawRelease := tar, "", []byte(nil)
	for {
		e, after, err := readEntry(rest)
		if err != nil {
			return nil, fmt.Errorf("open bundle: %w at byte %d: %w", ErrInvalid, len(tar)-len(rest), err)
		}
		if e == nil {
			break
		}
		if e.name <= last {
			return nil, fmt.Errorf("open bundle: %w: %q after %q", ErrInvalid, e.name, last)
		}
		rest, last = after, e.name
		if e.name == releaseName {
			sawRelease = e.data
			continue
		}
		if err := b.take(*e); err != nil {
			return nil, fmt.Errorf("open bundle: %w: %w", ErrInvalid, err)
		}
	}
	if err := b.readRelease(sawRelease); err != nil {
		return nil, fmt.Errorf("open bundle: %w: %w", ErrInvalid, err)
	}
	if err := check(b.files, b.proof); err != nil {
		return nil, fmt.Errorf("open bundle: %w: %w", ErrInvalid, err)
	}
	return b, nil
}

func (b *Bundle) take(e entry) error {
	if path, ok := strings.CutPrefix(e.name, filesDir); ok {
		b.files = append(b.files, provenance.File{Path: path, Executable: e.executable, Data: e.data})
		return nil
	}
	switch {
	case e.executable:
		return fmt.Errorf("%q is executable", e.name)
	case e.name == commitName:
		b.proof.Commit = e.data
	case e.name == tagName:
		b.proof.Tag = e.data
	case e.name == numbered(tagPrefix, len(b.proof.Cosigned)):
		b.proof.Cosigned = append(b.proof.Cosigned, e.data)
	case e.name == numbered(treePrefix, len(b.proof.Trees)):
		b.proof.Trees = append(b.proof.Trees, e.data)
	default:
		return fmt.Errorf("%q does not belong", e.name)
	}
	return nil
}

func (b *Bundle) readRelease(data []byte) error {
	lines := strings.Split(string(data), "\n")
	if len(lines) != 4 {
		return fmt.Errorf("no %q, or not of this format", releaseName)
	}
	b.proof.Path, _ = strings.CutPrefix(lines[1], "path ")
	b.proof.TagName, _ = strings.CutPrefix(lines[2], "tag ")
	if !bytes.Equal(data, fmt.Appendf(nil, release, b.proof.Path, b.proof.TagName)) {
		return fmt.Errorf("%q is not of this format; a newer hub may have written it", releaseName)
	}
	return nil
}
