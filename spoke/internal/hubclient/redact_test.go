package hubclient

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// filled gives every text of a message, and of those in it, the same value.
func filled(m protoreflect.Message, value string, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap() || depth == 0:
		case f.IsList() && f.Kind() == protoreflect.StringKind:
			m.Mutable(f).List().Append(protoreflect.ValueOfString(value))
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			filled(m.Mutable(f).List().AppendMutable().Message(), value, depth-1)
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(value))
		case f.Kind() == protoreflect.MessageKind && !f.IsList():
			filled(m.Mutable(f).Message(), value, depth-1)
		}
	}
}

// texts are the fields that still hold the value.
func texts(m protoreflect.Message, value string) (all []string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList() && f.Kind() == protoreflect.StringKind:
			for i := range v.List().Len() {
				if strings.Contains(v.List().Get(i).String(), value) {
					all = append(all, string(f.FullName()))
				}
			}
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				all = append(all, texts(v.List().Get(i).Message(), value)...)
			}
		case f.Kind() == protoreflect.StringKind && strings.Contains(v.String(), value):
			all = append(all, string(f.FullName()))
		case f.Kind() == protoreflect.MessageKind && !f.IsMap():
			all = append(all, texts(v.Message(), value)...)
		}
		return true
	})
	return all
}

// Whatever the protocol comes to have, a text that is no identifier is redacted before it is sent: read from the
// descriptors, for each body that a spoke may send.
func TestEveryTextIsRedacted(t *testing.T) {
	const value = "s3cret-of-acme"
	bodies := (&syncv1.ConnectRequest{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	redacted := 0
	for i := range bodies.Len() {
		m := (&syncv1.ConnectRequest{}).ProtoReflect()
		filled(m.Mutable(bodies.Get(i)).Message(), value, 6)
		before := len(texts(m, value))
		redact(m, func(s string) string { return strings.ReplaceAll(s, value, "…") })
		left := texts(m, value)
		redacted += before - len(left)
		for _, name := range left {
			if short := protoreflect.FullName(name).Name(); !identifiers[short] {
				t.Errorf("%s is sent as it is", name)
			}
		}
	}
	if redacted < 8 {
		t.Errorf("only %d texts are redacted", redacted)
	}
	e := &syncv1.Event{Distribution: "shop", Message: value}
	copied := proto.CloneOf(e)
	redact(copied.ProtoReflect(), func(string) string { return "…" })
	if copied.GetDistribution() != "shop" || copied.GetMessage() != "…" {
		t.Errorf("it became %v", copied)
	}
}
