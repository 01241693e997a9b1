package printer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// reference is what protojson writes, indented.
func reference(t *testing.T, m proto.Message) string {
	t.Helper()
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

var texts = []string{"", "shop", "a \"quoted\" \\ one", "tabs\tand\nlines\r\b\f", "\x00\x01\x1f\x7f", "Größe 日本 🚀  <&>", strings.Repeat("x", 300)}

// fill sets about half of the fields to something.
func fill(r *rand.Rand, m protoreflect.Message, depth int) {
	if ts, ok := m.Interface().(*timestamppb.Timestamp); ok {
		ts.Seconds = []int64{0, 1, -1, 1795392000, 253402300799, -62135596800}[r.IntN(6)]
		ts.Nanos = []int32{0, 1, 1_000, 1_000_000, 999_999_999, 120_000_000, 123_456_000}[r.IntN(7)]
		return
	}
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if r.IntN(2) == 0 || f.Message() != nil && depth == 0 {
			continue
		}
		switch {
		case f.IsMap():
			for range r.IntN(4) {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString(texts[r.IntN(len(texts))]).MapKey(), some(r, f.MapValue(), m.Mutable(f).Map().NewValue, depth))
			}
		case f.IsList():
			for range r.IntN(4) {
				m.Mutable(f).List().Append(some(r, f, m.Mutable(f).List().NewElement, depth))
			}
		default:
			m.Set(f, some(r, f, func() protoreflect.Value { return m.NewField(f) }, depth))
		}
	}
}

func some(r *rand.Rand, f protoreflect.FieldDescriptor, empty func() protoreflect.Value, depth int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.MessageKind:
		v := empty()
		fill(r, v.Message(), depth-1)
		return v
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(texts[r.IntN(len(texts))])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(texts[r.IntN(len(texts))]))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(r.IntN(12)))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(r.Uint32()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(r.Uint64()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(r.Uint32())
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(r.Uint64())
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32([]float32{0, 1.5, 1e-9, 3e30, float32(math.Inf(1))}[r.IntN(5)])
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64([]float64{0, 0.99, 1e-9, 1e21, -1e300, math.NaN(), math.Inf(-1)}[r.IntN(7)])
	}
	return empty()
}

func TestJSONIsWhatProtojsonWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	types := 0
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		if !strings.HasPrefix(string(mt.Descriptor().FullName()), "wheelwright.fleet.") {
			return true
		}
		types++
		for range 50 {
			m := mt.New()
			fill(r, m, 4)
			got, err := JSON(m.Interface())
			if want := reference(t, m.Interface()); err != nil || string(got) != want {
				t.Errorf("%s, %v:\n%s\nwant\n%s", mt.Descriptor().FullName(), err, got, want)
				return false
			}
		}
		return true
	})
	if types < 50 {
		t.Errorf("%d types of messages", types)
	}
}

func TestJSONOfMessagesOfOthersAndOfLongLists(t *testing.T) {
	value, err := structpb.NewStruct(map[string]any{"a": 1.5, "b": []any{"x", nil}, "c": map[string]any{"d": true}})
	if err != nil {
		t.Fatal(err)
	}
	long := &fleetv1.ListClustersResponse{}
	r := rand.New(rand.NewPCG(3, 4))
	for range 3*many + 1 {
		c := &fleetv1.Cluster{}
		fill(r, c.ProtoReflect(), 2)
		long.Clusters = append(long.Clusters, c)
	}
	for _, m := range []proto.Message{value, structpb.NewStringValue("x"), long, &fleetv1.ListClustersResponse{}} {
		if got, err := JSON(m); err != nil || string(got) != reference(t, m) {
			t.Errorf("got %.1000s, %v", got, err)
		}
	}
	long.Clusters[2*many].Name = "\xff"
	for _, m := range []proto.Message{long, &fleetv1.Cluster{Name: "\xff"}, &fleetv1.Cluster{Joined: &timestamppb.Timestamp{Nanos: -1}}} {
		if got, err := JSON(m); err == nil {
			t.Errorf("got %s", got)
		}
	}
}

// full takes so many bytes.
type full int

func (f *full) Write(b []byte) (int, error) {
	if *f -= full(len(b)); *f < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestJSONThatCannotBeWrittenIsAnError(t *testing.T) {
	long := &fleetv1.ListClustersResponse{Clusters: slices.Repeat([]*fleetv1.Cluster{{Name: "acme/eu-1"}}, 5*many)}
	whole, err := JSON(long)
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{0, len("{"), len(whole) / 2, len(whole) - 1} {
		out := full(room)
		if err := (Printer{Out: &out, Format: "json"}).Print(Answer{Message: long}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("room for %d of %d bytes: got %v", room, len(whole), err)
		}
	}
	out := full(len(whole))
	if err := (Printer{Out: &out, Format: "json"}).Print(Answer{Message: long}); err != nil {
		t.Error(err)
	}
}
