package rollout

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestForget(t *testing.T) {
	all := []Trace{
		{1, "1.0.0", true, t0.Add(time.Hour)}, // an earlier rollout of 1.0.0
		{2, "1.1.0", false, t0},               // under way, however long
		{3, "1.0.0", true, t0},                // ended first of all
	}
	for n := range MaxEnded - 1 {
		all = append(all, Trace{uint64(4 + n), fmt.Sprintf("1.2.%d", n), true, t0.Add(2 * time.Hour)})
	}
	if members, whole := Forget(all); !slices.Equal(members, []uint64{3}) || len(whole) > 0 {
		t.Errorf("members of %v, whole %v: want the members of 3 to go, which is the newest of its release", members, whole)
	}
	all = append(all, Trace{100, "1.3.0", true, t0.Add(3 * time.Hour)})
	if members, whole := Forget(all); !slices.Equal(members, []uint64{1, 3}) || !slices.Equal(whole, []uint64{1}) {
		t.Errorf("members of %v, whole %v: want 1 to go as a whole", members, whole)
	}
	if members, _ := Forget(all[:5]); len(members) > 0 {
		t.Errorf("few are remembered, all of them: %v go", members)
	}
}
