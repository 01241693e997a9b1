package apply_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func job(name, image, extra string) string {
	return "apiVersion: batch/v1\nkind: Job\nmetadata: {name: " + name + "}\nspec:\n  backoffLimit: 0\n" + extra +
		"  template:\n    spec: {restartPolicy: Never, containers: [{name: main, image: \"" + image + "\"}]}\n"
}

// A release with a Job is there when the Job has finished, not when it was started.
func TestAJobHasToFinish(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1.0.0", objects(t, job("good", "tool:1", ""), job("paused", "tool:1", "  suspend: true\n"))))
	b.healthy(t, inv)

	inv = b.install(t, setOf(ns, "1.0.1", objects(t, job("stuck", "does-not-exist:1", ""))))
	b.Eventually(t, "a Job that has not finished", func() error {
		report, err := b.hand.Health(t.Context(), inv, nil)
		if err != nil || report.Health != fleet.InProgress || !strings.Contains(report.Message, "ImagePullBackOff") {
			return fmt.Errorf("%+v, %v", report, err)
		}
		return nil
	})
}

// A finished Job that the cluster removed after its time to live is neither missing nor run again.
func TestAJobIsNotRunAgainAfterItsTimeToLive(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	set := setOf(ns, "1.0.0", objects(t, configMap("a", "1"), job("migrate", "tool:1", "  ttlSecondsAfterFinished: 0\n")))
	inv := b.install(t, set)
	b.gone(t, "-n", ns, "get", "jobs", "-o", "name")
	b.healthy(t, inv)
	inv, drifted, err := b.hand.Drift(ctx, set, inv, true)
	if err != nil || len(drifted) != 0 {
		t.Fatalf("drift: %v, %v", drifted, err)
	}
	next := setOf(ns, "1.1.0", objects(t, configMap("a", "2"), job("migrate", "tool:1", "  ttlSecondsAfterFinished: 0\n")))
	if _, change, err := b.hand.Apply(ctx, next, inv); err != nil || len(change.Created) != 0 {
		t.Fatalf("an upgrade that does not touch the Job: %+v, %v", change, err)
	}
}
