package rules

import (
	"errors"
	"strings"
	"testing"
)

func TestConditions(t *testing.T) {
	object := map[string]any{"kind": "Service", "metadata": map[string]any{"name": "a"}, "spec": map[string]any{"size": int64(3), "text": "x"}}
	for text, want := range map[string]string{
		`object.kind == "Service"`: "true", `spec.size > 3`: "false", `metadata.name == "a" && object.spec.size < 4.5`: "true", `true`: "true",
		`object.spec.none == 1`: "lacks", `has(object.spec.none)`: "false", `object.?spec.?none.orValue(1) == 1`: "true", `status.phase == "x"`: "lacks",
		`object.spec.text > 1`: "error", `object.spec.text`: "error", `object.kind == "Service" || object.spec.none == 1`: "true",
		`object.spec.text.replace("x", "y") == "y"`: "unread", `1 + 1`: "unread", `nobody.knows`: "unread", ``: "unread",
	} {
		all, errs := Conditions([]string{"true", text})
		if errs[0] != nil || len(all) != 2 || len(errs) != 2 {
			t.Fatalf("%s: %v", text, errs)
		}
		yes, err := all[1].Holds(object)
		got := "false"
		switch {
		case errs[1] != nil:
			if got = "unread"; err == nil {
				t.Errorf("%s: it cannot be read, and is answered: %v", text, yes)
			}
		case errors.Is(err, ErrLacks):
			got = "lacks"
		case err != nil:
			got = "error"
		case yes:
			got = "true"
		}
		if got != want || yes && want != "true" {
			t.Errorf("%s: got %s (%v, %v, %v), want %s", text, got, yes, err, errs[1], want)
		}
	}
	if _, errs := Conditions([]string{"object.spec.a." + strings.Repeat("b", 5000)}); errs[0] == nil {
		t.Error("an expression without an end is read")
	}
	if yes, err := (Condition{}).Holds(object); yes || err == nil {
		t.Error("what was never read holds")
	}
}
