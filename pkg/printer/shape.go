package printer

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// shape is how the messages of one type are written: what their descriptor is asked, once for all of them.
type shape struct {
	timestamp bool
	foreign   bool    // it has a form of its own
	fields    []field // in the order of their declaration; none where it has a form of its own
}

// field is one of a message's, as often as it is written.
type field struct {
	protoreflect.FieldDescriptor
	name     string // with quotes, colon and blank
	presence bool   // left out where it is not set
	form     form
	single
}

// form is how many values a field has.
type form int

const (
	one form = iota
	list
	mapping
)

// single is what the values of a field are, each of a list's and of a map's.
type single struct {
	value protoreflect.FieldDescriptor
	kind  protoreflect.Kind
	shape *shape // of messages
}

// shapes are those of the types that a message is made of, by name.
type shapes map[protoreflect.FullName]*shape

// of is made once a type: one that holds itself finds the shape that is being made.
func (all shapes) of(d protoreflect.MessageDescriptor) *shape {
	if s, known := all[d.FullName()]; known {
		return s
	}
	s := &shape{timestamp: d.FullName() == "google.protobuf.Timestamp"}
	all[d.FullName()] = s
	s.foreign = !s.timestamp && (strings.HasPrefix(string(d.FullName()), "google.protobuf.") || d.ExtensionRanges().Len() > 0)
	if s.timestamp || s.foreign {
		return s
	}
	s.fields = make([]field, d.Fields().Len())
	for i := range s.fields {
		f := d.Fields().Get(i)
		s.fields[i] = field{FieldDescriptor: f, name: strconv.Quote(f.JSONName()) + ": ", presence: f.HasPresence() || f.ContainingOneof() != nil}
		s.fields[i].form, s.fields[i].single = all.valuesOf(f)
	}
	return s
}

func (all shapes) valuesOf(f protoreflect.FieldDescriptor) (form, single) {
	as, v := one, f
	switch {
	case f.IsMap():
		as, v = mapping, f.MapValue()
	case f.IsList():
		as = list
	}
	s := single{value: v, kind: v.Kind()}
	if s.kind == protoreflect.MessageKind {
		s.shape = all.of(v.Message())
	}
	return as, s
}
