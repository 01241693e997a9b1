package integration

import (
	"strings"
	"testing"
)

// An upgrade changes what the release changes and nothing else; a tag with the same content is taken
// without touching an object; an overlay that breaks is named and the old release runs on.
func TestUpgrade(t *testing.T) {
	s := tell(t, 1)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")
	// The template, not the generation: an autoscaler may set replicas at any moment.
	const all = `jsonpath={range .items[*]}{.metadata.name} {.spec.template}{"\n"}{end}`
	before := s.kubectl(0, "-n", "shop", "get", "deployments", "-o", all)

	s.release("1.1.1", "Available")
	s.runs("1.1.1")
	if after := s.kubectl(0, "-n", "shop", "get", "deployments", "-o", all); after != before {
		t.Errorf("the same content under another tag changed objects:\n%s\n%s", before, after)
	}

	s.must(s.vendor.Replace("app-kubernetes/backend/config.env", "TIMEOUT=5s", "TIMEOUT=2s"))
	s.release("1.2.0", "Available")
	s.runs("1.2.0")
	after := s.kubectl(0, "-n", "shop", "get", "deployments", "-o", all)
	for i, line := range strings.Split(after, "\n") {
		changed := line != strings.Split(before, "\n")[i]
		if changed != strings.HasPrefix(line, "backend ") {
			t.Errorf("backend's configuration changed; %q was %q", line, strings.Split(before, "\n")[i])
		}
	}

	s.must(s.spokes[0].Overlay("hpa.yaml", "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: gone\nspec:\n  minReplicas: 2\n"))
	s.in("AwaitingConfig", "1.2.0")
	screen, err := s.hub.Run(s.ctx, "status", "-o", "wide")
	s.must(err)
	if screen.Code != 1 || !strings.Contains(screen.Out, "gone") {
		t.Errorf("hub status of a broken overlay: exit code %d, want 1 and the patch's target named\n%s", screen.Code, screen.Out)
	}
	s.must(s.customise(s.spokes[0], 2))
	s.runs("1.2.0")
	if got := s.kubectl(0, "-n", "shop", "get", "hpa", "frontend", "-o", "jsonpath={.spec.minReplicas}"); got != "4" {
		t.Errorf("the mended overlay sets the HPA's minimum to 4, the cluster has %s", got)
	}
}
