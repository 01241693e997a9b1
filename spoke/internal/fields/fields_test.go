package fields_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
)

// entry is as it stands in an object's metadata.
func entry(t *testing.T, manager, operation, subresource, at, set string) metav1.ManagedFieldsEntry {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"manager": manager, "operation": operation, "subresource": subresource,
		"apiVersion": "v1", "fieldsType": "FieldsV1", "time": at, "fieldsV1": json.RawMessage(set)})
	if err != nil {
		t.Fatal(err)
	}
	var e metav1.ManagedFieldsEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

const (
	ten    = "2026-05-01T10:00:00Z"
	eleven = "2026-05-01T11:00:00Z"
	noon   = "2026-05-01T12:00:00Z"
)

func TestOwnedDigest(t *testing.T) {
	ours := func(at, set string) []metav1.ManagedFieldsEntry {
		return []metav1.ManagedFieldsEntry{
			entry(t, "kubectl", "Update", "", eleven, `{"f:data":{"f:b":{}}}`),
			entry(t, "wheelwright", "Apply", "", at, set),
		}
	}
	base := fields.Owned(ours(ten, `{"f:data":{"f:a":{}}}`), "wheelwright").Digest()
	if len(base) != 16 {
		t.Errorf("digest %q", base)
	}
	for what, c := range map[string]struct {
		entries []metav1.ManagedFieldsEntry
		same    bool
	}{
		"the same":          {ours(ten, `{"f:data":{"f:a":{}}}`), true},
		"a field less":      {ours(ten, `{"f:data":{}}`), false},
		"applied later":     {ours(eleven, `{"f:data":{"f:a":{}}}`), false},
		"another's status":  {append(ours(ten, `{"f:data":{"f:a":{}}}`), entry(t, "controller", "Update", "status", noon, `{"f:status":{"f:x":{}}}`)), true},
		"ours by update":    {[]metav1.ManagedFieldsEntry{entry(t, "wheelwright", "Update", "", ten, `{"f:data":{"f:a":{}}}`)}, false},
		"ours, of a status": {[]metav1.ManagedFieldsEntry{entry(t, "wheelwright", "Apply", "status", ten, `{"f:data":{"f:a":{}}}`)}, false},
	} {
		if got := fields.Owned(c.entries, "wheelwright").Digest(); (got == base) != c.same {
			t.Errorf("%s: %s, was %s", what, got, base)
		}
	}
	if got := fields.Owned(nil, "wheelwright"); got.Digest() != "" || got.Paths() != nil || got.Has(fields.Path{"data"}) {
		t.Errorf("of no entries: %+v", got)
	}
	if got := fields.Owned(ours(ten, `nonsense`[:0]+`[]`), "wheelwright"); got.Digest() == "" || len(got.Paths()) != 0 {
		t.Errorf("what cannot be read has no fields: %v", got.Paths())
	}
}

func TestPathsForPeople(t *testing.T) {
	set := fields.Owned([]metav1.ManagedFieldsEntry{entry(t, "wheelwright", "Apply", "", ten, `{
		"f:metadata":{"f:labels":{"f:app":{},"f:example.com/x":{}},"f:finalizers":{".":{},"v:\"example.com/guard\"":{}}},
		"f:data":{"f:color":{},"f:app.conf":{}},
		"f:spec":{"f:replicas":{},
			"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:targetPort":{}}},
			"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:image":{},"f:args":{}}}}}}}`)}, "wheelwright")
	var got []string
	for _, p := range set.Paths() {
		got = append(got, p.String())
	}
	want := []string{
		"data[app.conf]", "data.color",
		"metadata.finalizers[example.com/guard]", "metadata.labels[app]", "metadata.labels[example.com/x]",
		"spec.ports[port=80,protocol=TCP].port", "spec.ports[port=80,protocol=TCP].targetPort",
		"spec.replicas",
		"spec.template.spec.containers[name=app].args", "spec.template.spec.containers[name=app].image",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, c := range []struct {
		path fields.Path
		has  bool
	}{
		{fields.Path{"spec", "replicas"}, true},
		{fields.Path{"spec"}, true},
		{fields.Path{"spec", "template", "spec", "containers", "name=app"}, true},
		{fields.Path{"spec", "template", "spec", "containers", "*", "image"}, true},
		{fields.Path{"spec", "template", "spec", "containers", "name=other"}, false},
		{fields.Path{"spec", "replicas", "deeper"}, false},
		{fields.Path{"status"}, false},
	} {
		if set.Has(c.path) != c.has {
			t.Errorf("%s: want %v", c.path, c.has)
		}
	}
}

func TestLost(t *testing.T) {
	const whole = `{"f:data":{"f:a":{},"f:b":{}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:image":{},"f:name":{}}}}}`
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	status := entry(t, "controller", "Update", "status", noon, `{"f:status":{"f:x":{}}}`)
	type loss struct {
		path, by string
		at       time.Time
	}
	for _, c := range []struct {
		what   string
		before []metav1.ManagedFieldsEntry
		want   []loss
	}{
		{"nothing", []metav1.ManagedFieldsEntry{entry(t, "wheelwright", "Apply", "", ten, whole), status}, nil},
		{"set by another", []metav1.ManagedFieldsEntry{
			entry(t, "wheelwright", "Apply", "", ten, `{"f:data":{"f:b":{}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:image":{},"f:name":{}}}}}`),
			entry(t, "hostile", "Update", "", eleven, `{"f:data":{"f:a":{}}}`), entry(t, "later", "Update", "", noon, `{"f:data":{"f:c":{}}}`), status,
		}, []loss{{"data.a", "hostile", at(eleven)}}},
		{"removed: whoever wrote last, not the status", []metav1.ManagedFieldsEntry{
			entry(t, "wheelwright", "Apply", "", ten, `{"f:data":{"f:a":{}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:image":{},"f:name":{}}}}}`),
			entry(t, "early", "Update", "", ten, `{"f:data":{"f:c":{}}}`), entry(t, "later", "Update", "", eleven, `{"f:data":{"f:d":{}}}`), status,
		}, []loss{{"data.b", "later", at(eleven)}}},
		{"removed, nobody known", []metav1.ManagedFieldsEntry{
			entry(t, "wheelwright", "Apply", "", ten, `{"f:data":{"f:a":{}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:image":{},"f:name":{}}}}}`),
		}, []loss{{"data.b", "", time.Time{}}}},
		{"an item of a list, once", []metav1.ManagedFieldsEntry{
			entry(t, "wheelwright", "Apply", "", ten, `{"f:data":{"f:a":{},"f:b":{}}}`),
			entry(t, "hostile", "Apply", "", eleven, `{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{"f:image":{}}}}}`),
		}, []loss{{"spec.containers[name=app]", "hostile", at(eleven)}}},
		{"a part of an item", []metav1.ManagedFieldsEntry{
			entry(t, "wheelwright", "Apply", "", ten, `{"f:data":{"f:a":{},"f:b":{}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:name":{}}}}}`),
			entry(t, "hostile", "Update", "", eleven, `{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{"f:image":{}}}}}`),
		}, []loss{{"spec.containers[name=app].image", "hostile", at(eleven)}}},
		{"managed fields wiped out", nil, []loss{{"data.a", "", time.Time{}}, {"data.b", "", time.Time{}}, {"spec.containers[name=app]", "", time.Time{}}}},
	} {
		after := []metav1.ManagedFieldsEntry{entry(t, "wheelwright", "Apply", "", noon, whole)}
		var got []loss
		for _, l := range fields.Lost(c.before, after, "wheelwright") {
			got = append(got, loss{l.Path.String(), l.By, l.At.UTC()})
		}
		if !slices.EqualFunc(got, c.want, func(a, b loss) bool { return a.path == b.path && a.by == b.by && a.at.Equal(b.at) }) {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
	}
	if l := fields.Lost([]metav1.ManagedFieldsEntry{entry(t, "wheelwright", "Apply", "", ten, whole)}, nil, "wheelwright"); l != nil {
		t.Errorf("what is not ours after the apply was not taken: %v", l)
	}
}

func TestOthers(t *testing.T) {
	others := fields.Others([]metav1.ManagedFieldsEntry{
		entry(t, "wheelwright", "Apply", "", ten, `{"f:spec":{"f:x":{}}}`),
		entry(t, "autoscaler", "Update", "scale", ten, `{"f:spec":{"f:replicas":{}}}`),
		entry(t, "mesh", "Apply", "", noon, `{"f:metadata":{"f:annotations":{"f:mesh":{}}}}`),
		entry(t, "wheelwright", "Update", "", eleven, `{"f:spec":{"f:y":{}}}`),
	}, "wheelwright")
	var got []string
	for _, o := range others {
		got = append(got, o.Manager+" "+o.Subresource+" "+o.Fields.Paths()[0].String())
	}
	if want := []string{"mesh  metadata.annotations[mesh]", "wheelwright  spec.y", "autoscaler scale spec.replicas"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !others[0].Applies || others[1].Applies {
		t.Errorf("%+v", others)
	}
}
