package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/wheelwright-dev/wheelwright/integration/world"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// A distribution has its releases tried out first. The vendor sees which provider's overlay a release would
// break before anybody takes it; nothing is touched meanwhile, over a restart of the hub too; when the
// provider has mended it, the release is offered without waiting for the rest of the time.
func TestPreflight(t *testing.T) {
	s := tell(t, 2)
	_, err := s.hub.Must(s.ctx, "distribution", "add", "shop", "--git", s.vendor.Dir, "--interval", "1s", "--preflight", "1h")
	s.must(err)
	s.joinAll()
	s.must(s.spokes[1].Overlay("kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- "+shopURL+"//dist/app-kubernetes\n"))
	s.release("1.1.0", "Available")
	s.runs("1.1.0") // an hour has not passed: both have answered

	s.must(s.vendor.Replace("deployment.yaml", ":1.1.0", ":1.2.0"))
	s.must(s.vendor.Replace("base/frontend/hpa.yaml", "metadata:\n  name: frontend", "metadata:\n  name: web"))
	before := s.applied()
	s.release("1.2.0", "Available")
	breaking := map[string]string{names[0]: "Breaks", names[1]: "Changes"}
	s.answered("1.2.0", breaking)
	s.must(s.hub.AwaitRows(s.patiently(), "nobody to be called behind", func(r *fleetv1.StatusRow) error {
		if r.GetDesiredVersion() != "1.1.0" {
			return errorf("%s is desired", r.GetDesiredVersion())
		}
		return world.Runs("1.1.0")(r)
	}))
	s.says([]string{"release", "describe", "shop", "1.2.0"}, "in pre-flight", "breaks: ", "frontend", "changes: ", "1 of 2 clusters' overlays would break")
	s.says([]string{"status"}, "in pre-flight 1.2.0: 2 of 2 connected clusters answered, 1 would break")
	s.says([]string{"get", "events", names[0]}, "Preflight", "1.2.0: breaks: ")
	s.says([]string{"get", "distributions", "-o", "wide"}, "1h0m0s")

	s.must(s.hub.Kill())
	s.must(s.hub.Start(s.ctx))
	s.must(s.hub.AwaitRows(s.patiently(), "the spokes to be back", world.Runs("1.1.0")))
	s.answered("1.2.0", breaking)
	if after := s.applied(); after != before {
		t.Errorf("a pre-flight touched something:\n%s\nbefore:\n%s", after, before)
	}

	s.must(s.spokes[0].Overlay("hpa.yaml", "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: web\nspec:\n  minReplicas: 2\n"))
	s.runs("1.2.0")
	if got := s.kubectl(0, "-n", "shop", "get", "hpa", "web", "-o", "jsonpath={.spec.minReplicas}"); got != "2" {
		t.Errorf("the mended overlay sets the minimum to 2, the cluster has %s", got)
	}
}

// answered waits until every cluster has answered about a release as wanted.
func (s *story) answered(version string, want map[string]string) {
	s.t.Helper()
	s.must(world.Await(s.patiently(), "the answers about "+version, func(ctx context.Context) error {
		out, err := s.hub.Must(ctx, "release", "describe", "shop", version, "-o", "json")
		if err != nil {
			return err
		}
		r := &fleetv1.GetReleaseResponse{}
		if err := protojson.Unmarshal([]byte(out), r); err != nil {
			return err
		}
		if r.GetRelease().GetPreflightUntil() == nil || len(r.GetClusters()) != len(want) {
			return errorf("not in pre-flight, or not with %d clusters: %s", len(want), out)
		}
		for _, c := range r.GetClusters() {
			if got := c.GetPreflight().GetOutcome(); got != want[c.GetCluster()] {
				return fmt.Errorf("%s answered %q (%s), want %q", c.GetCluster(), got, c.GetPreflight().GetReason(), want[c.GetCluster()])
			}
		}
		return nil
	}))
}

// says checks what an operator's command shows.
func (s *story) says(args []string, words ...string) {
	s.t.Helper()
	r, err := s.hub.Run(s.ctx, args...)
	s.must(err)
	for _, w := range words {
		if !strings.Contains(r.Out, w) {
			s.t.Errorf("hub %s does not say %q:\n%s%s", strings.Join(args, " "), w, r.Out, r.Err)
		}
	}
}

// applied is what the spokes wrote on every cluster: which objects there are, and what the Deployments
// are to be.
func (s *story) applied() string {
	s.t.Helper()
	var all strings.Builder
	for i := range s.spokes {
		all.WriteString(s.kubectl(i, "-n", "shop", "get", "deployments,services,hpa,configmaps,secrets", "-o", "name") + "\n")
		all.WriteString(s.kubectl(i, "-n", "shop", "get", "deployments", "-o", `jsonpath={range .items[*]}{.metadata.uid} {.spec.template}{"\n"}{end}`) + "\n")
	}
	return all.String()
}
