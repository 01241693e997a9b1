package document_test

import (
	"encoding/json"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

func TestEqual(t *testing.T) {
	for _, test := range []struct {
		a, b any
		want bool
	}{
		{1, 1.0, true}, {int64(1), json.Number("1"), true}, {1, "1", false}, {nil, nil, true}, {nil, "", false}, {"a", []any{}, false},
		{map[string]any{"a": []any{1, nil}}, map[string]any{"a": []any{1.0, nil}}, true},
		{map[string]any{"a": 1}, map[string]any{"b": 1}, false}, {[]any{1}, []any{1, 2}, false}, {[]any{}, map[string]any{}, false},
	} {
		if got := document.Equal(test.a, test.b); got != test.want {
			t.Errorf("%v and %v: got %t", test.a, test.b, got)
		}
	}
}

func TestClone(t *testing.T) {
	a := document.Object{"a": document.Object{"b": []any{1, document.Object{"c": "d"}}}, "n": nil}
	b := document.Clone(a)
	document.Mappings(document.At(b, "a", "b"))[0]["c"] = "e"
	if document.Mappings(document.At(a, "a", "b"))[0]["c"] != "d" || !document.Equal(document.Clone(a), a) {
		t.Errorf("a copy is not apart: %v, %v", a, b)
	}
	if document.Clone(document.Object(nil)) != nil || document.At(nil, "a") != nil || document.Text(a, "a") != "" || document.Group(document.Object{"apiVersion": "v1"}) != "" {
		t.Error("nothing became something")
	}
}
