package agent

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// The ledger embeds the inventory: neither may hide what the other keeps.
func TestLedgerComesBackWhole(t *testing.T) {
	was := ledger{
		Inventory: apply.Inventory{Distribution: "shop", Namespace: "shop", Version: "1.0.0", Applied: "a", Items: []apply.Item{{Name: "web", UID: "u", Digest: "d"}}},
		Plan:      plan{Variant: "app", Namespace: "shop", Overlay: "sha256:o"}, Mixed: true, Keep: []string{"crd"},
	}
	raw, err := json.Marshal(was)
	if err != nil {
		t.Fatal(err)
	}
	var is ledger
	if err := json.Unmarshal(raw, &is); err != nil || !reflect.DeepEqual(is, was) {
		t.Errorf("%s is %+v: %v", raw, is, err)
	}
}
