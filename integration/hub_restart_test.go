package integration

import "testing"

// The hub is killed and comes back: identities, releases and what it knows of the fleet are still
// there, spokes return by themselves, and a tag pushed meanwhile is carried out.
func TestRestartOfHub(t *testing.T) {
	s := tell(t, 2)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")

	s.must(s.hub.Kill())
	s.must(s.vendor.Replace("deployment.yaml", ":1.1.0", ":1.2.0"))
	s.must(s.vendor.Release(s.ctx, "1.2.0"))
	s.must(s.hub.Start(s.ctx))
	s.judged("1.2.0", "Available")
	s.judged("1.1.0", "Available")
	s.runs("1.2.0")

	code, err := s.hub.Stop()
	s.must(err)
	if code != 0 {
		t.Errorf("a hub told to stop ended with %d", code)
	}
	s.must(s.hub.Start(s.ctx))
	s.runs("1.2.0")

	// Killed between the tag and the end of the delivery.
	s.must(s.vendor.Replace("deployment.yaml", ":1.2.0", ":1.3.0"))
	s.must(s.vendor.Release(s.ctx, "1.3.0"))
	s.judged("1.3.0", "Available")
	s.must(s.hub.Kill())
	s.must(s.hub.Start(s.ctx))
	s.runs("1.3.0")
}
