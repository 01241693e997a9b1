package spokes

import (
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// What a spoke says again at each reconnect is the same until it enters another phase: else each would be news to be
// stored.
func TestAPhaseKeepsWhenItBegan(t *testing.T) {
	s := &spoke{service: &Service{count: Counters{Running: map[string]int{}}}, distribution: "shop"}
	if at := s.hello(0).GetSubscriptions()[0].GetPhaseSince(); at != nil {
		t.Errorf("a spoke that was in no phase yet says that it is in it since %v", at.AsTime())
	}
	s.enter(fleet.Promoting, "")
	since := func() time.Time { return s.hello(0).GetSubscriptions()[0].GetPhaseSince().AsTime() }
	first := since()
	if said := s.pending[0].GetStatus().GetPhaseSince().AsTime(); !said.Equal(first) || !since().Equal(first) {
		t.Errorf("the phase began at %v by its event, at %v by a Hello, and at %v by the next; want one", said, first, since())
	}
	s.enter(fleet.Succeeded, "")
	if !since().After(first) {
		t.Errorf("the next phase began at %v, want after %v", since(), first)
	}
}
