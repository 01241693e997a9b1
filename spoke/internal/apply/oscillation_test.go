package apply

import (
	"testing"
	"time"
)

func TestOscillations(t *testing.T) {
	start := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	a := identity{configMaps.GroupKind(), "shop", "a"}
	key := taking{a, "data.key", "hostile"}
	for _, c := range []struct {
		what    string
		takings []taking
		at      []time.Duration
		last    taking
		lastAt  time.Duration
		tense   bool // just before the last
		want    bool
	}{
		{"the first", nil, nil, key, 0, false, false},
		{"the third", []taking{key, key}, []time.Duration{0, time.Second}, key, 2 * time.Second, false, false},
		{"the fourth", []taking{key, key, key}, []time.Duration{0, time.Second, 2 * time.Second}, key, 3 * time.Second, true, true},
		{"the fourth, late", []taking{key, key, key}, []time.Duration{0, time.Minute, 2 * time.Minute}, key, 10*time.Minute - time.Nanosecond, true, true},
		{"the fourth, too late", []taking{key, key, key}, []time.Duration{0, time.Minute, 2 * time.Minute}, key, 10 * time.Minute, false, false},
		{"by another manager", []taking{key, key, key}, []time.Duration{0, 0, 0}, taking{a, "data.key", "kubectl"}, time.Second, true, false},
		{"another field", []taking{key, key, key}, []time.Duration{0, 0, 0}, taking{a, "data.other", "hostile"}, time.Second, true, false},
		{"another object", []taking{key, key, key}, []time.Duration{0, 0, 0}, taking{identity{configMaps.GroupKind(), "shop", "b"}, "data.key", "hostile"}, time.Second, false, false},
		{"after it was contested, anew", []taking{key, key, key, key}, []time.Duration{0, 0, 0, 0}, key, time.Second, false, false},
	} {
		var o oscillations
		for n, k := range c.takings {
			o.take(k, start.Add(c.at[n]))
		}
		if tense := o.tense(c.last.object, start.Add(c.lastAt)); tense != c.tense {
			t.Errorf("%s: tense %v", c.what, tense)
		}
		if got := o.take(c.last, start.Add(c.lastAt)); got != c.want {
			t.Errorf("%s: contested %v", c.what, got)
		}
	}
}

func TestOscillationsAreForgotten(t *testing.T) {
	now := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	var o oscillations
	for n := range 1000 {
		o.take(taking{identity{configMaps.GroupKind(), "shop", "a"}, "data.key", string(rune(n))}, now)
	}
	o.take(taking{by: "later"}, now.Add(takingWindow))
	if len(o.times) != 1 {
		t.Errorf("%d are kept", len(o.times))
	}
}
