package apply_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// BenchmarkApply is 500 small objects: a fresh install, 25 of them changed, all put into doubt.
func BenchmarkApply(b *testing.B) {
	c := harness.Shared(b, 1)[0]
	hand, err := apply.New(apply.Config{Kubeconfig: c.Kubeconfig})
	if err != nil {
		b.Fatal(err)
	}
	defer hand.Close()
	set := func(ns string, changed int) apply.Set {
		s := apply.Set{Distribution: "bench", Namespace: ns, Version: "1.0.0"}
		for n := range 500 {
			value := "same"
			if n < changed {
				value = fmt.Sprint("changed ", changed)
			}
			s.Objects = append(s.Objects, objects(b, configMap(fmt.Sprint("c", n), value))...)
		}
		return s
	}
	measure := func(what string, s apply.Set, prev apply.Inventory) apply.Inventory {
		begin := time.Now()
		inv, change, err := hand.Apply(b.Context(), s, prev)
		if err != nil {
			b.Fatal(err)
		}
		fmt.Printf("FIGURE apply.%s %d ms %d requests\n", what, time.Since(begin).Milliseconds(), change.Requests)
		return inv
	}
	for b.Loop() {
		ns := c.NewNamespace(b)
		inv := measure("fresh-500", set(ns, 0), apply.Inventory{})
		inv = measure("change-25-of-500", set(ns, 25), inv)
		measure("unsure-500", set(ns, 25), inv.Unsure())
	}
}
