package render

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// Limits bound one rendering. What is beyond one of them is the source's fault, a *BuildError that names
// it. A zero means the default.
type Limits struct {
	Processor time.Duration // processor time; default 15 s
	Memory    int64         // bytes of the child's heap; default 1 GiB, or half of what the container may have where that is less
	Bytes     int64         // of release and overlay together, and of the manifest; default 64 MiB
	Files     int           // of release and overlay together; default 20,000
	Objects   int           // YAML documents that a build reads, counted as often as it reads them, and objects that come of it; default 20,000
	Depth     int           // of the lists and mappings of a YAML file, one in another; default 200
	Aliases   int           // YAML nodes that the aliases of one file stand for; default 50,000
	Bases     int           // of kustomizations, one over another; default 32
	Builds    int           // kustomizations that a build reads, counted as often as it reads them; default 5,000
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Processor: cmp.Or(l.Processor, 15*time.Second),
		Memory:    cmp.Or(l.Memory, childMemory(containerLimit())),
		Bytes:     cmp.Or(l.Bytes, 64<<20),
		Files:     cmp.Or(l.Files, 20_000),
		Objects:   cmp.Or(l.Objects, 20_000),
		Depth:     cmp.Or(l.Depth, 200),
		Aliases:   cmp.Or(l.Aliases, 50_000),
		Bases:     cmp.Or(l.Bases, 32),
		Builds:    cmp.Or(l.Builds, 5_000),
	}
}

const mostMemory = 1 << 30

// childMemory leaves the parent its half of a container: a container that runs out is ended whole, and
// what renders may be the vendor's bomb. limit 0: none.
func childMemory(limit int64) int64 {
	if limit <= 0 {
		return mostMemory
	}
	return min(mostMemory, limit/2)
}

// cgroupLimit reads what a control group's file says; 0: no limit.
func cgroupLimit(text []byte) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil { // "max"
		return 0
	}
	return n
}

// check is what can be said before the source goes to the child.
func (l Limits) check(src Source) error {
	var n int64
	for _, files := range [][]provenance.File{src.Bundle, src.Overlay} {
		for _, f := range files {
			n += int64(len(f.Path) + len(f.Data))
		}
	}
	var problems []string
	if n > l.Bytes {
		problems = append(problems, tooMuch(src, "release and overlay have %d bytes, more than the %d that are rendered", n, l.Bytes))
	}
	if files := len(src.Bundle) + len(src.Overlay); files > l.Files {
		problems = append(problems, tooMuch(src, "release and overlay have %d files, more than the %d that are rendered", files, l.Files))
	}
	if problems != nil {
		return &BuildError{problems}
	}
	return nil
}

// tooMuch says which source is beyond a limit, and what to do.
func tooMuch(src Source, format string, args ...any) string {
	return src.label() + ": " + fmt.Sprintf(format, args...) + "; split the release, or take out what makes it so large"
}

// label names the source for people.
func (src Source) label() string {
	text := cmp.Or(src.Name, "the release")
	if src.Version != "" {
		text += " " + src.Version
	}
	if src.Variant != "" {
		text += " " + src.Variant
	}
	if src.Overlay != nil {
		text += " with its overlay"
	}
	return text
}
