package integration

import (
	"context"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// A tag that uses latest, does not build, or is no version is rejected with reasons and reaches nobody;
// a moved tag changes nothing.
func TestReject(t *testing.T) {
	s := tell(t, 1)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")

	s.must(s.vendor.Replace("cache/deployment.yaml", "cache:1.1.0", "cache:latest"))
	latest := s.release("1.2.0", "Rejected")
	reasons := ""
	for _, v := range latest.GetVariants() {
		reasons += strings.Join(v.GetReasons(), "\n")
	}
	if !strings.Contains(reasons, "cache") || !strings.Contains(reasons, "latest") {
		t.Errorf("reasons %q: want the object and the image named", reasons)
	}
	s.must(s.vendor.Replace("cache/deployment.yaml", "cache:latest", "cache:1.1.0"))

	s.must(s.vendor.Write("dist/app-istio/kustomization.yaml", "resources: [nowhere.yaml]\n"))
	broken := s.release("1.2.1", "Rejected")
	for _, v := range broken.GetVariants() {
		if bad := len(v.GetReasons()) > 0; bad != (v.GetName() == "app-istio") {
			t.Errorf("variant %s: reasons %v; want them for app-istio alone", v.GetName(), v.GetReasons())
		}
	}
	s.must(s.vendor.Git(s.ctx, "checkout", "-q", "1.1.0", "--", "dist"))

	s.must(s.vendor.Release(s.ctx, "nightly"))
	s.must(s.vendor.Git(s.ctx, "tag", "-f", "-a", "1.1.0", "-m", "moved"))
	s.must(world.Await(s.patiently(), "the moved tag to be noticed", func(ctx context.Context) error {
		out, err := s.hub.Must(ctx, "get", "events")
		if err == nil && !strings.Contains(out, "TagMoved") {
			err = errorf("no TagMoved in\n%s", out)
		}
		return err
	}))
	out, err := s.hub.Must(s.ctx, "get", "distributions", "-o", "wide")
	s.must(err)
	if !strings.Contains(out, "nightly") {
		t.Errorf("a tag that is no version is not mentioned:\n%s", out)
	}

	s.runs("1.1.0")
	screen, err := s.hub.Run(s.ctx, "status")
	s.must(err)
	if !strings.Contains(screen.Out, "rejected 1.2.0") || !strings.Contains(screen.Out, "rejected 1.2.1") {
		t.Errorf("hub status does not show what was rejected:\n%s", screen.Out)
	}
	for _, e := range events(s) {
		if strings.Contains(e, names[0]) && (strings.Contains(e, "1.2.0") || strings.Contains(e, "1.2.1")) {
			t.Errorf("a rejected release reached a cluster: %s", e)
		}
	}
}
