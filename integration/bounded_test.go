package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// A provider who gives the spoke the rights of deploy/spoke-bounded and no others, and an envelope, gets releases
// installed, upgraded and pruned within both; what wants out is refused whole, and both sides' screens say why.
func TestBoundedSpoke(t *testing.T) {
	s := tell(t, 1)
	root, err := world.Root()
	s.must(err)
	bounds := filepath.Join(root, "deploy", "spoke-bounded")
	s.kubectl(0, "apply", "-k", bounds)
	t.Cleanup(func() {
		if _, err := s.spokes[0].Stop(); err != nil {
			t.Error(err)
		}
		if _, err := s.real[0].Kubectl("delete", "-k", bounds, "--ignore-not-found", "--wait=true", "--timeout=60s"); err != nil {
			t.Error(err)
		}
	})
	sp := s.spokes[0]
	sp.Kubeconfig = s.asPod(0)
	s.watchShop()
	s.must(sp.Join(s.ctx, s.hub))
	s.must(sp.Overlay("kustomization.yaml", fmt.Sprintf("resources:\n- %s//dist/app-kubernetes\npatches:\n- patch: '{apiVersion: v1, kind: Namespace, metadata: {name: shop}, $patch: delete}'\n", shopURL)))
	s.must(sp.Configure(followShop + "  serviceAccount: wheelwright/shop-release\n  envelope: {podSecurity: baseline, images: {registries: [registry.example.com/shop]}}\n"))
	s.must(sp.Start())
	s.release("1.1.0", "Available")
	s.runs("1.1.0")

	before, image := s.objects(0), "registry.example.com/shop/backend"
	s.must(s.vendor.Replace("base/backend/deployment.yaml", image, "registry.example.com/shopping/backend"))
	s.must(s.vendor.Replace("app-kubernetes/backend/config.env", "TIMEOUT=5s", "TIMEOUT=2s"))
	s.release("1.2.0", "Available")
	s.in("Refused", "1.1.0")
	screen, err := s.hub.Run(s.ctx, "status", "-o", "wide")
	s.must(err)
	provider, err := sp.Run(s.ctx, "diff", "shop", "1.2.0")
	s.must(err)
	const field = "Deployment shop/backend: spec.template.spec.containers[backend].image: it is not of a registry that is allowed"
	if !strings.Contains(screen.Out, "outside of the envelope: "+field) || strings.Contains(screen.Out, "shopping") {
		t.Errorf("hub status:\n%s", screen.Out)
	}
	if provider.Code != 2 || !strings.Contains(provider.Out, field) || !strings.Contains(provider.Out, "is registry.example.com/shopping/backend; allowed are registry.example.com/shop") {
		t.Errorf("spoke diff: exit code %d\n%s%s", provider.Code, provider.Out, provider.Err)
	}
	if r, err := sp.Run(s.ctx, "render", "shop", "1.2.0"); err != nil || r.Code != 1 || !strings.Contains(r.Err, "spoke: outside of the envelope: "+field) || !strings.Contains(r.Out, "shopping") {
		t.Errorf("spoke render: exit code %d, %v\n%s", r.Code, err, r.Err)
	}
	if after := s.objects(0); after != before {
		t.Errorf("a refused release touched objects:\nbefore\n%s\nafter\n%s", before, after)
	}

	s.must(s.vendor.Replace("base/backend/deployment.yaml", "registry.example.com/shopping/backend", image))
	s.must(s.vendor.Replace("base/backend/kustomization.yaml", "- hpa.yaml\n", ""))
	s.release("1.2.1", "Available")
	s.runs("1.2.1")
	if got := s.kubectl(0, "-n", "shop", "get", "hpa", "-o", "name"); got != "horizontalpodautoscaler.autoscaling/frontend" {
		t.Errorf("HPAs after the upgrade: %s; want the frontend's alone", got)
	}
}
