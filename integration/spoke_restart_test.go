package integration

import (
	"context"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// A spoke is killed in the middle of an upgrade, in every phase that the hub sees it in, and comes back:
// the cluster ends wholly on the new release; killed on the way back from a bad one, wholly on the old.
func TestRestartOfSpoke(t *testing.T) {
	s := tell(t, 1)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")
	sp := s.spokes[0]

	good := "1.1.0"
	for _, c := range []struct{ phase, version string }{
		{"Fetching", "1.2.0"}, {"Checking", "1.2.1"}, {"Promoting", "1.2.2"}, {"Settling", "1.2.3"},
	} {
		s.must(s.vendor.Replace("deployment.yaml", ":"+good, ":"+c.version))
		s.must(s.vendor.Release(s.ctx, c.version))
		s.must(killIn(s, c.phase, c.version))
		s.must(sp.Start())
		s.runs(c.version)
		for _, d := range []string{"frontend", "backend", "cache", "database"} {
			if got := s.image(0, d); got != "registry.example.com/shop/"+d+":"+c.version {
				t.Errorf("killed around %s of %s: %s runs %s", c.phase, c.version, d, got)
			}
		}
		good = c.version
	}

	s.must(s.vendor.Replace("database/deployment.yaml", "database:"+good, "database-does-not-exist:"+good))
	s.must(s.vendor.Replace("deployment.yaml", ":"+good, ":1.3.0"))
	s.must(s.vendor.Release(s.ctx, "1.3.0"))
	s.must(killIn(s, "RollingBack", "1.3.0"))
	s.must(sp.Start())
	s.in("RolledBack", good)
	for _, d := range []string{"frontend", "backend", "cache", "database"} {
		if got := s.image(0, d); got != "registry.example.com/shop/"+d+":"+good {
			t.Errorf("killed while rolling back: %s runs %s", d, got)
		}
	}
}

// killIn kills the spoke as soon as the hub shows the phase, or any later one, of the delivery.
func killIn(s *story, phase, version string) error {
	err := s.hub.AwaitRows(s.patiently(), phase+" of "+version, func(r *fleetv1.StatusRow) error {
		if r.GetTargetVersion() != version {
			return errorf("target is %q", r.GetTargetVersion())
		}
		if order[r.GetRawPhase()] < order[phase] {
			return errorf("phase is %s", r.GetRawPhase())
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.spokes[0].Kill()
}

var order = map[string]int{"Fetching": 1, "Verifying": 2, "Rendering": 3, "Checking": 4, "Promoting": 5, "Settling": 6, "RollingBack": 7, "Succeeded": 8, "RolledBack": 8}

// events is every line of `hub get events`.
func events(s *story) []string {
	s.t.Helper()
	var lines []string
	s.must(world.Await(s.patiently(), "events", func(ctx context.Context) error {
		out, err := s.hub.Must(ctx, "get", "events", "--no-headers")
		lines = splitLines(out)
		return err
	}))
	return lines
}
