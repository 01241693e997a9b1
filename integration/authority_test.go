package integration

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// The hub's authority gets a new key under a fleet that runs: nothing stops, nobody joins again, and who was away
// for the beginning is waited for. The hub is killed after each step.
func TestTheAuthorityIsRotatedUnderAFleet(t *testing.T) {
	s := tell(t, 2)
	s.must(s.hub.Configure("heartbeat: 1s\n")) // renewals are spread over some of them
	s.must(s.hub.Kill())
	s.must(s.hub.Start(s.ctx))
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")
	maria := filepath.Join(t.TempDir(), "maria.yaml")
	as := func(args ...string) world.Result {
		t.Helper()
		r, err := s.hub.Run(s.ctx, append(args, "--context", maria)...)
		s.must(err)
		return r
	}
	hub := func(args ...string) string {
		t.Helper()
		out, err := s.hub.Must(s.ctx, args...)
		s.must(err)
		return out
	}
	again := func() {
		t.Helper()
		s.must(s.hub.Kill())
		s.must(s.hub.Start(s.ctx))
	}
	hub("operator", "add", "maria", "--role", "viewer", "-o", maria)
	away := s.spokes[1]
	_, err := away.Stop()
	s.must(err)

	hub("authority", "rotate", "--reason", "it is time", "--yes")
	again()
	if r := as("status"); !strings.Contains(r.Err, "hub auth renew --context "+maria) {
		t.Errorf("a context file of before is not warned of: %q", r.Err)
	}
	if r := as("auth", "renew"); r.Code != 0 || !strings.Contains(r.Out, "2 keys") {
		t.Errorf("renew: %+v", r)
	}
	if r := as("status"); strings.Contains(r.Err, "warning") {
		t.Errorf("a renewed context file is warned of: %q", r.Err)
	}
	left := func(what string, want func(status string) bool) {
		t.Helper()
		s.must(world.Await(s.patiently(), what, func(ctx context.Context) error {
			out, err := s.hub.Must(ctx, "authority", "status")
			if err == nil && !want(out) {
				err = errorf("hub authority status: %s", out)
			}
			return err
		}))
	}
	left("the first spoke to go over by itself", func(status string) bool {
		return strings.Contains(status, "1 of 2 clusters and 2 of 2 operators") && strings.Contains(status, names[1]+": ")
	})
	if r, err := s.hub.Run(s.ctx, "authority", "retire", "--reason", "early", "--yes"); err != nil || r.Code != 1 || !strings.Contains(r.Err, names[1]) {
		t.Errorf("retired under a spoke that is away: %v, %+v", err, r)
	}
	s.must(away.Start())
	left("the second one too, once it is back", func(status string) bool { return strings.Contains(status, "2 of 2 clusters") })

	hub("authority", "retire", "--reason", "everybody follows", "--yes")
	s.must(s.vendor.Replace("deployment.yaml", ":1.1.0", ":1.2.0"))
	s.must(s.vendor.Release(s.ctx, "1.2.0"))
	s.runs("1.2.0")
	again()
	_, err = away.Stop()
	s.must(err)
	s.must(away.Start())
	s.must(s.vendor.Replace("deployment.yaml", ":1.2.0", ":1.3.0"))
	s.must(s.vendor.Release(s.ctx, "1.3.0"))
	s.runs("1.3.0")
	if out := hub("authority", "status"); strings.Contains(out, "follow") {
		t.Errorf("with one key again: %s", out)
	}
	if r := as("auth", "whoami"); r.Code != 0 || !strings.Contains(r.Err, "a key that the hub has retired") {
		t.Errorf("maria after it: %+v", r)
	}
}
