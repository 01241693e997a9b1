package integration

import (
	"fmt"
	"strings"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

func splitLines(s string) []string { return strings.Split(strings.TrimRight(s, "\n"), "\n") }

// respawn is the same provider's spoke with another, empty data folder.
func respawn(s *story, old *world.Spoke, dir string) *world.Spoke {
	s.t.Helper()
	again, err := world.NewSpokeIn(s.bin, old.Folder(), dir, old.Cluster, old.Kubeconfig)
	s.must(err)
	return again
}
