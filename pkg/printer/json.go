package printer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// JSON is a message as indented JSON with every field present; the same bytes for the same message. It is what
// protojson writes, indented: that takes several times as long, which is felt with a fleet of ten thousand clusters,
// and varies its blanks on purpose.
func JSON(m proto.Message) ([]byte, error) {
	var b bytes.Buffer
	err := writeJSON(&b, m)
	return b.Bytes(), err
}

// writeJSON is JSON that is written while the rest of it is made.
func writeJSON(out io.Writer, m proto.Message) error {
	e := encoder{to: out}
	err := e.message(shapes{}.of(m.ProtoReflect().Descriptor()), m.ProtoReflect())
	if err == nil {
		e.out = append(e.out, '\n')
		err = e.flush()
	}
	if err != nil {
		return fmt.Errorf("writing json: %w", err)
	}
	return nil
}

type encoder struct {
	to    io.Writer // nil: it all stays in out
	out   []byte
	depth int
}

func (e *encoder) flush() error {
	_, err := e.to.Write(e.out)
	e.out = e.out[:0]
	return err
}

const blanks = "                                                                "

func (e *encoder) line() {
	e.out = append(e.out, '\n')
	for n := 2 * e.depth; n > 0; n -= len(blanks) {
		e.out = append(e.out, blanks[:min(n, len(blanks))]...)
	}
}

func (e *encoder) message(s *shape, m protoreflect.Message) error {
	switch {
	case s.timestamp:
		return e.timestamp(m)
	case s.foreign:
		return e.foreign(m)
	}
	e.out = append(e.out, '{')
	e.depth++
	some := false
	for i := range s.fields {
		f := &s.fields[i]
		if f.presence && !m.Has(f.FieldDescriptor) {
			continue
		}
		if some {
			e.out = append(e.out, ',')
		}
		some = true
		e.line()
		e.out = append(e.out, f.name...)
		if err := e.value(f, m.Get(f.FieldDescriptor)); err != nil {
			return err
		}
	}
	e.depth--
	if some {
		e.line()
	}
	e.out = append(e.out, '}')
	return nil
}

func (e *encoder) value(f *field, v protoreflect.Value) error {
	switch f.form {
	case mapping:
		return e.mapping(f, v.Map())
	case list:
		return e.list(f, v.List())
	}
	return e.single(&f.single, v)
}

func (e *encoder) list(f *field, l protoreflect.List) error {
	if l.Len() == 0 {
		e.out = append(e.out, "[]"...)
		return nil
	}
	e.out = append(e.out, '[')
	e.depth++
	if err := e.elements(f, l); err != nil {
		return err
	}
	e.depth--
	e.line()
	e.out = append(e.out, ']')
	return nil
}

// many elements of a list are worth a processor each.
const many = 100

func (e *encoder) elements(f *field, l protoreflect.List) error {
	if e.to == nil || l.Len() <= many {
		return e.between(f, l, 0, l.Len())
	}
	if err := e.flush(); err != nil {
		return err
	}
	parts := runtime.GOMAXPROCS(0)
	made, next := make([]encoder, parts), make([]encoder, parts)
	for from := 0; from < l.Len(); from += parts * many {
		group := errgroup.Group{}
		group.Go(func() error { return e.write(made) })
		for p := range next {
			begin := min(from+p*many, l.Len())
			next[p] = encoder{out: next[p].out[:0], depth: e.depth}
			group.Go(func() error { return next[p].between(f, l, begin, min(begin+many, l.Len())) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		made, next = next, made
	}
	return e.write(made)
}

func (e *encoder) write(parts []encoder) error {
	for _, p := range parts {
		if _, err := e.to.Write(p.out); err != nil {
			return err
		}
	}
	return nil
}

// between writes the elements from one to before another.
func (e *encoder) between(f *field, l protoreflect.List, from, to int) error {
	for i := from; i < to; i++ {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		e.line()
		if err := e.single(&f.single, l.Get(i)); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) mapping(f *field, m protoreflect.Map) error {
	if m.Len() == 0 {
		e.out = append(e.out, "{}"...)
		return nil
	}
	if f.MapKey().Kind() != protoreflect.StringKind {
		return fmt.Errorf("field %s: its keys are no strings", f.FullName())
	}
	keys := make([]protoreflect.MapKey, 0, m.Len())
	for k := range m.Range {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
	e.out = append(e.out, '{')
	e.depth++
	for i, k := range keys {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		e.line()
		if err := e.text(k.String()); err != nil {
			return fmt.Errorf("field %s: %w", f.FullName(), err)
		}
		e.out = append(e.out, ": "...)
		if err := e.single(&f.single, m.Get(k)); err != nil {
			return err
		}
	}
	e.depth--
	e.line()
	e.out = append(e.out, '}')
	return nil
}

func (e *encoder) single(f *single, v protoreflect.Value) error {
	switch f.kind {
	case protoreflect.BoolKind:
		e.out = strconv.AppendBool(e.out, v.Bool())
	case protoreflect.StringKind:
		if err := e.text(v.String()); err != nil {
			return fmt.Errorf("field %s: %w", f.value.FullName(), err)
		}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		e.out = strconv.AppendUint(e.out, v.Uint(), 10)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		e.out = append(strconv.AppendInt(append(e.out, '"'), v.Int(), 10), '"')
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		e.out = append(strconv.AppendUint(append(e.out, '"'), v.Uint(), 10), '"')
	case protoreflect.FloatKind:
		return e.number(float64(float32(v.Float())), float32(v.Float()))
	case protoreflect.DoubleKind:
		return e.number(v.Float(), v.Float())
	case protoreflect.BytesKind:
		e.out = append(base64.StdEncoding.AppendEncode(append(e.out, '"'), v.Bytes()), '"')
	case protoreflect.EnumKind:
		if known := f.value.Enum().Values().ByNumber(v.Enum()); known != nil {
			e.out = append(append(append(e.out, '"'), known.Name()...), '"')
		} else {
			e.out = strconv.AppendInt(e.out, int64(v.Enum()), 10)
		}
	case protoreflect.MessageKind:
		return e.message(f.shape, v.Message())
	default:
		return fmt.Errorf("field %s is a %s, which is not written", f.value.FullName(), f.kind)
	}
	return nil
}

// number has the precision that as has.
func (e *encoder) number(v float64, as any) error {
	switch {
	case math.IsNaN(v):
		e.out = append(e.out, `"NaN"`...)
	case math.IsInf(v, 1):
		e.out = append(e.out, `"Infinity"`...)
	case math.IsInf(v, -1):
		e.out = append(e.out, `"-Infinity"`...)
	default:
		text, err := json.Marshal(as)
		if err != nil {
			return err
		}
		e.out = append(e.out, text...)
	}
	return nil
}

const hexadecimal = "0123456789abcdef"

func (e *encoder) text(s string) error {
	e.out = append(e.out, '"')
	from, valid := 0, true
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf {
			valid = false // unless it is looked at
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		e.out = append(append(e.out, s[from:i]...), '\\')
		from = i + 1
		switch c {
		case '"', '\\':
			e.out = append(e.out, c)
		case '\b':
			e.out = append(e.out, 'b')
		case '\f':
			e.out = append(e.out, 'f')
		case '\n':
			e.out = append(e.out, 'n')
		case '\r':
			e.out = append(e.out, 'r')
		case '\t':
			e.out = append(e.out, 't')
		default:
			e.out = append(e.out, 'u', '0', '0', hexadecimal[c>>4], hexadecimal[c&0xf])
		}
	}
	if !valid && !utf8.ValidString(s) {
		return fmt.Errorf("invalid UTF-8: %q", s)
	}
	e.out = append(append(e.out, s[from:]...), '"')
	return nil
}

// timestamp is RFC 3339 with as many thousands of a second as there are.
func (e *encoder) timestamp(m protoreflect.Message) error {
	fds := m.Descriptor().Fields()
	seconds, nanos := m.Get(fds.ByNumber(1)).Int(), m.Get(fds.ByNumber(2)).Int()
	const first, last = -62135596800, 253402300799 // of the years 1 and 9999
	if seconds < first || seconds > last || nanos < 0 || nanos >= 1e9 {
		return fmt.Errorf("timestamp of %d s and %d ns: out of range", seconds, nanos)
	}
	e.out = time.Unix(seconds, 0).UTC().AppendFormat(append(e.out, '"'), time.RFC3339) // by far the fastest of the layouts
	e.out = e.out[:len(e.out)-len("Z")]
	if nanos > 0 {
		e.out = strconv.AppendInt(e.out, 1e9+nanos, 10)
		e.out[len(e.out)-len("1000000000")] = '.'
		for bytes.HasSuffix(e.out, []byte("000")) {
			e.out = e.out[:len(e.out)-len("000")]
		}
	}
	e.out = append(e.out, "Z\""...)
	return nil
}

// foreign is a message that has a form of its own.
func (e *encoder) foreign(m protoreflect.Message) error {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m.Interface())
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, strings.Repeat("  ", e.depth), "  "); err != nil {
		return err
	}
	e.out = append(e.out, b.Bytes()...)
	return nil
}
