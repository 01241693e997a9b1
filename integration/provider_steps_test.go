package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// A provider works as before, by commits to its own repository whose base names the vendor's at a tag:
// one installs, one upgrades, one takes a bad release (which goes back by itself), a revert returns.
func TestProvidersFourSteps(t *testing.T) {
	s := tell(t, 1)
	s.watchShop()
	for _, version := range []string{"1.1.0", "1.2.0", "1.4.0"} {
		switch version {
		case "1.2.0":
			s.must(s.vendor.Replace("backend/deployment.yaml", "/backend:", "/backend-1.2.0:"))
		case "1.4.0":
			s.must(s.vendor.Replace("database/deployment.yaml", "/database:", "/database-does-not-exist:"))
		}
		s.release(version, "Available")
	}
	own := &world.Vendor{Dir: filepath.Join(s.dir, "provider")}
	base := func(ref string) string {
		return fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: shop\nresources:\n- https://git.example.com/vendor/shop//dist/app-kubernetes?ref=%s\npatches:\n- path: hpa.yaml\n", ref)
	}
	s.must(own.Write("app/hpa.yaml", "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: frontend\nspec:\n  minReplicas: 3\n"))
	s.must(own.Write("app/kustomization.yaml", base("1.1.0")))
	s.must(own.Init(s.ctx, "Install 1.1.0"))

	sp := s.spokes[0]
	s.must(sp.Join(s.ctx, s.hub))
	s.must(sp.Configure(fmt.Sprintf("- distribution: shop\n  namespace: shop\n  source: [%s]\n  overlay: {git: %s, revision: main, path: app, interval: 1s}\n", shopURL, own.Dir)))
	s.must(sp.Start())
	s.runs("1.1.0")
	screen, err := s.hub.Must(s.ctx, "get", "pins")
	s.must(err)
	if !strings.Contains(screen, "1.1.0") || !strings.Contains(screen, "overlay") {
		t.Errorf("the overlay's ?ref= is a pin and should be listed as one:\n%s", screen)
	}

	step := func(ref string) {
		s.must(own.Write("app/kustomization.yaml", base(ref)))
		s.must(own.Commit(s.ctx, "Take "+ref))
	}
	step("1.2.0")
	s.runs("1.2.0")
	step("1.4.0")
	s.in("RolledBack", "1.2.0")
	s.must(own.Git(s.ctx, "revert", "--no-edit", "HEAD"))
	s.runs("1.2.0")
	if got := s.image(0, "backend"); got != "registry.example.com/shop/backend-1.2.0:1.1.0" {
		t.Errorf("after the revert backend runs %s", got)
	}
	if got := s.kubectl(0, "-n", "shop", "get", "hpa", "frontend", "-o", "jsonpath={.spec.minReplicas}"); got != "3" {
		t.Errorf("the provider's own HPA minimum is %s, want 3", got)
	}
}
