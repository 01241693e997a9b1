package apply_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// Law 8: the way back needs nobody, though a StatefulSet waits for ever for the pod that failed.
func TestAStatefulSetGetsBackFromAPodThatNeverBecomesReady(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	database := func(image, annotations string) apply.Set {
		return setOf(ns, image, objects(t, `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}, annotations: {`+annotations+`}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: db, image: "`+image+`"}]}
`))
	}
	good := database("db:1", "")
	inv := b.install(t, good)
	b.healthy(t, inv)
	for _, bad := range []struct {
		set         apply.Set
		alsoRunning bool
	}{
		{database("does-not-exist:2", ""), false},
		{database("db:2", "test.wheelwright.dev/never-ready: 'yes'"), true},
	} {
		inv, _, err := b.hand.Apply(ctx, bad.set, inv)
		if err != nil {
			t.Fatal(err)
		}
		b.Eventually(t, "the failing pod", func() error {
			if image := b.kubectl(t, "-n", ns, "get", "pod", "db-1", "--ignore-not-found", "-o", "jsonpath={.spec.containers[0].image} {.metadata.annotations} {.status.containerStatuses[*].name}"); !strings.HasSuffix(image, "db") || !strings.Contains(image, bad.set.Version) {
				return fmt.Errorf("db-1 is %q", image)
			}
			return nil
		})
		if change, err := b.hand.Unstick(ctx, inv, true); err != nil || len(change.Deleted) != 0 {
			t.Fatalf("pods of the template that is wanted are left alone: %+v, %v", change, err)
		}
		if inv, _, err = b.hand.Apply(ctx, good, inv); err != nil {
			t.Fatal(err)
		}
		b.Eventually(t, "the way back", func() error {
			if _, err := b.hand.Unstick(ctx, inv, bad.alsoRunning); err != nil {
				return err
			}
			if r, err := b.hand.Health(ctx, inv, nil); err != nil || r.Ready != r.Objects {
				return fmt.Errorf("%+v, %v", r, err)
			}
			return nil
		})
	}
	if change, err := b.hand.Unstick(ctx, inv, true); err != nil || len(change.Deleted) != 0 {
		t.Fatalf("where all is well nothing is deleted: %+v, %v", change, err)
	}
}
