package store

import (
	"reflect"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestWhatASpokeSaysOfItsProviderIsKept(t *testing.T) {
	i := fleet.Installation{Distribution: "shop", Phase: fleet.Refused, Target: "1.1.0", PhaseSince: time.Unix(5, 0).UTC(), Declined: true,
		Policy: fleet.Policy{FromHub: fleet.FromHub{Told: true, Decisions: true}}}
	for _, want := range []fleet.Installation{i, {Distribution: "mail"}} {
		if got := installationOf(*installationRecordOf(&want), &windows{}); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}
