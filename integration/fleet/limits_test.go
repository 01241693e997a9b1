package fleet_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
	"github.com/wheelwright-dev/wheelwright/integration/world"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
)

// A hub that may open 1,024 files serves as many spokes as it has files for, turns away the others by name, and takes
// them once there is room.
func TestMoreSpokesThanFiles(t *testing.T) {
	const files, all, least, most = 1024, 1100, 700, 768 - 16 // of which some are kept from spokes
	s := setUp(t, all, stageOptions{content: 1 << 10, files: files}, "shop")
	s.release("1.0.0")
	s.stored("1.0.0")
	s.must(s.fleet.Connect(s.ctx, 0, all))
	s.running("1.0.0", least)
	s.must(world.Await(s.patiently(), "somebody to be turned away", func(context.Context) error {
		log, err := os.ReadFile(s.hub.Log)
		if err == nil && !(strings.Contains(string(log), "may open no more files") && strings.Contains(string(log), "ulimit -n")) {
			err = fmt.Errorf("the log does not say why and what to do:\n%s", world.Tail(s.hub.Log, 5))
		}
		return err
	}))
	if c := s.count(); c.Connected > most {
		t.Errorf("%d spokes are connected to a hub that may open %d files", c.Connected, files)
	}
	// What it has files for goes on: a release is fetched from the vendor's repository, stored, and taken; and operators
	// come in.
	s.release("1.1.0")
	s.stored("1.1.0")
	s.running("1.1.0", least)
	if c := s.count(); c.Connected > most {
		t.Errorf("%d spokes are connected to a hub that may open %d files", c.Connected, files)
	}
	s.must(s.fleet.Disconnect(s.ctx))
	s.must(s.fleet.Connect(s.ctx, most, all))
	s.await(spokes.Goal{State: spokes.Connected, Spokes: all - most})
}

// A bundle of the largest size goes to those who take it and to those who ask for it and read nothing, from the disk,
// and none of it stays in memory.
func TestTheLargestBundleIsServedInBoundedMemory(t *testing.T) {
	const takers, hoarders = 3, 30
	const content = bundle.MaxSize * 3 / 4 * 97 / 100 // as base64
	s := setUp(t, takers+hoarders, stageOptions{content: content}, "shop")
	s.release("1.0.0")
	s.stored("1.0.0")
	before := live(s.ctx, t, s.hub.Debug)
	s.connect(takers)
	s.running("1.0.0", takers)
	s.must(s.fleet.Attack(s.ctx, takers, takers+hoarders, spokes.Hoarder))
	s.busy(s.fleet, hoarders)
	each := (live(s.ctx, t, s.hub.Debug) - before) / (takers + hoarders)
	if c := s.count(); c.Bundles < takers*content {
		t.Errorf("%d bytes of bundles were sent", c.Bundles)
	}
	// A connection has 63 streams, each of which may hold a window of 64 KiB.
	if most := 63.0 * 64 * (1 << 10); each > most {
		t.Errorf("each of %d that ask for a bundle of %d MB costs the hub %.0f KB, at most %.0f are expected", takers+hoarders, content>>20, each/(1<<10), most/(1<<10))
	}
	t.Logf("%.0f KB each", each/(1<<10))
}

// limited is a program that may open so many files.
func limited(t testing.TB, program string, files int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hub")
	must(t, os.WriteFile(file, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec '%s' \"$@\"\n", files, program), 0o755))
	return file
}
