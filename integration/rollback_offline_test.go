package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// With the hub killed and the vendor's repository gone, a provider goes back to the release before, by one
// command: it is the spoke's own memory that it goes back by. The release that was left stays away until
// the provider takes it up again, and when the hub returns it hears all of it, in order.
func TestRollBackOffline(t *testing.T) {
	s := tell(t, 3)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")
	s.must(s.vendor.Replace("deployment.yaml", ":1.1.0", ":1.2.0"))
	s.must(s.vendor.Replace("app-kubernetes/backend/config.env", "TIMEOUT=5s", "TIMEOUT=2s"))
	s.release("1.2.0", "Available")
	s.runs("1.2.0")

	s.must(s.hub.Kill())
	s.must(os.Rename(s.vendor.Dir, s.vendor.Dir+".gone"))

	sp := s.spokes[0]
	plan, err := sp.Run(s.ctx, "rollback", "shop", "--dry-run")
	s.must(err)
	if plan.Code != 0 || !strings.Contains(plan.Out+plan.Err, "1.1.0") {
		t.Errorf("spoke rollback --dry-run: exit code %d\n%s%s", plan.Code, plan.Out, plan.Err)
	}
	if asked, err := sp.Run(s.ctx, "rollback", "shop"); err != nil || asked.Code != 2 || !strings.Contains(asked.Err, "--yes") {
		t.Errorf("without a terminal and --yes: exit code %d, %v\n%s", asked.Code, err, asked.Err)
	}
	if wrong, err := sp.Run(s.ctx, "rollback", "shop", "--to", "0.9.0", "--yes"); err != nil || wrong.Code == 0 || !strings.Contains(wrong.Err, "1.1.0") {
		t.Errorf("to a release that never ran: exit code %d, %v\n%s", wrong.Code, err, wrong.Err)
	}

	var took []time.Duration
	for i, sp := range s.spokes {
		begin := time.Now()
		r, err := sp.Run(s.ctx, "rollback", "shop", "--yes", "--reason", "latency", "--timeout", "60s")
		s.must(err)
		took = append(took, time.Since(begin))
		if r.Code != 0 {
			t.Fatalf("%s: spoke rollback: exit code %d\n%s%s", sp.Cluster, r.Code, r.Out, r.Err)
		}
		for _, d := range []string{"frontend", "backend", "cache", "database"} {
			if got := s.image(i, d); got != "registry.example.com/shop/"+d+":1.1.0" {
				t.Errorf("%s: %s runs %s after the rollback", sp.Cluster, d, got)
			}
		}
		if got := s.kubectl(i, "-n", "shop", "get", "configmaps", "-o", "name"); strings.Count(got, "configmap/backend-") != 1 {
			t.Errorf("%s: the configuration of the release that was left is still there:\n%s", sp.Cluster, got)
		}
	}
	slices.Sort(took)
	fmt.Printf("FIGURE rollback.offline-median %.2f s of %d, hub and git gone, from the command to RolledBack verified\n", took[len(took)/2].Seconds(), len(took))

	// A restart does not take it up again, and neither does the hub.
	s.must(sp.Kill())
	s.must(sp.Start())
	s.must(os.Rename(s.vendor.Dir+".gone", s.vendor.Dir))
	s.must(s.hub.Start(s.ctx))
	s.in("RolledBack", "1.1.0")
	var seen []string
	for _, e := range events(s) {
		if strings.Contains(e, names[0]) && (strings.Contains(e, "going back from 1.2.0") || strings.Contains(e, "1.1.0 runs again")) {
			seen = append(seen, e)
		}
	}
	if len(seen) != 2 || !strings.Contains(seen[0], "going back") {
		t.Errorf("the hub did not hear of the rollback in order: %q", seen)
	}

	// A person clears it.
	r, err := sp.Run(s.ctx, "approve", "shop", "1.2.0")
	s.must(err)
	if r.Code != 0 {
		t.Errorf("spoke approve: exit code %d\n%s%s", r.Code, r.Out, r.Err)
	}
	s.runs("1.2.0", names[0])
	s.in("RolledBack", "1.1.0", names[1], names[2])
	// And so does a newer release.
	s.must(s.vendor.Replace("deployment.yaml", ":1.2.0", ":1.2.1"))
	s.release("1.2.1", "Available")
	s.runs("1.2.1")
}
