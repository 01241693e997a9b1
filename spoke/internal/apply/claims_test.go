package apply_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// Two subscriptions that declare one object would take it from each other for ever: the second is
// refused, by dry run and by apply, with both names. A namespace may come with both.
func TestAnObjectHasOneDistribution(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.scratch(t)
	home := "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + ns + "}\n"
	first := setOf(ns, "1.0.0", objects(t, home, configMap("common", "shop"), configMap("shop", "1")))
	inv := b.install(t, first)

	second := setOf(ns, "3.0.0", objects(t, home, configMap("common", "billing"), configMap("billing", "1")))
	second.Distribution = "billing"
	report, err := b.hand.Check(ctx, second, apply.Inventory{})
	if err != nil || len(report.Problems) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	wantText(t, report.Err().Error(), "ConfigMap "+ns+"/common: distributions billing and shop both declare it",
		"kubectl -n "+ns+" label configmap common wheelwright.dev/distribution-")
	_, _, err = b.hand.Apply(ctx, second, apply.Inventory{})
	if !errors.Is(err, apply.ErrRefused) {
		t.Fatalf("applied all the same: %v", err)
	}
	if got := b.kubectl(t, "-n", ns, "get", "configmaps", "-l", "wheelwright.dev/distribution=billing", "-o", "name"); got != "" {
		t.Errorf("on the cluster: %s", got)
	}

	second.Objects = objects(t, home, configMap("billing", "1"))
	b.install(t, second)
	if _, drifted, err := b.hand.Drift(ctx, first, inv, true); err != nil || len(drifted) != 0 {
		t.Errorf("a shared namespace is no drift: %v, %v", drifted, err)
	}

	// Somebody gave an object to the other one: it is said, and not fought over.
	b.kubectl(t, "-n", ns, "label", "--overwrite", "configmap", "common", "wheelwright.dev/distribution=billing")
	b.kubectl(t, "-n", ns, "delete", "configmap", "shop")
	_, drifted, err := b.hand.Drift(ctx, first, inv, true)
	if err == nil {
		t.Fatal("nothing is said of an object that another distribution took")
	}
	wantText(t, err.Error(), "distributions shop and billing both declare it")
	if len(drifted) != 1 || drifted[0].Object != "ConfigMap "+ns+"/shop" || !drifted[0].Corrected {
		t.Errorf("made anew and put back: %v", drifted)
	}
}

// Neither do two that begin at the same moment both win.
func TestOneOfTwoAppliesAtOnceIsRefused(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	errs := make([]error, 2)
	var both sync.WaitGroup
	for n, name := range []string{"billing", "shop"} {
		both.Go(func() {
			set := setOf(ns, "1.0.0", objects(t, configMap("common", name), configMap(name, "1")))
			set.Distribution = name
			_, _, errs[n] = b.hand.Apply(t.Context(), set, apply.Inventory{})
		})
	}
	both.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("want one refusal: %v", errs)
	}
	if err := errors.Join(errs...); !errors.Is(err, apply.ErrRefused) {
		t.Fatal(err)
	}
}

// What somebody else made is taken over, and the report says so. What is ours already, or new, is not
// in it.
func TestCheckNamesWhatIsTakenOver(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	b.install(t, setOf(ns, "1.0.0", objects(t, configMap("ours", "1"))))
	b.kubectl(t, "-n", ns, "create", "configmap", "theirs", "--from-literal=key=by-hand")
	report, err := b.hand.Check(ctx, setOf(ns, "1.1.0", objects(t, configMap("ours", "2"), configMap("theirs", "1"), configMap("new", "1"),
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"}\n")), apply.Inventory{})
	if err != nil || len(report.Problems) != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	wantList(t, "taken over", report.Adopted, "ConfigMap "+ns+"/theirs")
}
