package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

const keptSchema = 1

// kept is the last good overlay on disk, and where it came from.
type kept struct {
	Schema   int
	Git      string
	Ref      string
	Folder   string
	Path     string
	Digest   fleet.Digest
	Revision string
	Files    []provenance.File
}

func keptFile(dir string) string { return filepath.Join(dir, "last.json") }

// keep replaces the copy in one step.
func keep(dir string, src Source, o Overlay) error {
	data, err := json.Marshal(kept{keptSchema, src.Git, src.Revision, src.Path, o.Path, o.Digest, o.Revision, o.Files})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return wholefile.Write(keptFile(dir), ".last-*", data) // for its owner alone: an overlay may hold secrets
}

// readKept returns nil where there is no copy of this source.
func readKept(dir string, src Source) (*Overlay, error) {
	data, err := os.ReadFile(keptFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, err
	}
	if k.Schema != keptSchema {
		return nil, fmt.Errorf("schema %d, this program knows %d", k.Schema, keptSchema)
	}
	if k.Git != src.Git || k.Ref != src.Revision || k.Folder != src.Path {
		return nil, nil
	}
	o := Overlay{Files: k.Files, Path: k.Path, Revision: k.Revision}
	if o.Digest = digest(o); o.Digest != k.Digest {
		return nil, errors.New("its digest does not match")
	}
	return &o, nil
}
