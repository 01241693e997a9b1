package integration

import (
	"context"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// With the hub away, a provider's cluster is looked after as before: what somebody deletes or changes by
// hand is put back; when the hub returns, it hears of it. Nobody is called healthy for being silent.
func TestHubAway(t *testing.T) {
	s := tell(t, 1)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")
	s.must(s.hub.Kill())

	pod := strings.Fields(s.kubectl(0, "-n", "shop", "get", "pods", "-l", "app=cache", "-o", "name"))[0]
	s.kubectl(0, "-n", "shop", "delete", pod, "--wait=true")
	s.kubectl(0, "-n", "shop", "delete", "service", "cache", "--wait=true")
	s.kubectl(0, "-n", "shop", "set", "image", "deployment/backend", "backend=registry.example.com/evil:1")
	s.must(world.Await(s.patiently(), "the service and the image to be put back", func(context.Context) error {
		services := s.kubectl(0, "-n", "shop", "get", "services", "-o", "name")
		if !strings.Contains(services, "service/cache") {
			return errorf("services: %s", services)
		}
		if got := s.image(0, "backend"); got != "registry.example.com/shop/backend:1.1.0" {
			return errorf("backend runs %s", got)
		}
		ready := s.kubectl(0, "-n", "shop", "get", "deployment", "cache", "-o", "jsonpath={.status.readyReplicas}")
		if ready != "1" {
			return errorf("cache has %q ready pods", ready)
		}
		return nil
	}))

	r, err := s.spokes[0].Run(s.ctx, "status")
	s.must(err)
	if r.Code != 0 || !strings.Contains(r.Out, "1.1.0") {
		t.Errorf("spoke status with the hub away: exit code %d\n%s%s", r.Code, r.Out, r.Err)
	}

	s.must(s.hub.Start(s.ctx))
	s.runs("1.1.0")
	s.must(world.Await(s.patiently(), "the report of the drift", func(context.Context) error {
		for _, e := range events(s) {
			if strings.Contains(e, "Drift") && strings.Contains(e, "cache") {
				return nil
			}
		}
		return errorf("no Drift event names the cache")
	}))

	s.must(s.spokes[0].Kill())
	s.must(world.Await(s.patiently(), "the silent spoke to be called stale", func(ctx context.Context) error {
		st, err := s.hub.Status(ctx)
		if err != nil {
			return err
		}
		if row := st.GetRows()[0]; !row.GetStale() || row.GetHealth() == "Healthy" {
			return errorf("row: %s, %s", row.GetPhase(), row.GetHealth())
		}
		return nil
	}))
}
