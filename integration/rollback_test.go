package integration

import (
	"strings"
	"testing"
)

// A release whose pods never become ready ends, on every cluster, with the previous one running whole;
// hub status says why; it is not tried again; the next release is.
func TestRollBack(t *testing.T) {
	s := tell(t, 3)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")

	s.must(s.vendor.Replace("deployment.yaml", ":1.1.0", ":1.2.0"))
	s.must(s.vendor.Replace("database/deployment.yaml", "database:1.2.0", "database-does-not-exist:1.2.0"))
	s.must(s.vendor.Replace("app-kubernetes/backend/config.env", "TIMEOUT=5s", "TIMEOUT=2s"))
	s.release("1.2.0", "Available")
	s.in("RolledBack", "1.1.0")
	for i := range s.spokes {
		for _, d := range []string{"frontend", "backend", "cache", "database"} {
			if got := s.image(i, d); got != "registry.example.com/shop/"+d+":1.1.0" {
				t.Errorf("%s: %s runs %s after the rollback", names[i], d, got)
			}
		}
		if got := s.kubectl(i, "-n", "shop", "get", "configmaps", "-o", "name"); strings.Count(got, "configmap/backend-") != 1 {
			t.Errorf("%s: the failed release's configuration was left behind:\n%s", names[i], got)
		}
	}
	screen, err := s.hub.Run(s.ctx, "status")
	s.must(err)
	if screen.Code != 1 || !strings.Contains(screen.Out, "database") || !strings.Contains(screen.Out, "ImagePullBackOff") {
		t.Errorf("hub status after the rollback: exit code %d, want 1 and the reason\n%s", screen.Code, screen.Out)
	}

	s.must(s.vendor.Replace("database/deployment.yaml", "database-does-not-exist:1.2.0", "database:1.2.0"))
	s.release("1.2.1", "Available")
	s.runs("1.2.1")
	tried := 0
	for _, e := range events(s) {
		if strings.Contains(e, names[0]) && strings.Contains(e, "going back to 1.1.0") {
			tried++
		}
	}
	if tried != 1 {
		t.Errorf("%s rolled back %d times, want once: a failed release is held", names[0], tried)
	}
}
