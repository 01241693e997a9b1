// Package buildinfo says which build this is. The linker sets version and commit; a build without
// them says "dev".
package buildinfo

import "runtime"

// Set by -ldflags "-X …/pkg/buildinfo.version=… -X …/pkg/buildinfo.commit=…".
var (
	version = "dev"
	commit  = "unknown"
)

// Version is the release that this binary was built as.
func Version() string { return version }

// Commit is the source commit, abbreviated.
func Commit() string { return commit }

// Go is the toolchain.
func Go() string { return runtime.Version() }
