package exitcode

import (
	"errors"
	"fmt"
	"testing"
)

func TestTheCodeSurvivesWrapping(t *testing.T) {
	cause := errors.New("no route")
	err := fmt.Errorf("asking the hub: %w", With(Usage, cause))
	if Of(err) != Usage || !errors.Is(err, cause) || Message(err) != "asking the hub: no route" {
		t.Errorf("got %d, %q", Of(err), Message(err))
	}
	if Of(nil) != OK || Of(cause) != Failed || With(Usage, nil) != nil {
		t.Error("nil and plain errors")
	}
	if Of(Silent(Waiting)) != Waiting || Message(Silent(Waiting)) != "" {
		t.Error("a silent exit prints nothing")
	}
}
