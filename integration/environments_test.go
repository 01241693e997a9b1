package integration

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// A provider keeps dev, staging and production in one repository: dev and staging are branches, promoted by
// a fast-forward merge, production is a folder, promoted by copying. Each cluster follows its own place; a
// revert takes production back. The vendor's rollout offers the release to all of them meanwhile.
func TestProvidersEnvironments(t *testing.T) {
	s := tell(t, 3)
	s.watchShop()
	for _, version := range []string{"1.0.0", "1.1.0"} {
		s.release(version, "Available")
	}
	own := &world.Vendor{Dir: filepath.Join(s.dir, "provider")}
	base := func(ref string) string {
		return fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: shop\nresources:\n- %s//dist/app-kubernetes?ref=%s\n", shopURL, ref)
	}
	s.must(own.Write("app/kustomization.yaml", base("1.0.0")))
	s.must(own.Write("production/kustomization.yaml", base("1.0.0")))
	s.must(own.Init(s.ctx, "Install 1.0.0"))
	s.must(own.Git(s.ctx, "branch", "staging"))
	s.must(own.Git(s.ctx, "checkout", "-q", "-b", "dev"))
	for i, place := range []string{"revision: dev, path: app", "revision: staging, path: app", "revision: staging, path: production"} {
		sp := s.spokes[i]
		s.must(sp.Join(s.ctx, s.hub))
		s.must(sp.Configure(fmt.Sprintf("- distribution: shop\n  namespace: shop\n  source: [%s]\n  overlay: {git: %s, %s, interval: 1s}\n", shopURL, own.Dir, place)))
		s.must(sp.Start())
	}
	s.runs("1.0.0")

	s.must(own.Write("app/kustomization.yaml", base("1.1.0")))
	s.must(own.Commit(s.ctx, "dev takes 1.1.0"))
	s.runs("1.1.0", names[0])
	s.still("1.0.0", names[1], names[2])

	s.must(own.Git(s.ctx, "checkout", "-q", "staging"))
	s.must(own.Git(s.ctx, "merge", "-q", "--ff-only", "dev"))
	s.runs("1.1.0", names[1])
	s.still("1.0.0", names[2])

	s.must(own.Write("production/kustomization.yaml", base("1.1.0")))
	s.must(own.Commit(s.ctx, "production takes what staging has"))
	s.runs("1.1.0")

	s.must(own.Git(s.ctx, "revert", "--no-edit", "HEAD"))
	s.runs("1.0.0", names[2])
	s.still("1.1.0", names[0], names[1])
}
