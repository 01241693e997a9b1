package integration

import (
	"fmt"
	"strings"
	"testing"
)

// A vendor tags 1.1.0 and every provider's cluster runs it with the provider's own customisation; a
// patch follows by itself; hub status says so.
func TestPublish(t *testing.T) {
	s := tell(t, 3)
	s.watchShop()
	s.joinAll()
	r := s.release("1.1.0", "Available")
	if len(r.GetVariants()) != 3 || !strings.HasPrefix(r.GetDigest(), "sha256:") {
		t.Errorf("release 1.1.0: %v; want three variants and a digest", r)
	}
	s.runs("1.1.0")
	for i := range s.spokes {
		if got := s.image(i, "frontend"); got != "registry.example.com/shop/frontend:1.1.0" {
			t.Errorf("%s runs %s", names[i], got)
		}
		if got := s.kubectl(i, "-n", "shop", "get", "hpa", "frontend", "-o", "jsonpath={.spec.minReplicas}"); got != fmt.Sprint(2+i) {
			t.Errorf("%s: HPA minimum %s, want the provider's own %d", names[i], got, 2+i)
		}
	}

	s.must(s.vendor.Replace("deployment.yaml", ":1.1.0", ":1.1.1"))
	s.release("1.1.1", "Available")
	s.runs("1.1.1")
	if got := s.image(2, "database"); got != "registry.example.com/shop/database:1.1.1" {
		t.Errorf("after the patch %s runs %s", names[2], got)
	}

	screen, err := s.hub.Run(s.ctx, "status")
	s.must(err)
	if screen.Code != 0 || strings.Count(screen.Out, "Succeeded") != 3 || !strings.Contains(screen.Out, "3 of 3 clusters up to date") {
		t.Errorf("hub status: exit code %d\n%s", screen.Code, screen.Out)
	}
}
