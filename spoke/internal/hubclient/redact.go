package hubclient

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// identifiers are the fields that hold a word of a closed list, a digest, or a name or version that the hub knows
// by itself. Every other text that the spoke sends is redacted; a new field is, until it is named here.
var identifiers = map[protoreflect.Name]bool{
	"distribution": true, "version": true, "variant": true, "namespace": true, "running_version": true, "target_version": true,
	"bundle_digest": true, "overlay_digest": true, "rendered_digest": true, "phase": true, "health": true, "outcome": true,
	"reversibility": true, "kind": true, "verb": true, "wants": true, "would": true, "range": true, "pin": true, "pin_source": true,
	"patch": true, "minor": true, "major": true, "windows": true, "journal_id": true, "state": true, "spoke_version": true, "kubernetes_version": true,
}

// say is the one way up the stream: nothing leaves that was not redacted.
func (s *session) say(m *syncv1.ConnectRequest) error {
	if s.c.cfg.Redact != nil {
		m = proto.CloneOf(m) // others may hold it
		redact(m.ProtoReflect(), s.c.cfg.Redact)
	}
	return s.stream.Send(m)
}

// redact rewrites every text of a message, and of those in it, but identifiers.
func redact(m protoreflect.Message, with func(string) string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		text := f.Kind() == protoreflect.StringKind && !identifiers[f.Name()]
		switch inner := f.Kind() == protoreflect.MessageKind; {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, each protoreflect.Value) bool {
				switch f.MapValue().Kind() {
				case protoreflect.StringKind:
					v.Map().Set(k, protoreflect.ValueOfString(with(each.String())))
				case protoreflect.MessageKind:
					redact(each.Message(), with)
				}
				return true
			})
		case f.IsList():
			for i := range v.List().Len() {
				switch each := v.List().Get(i); {
				case text:
					v.List().Set(i, protoreflect.ValueOfString(with(each.String())))
				case inner:
					redact(each.Message(), with)
				}
			}
		case text:
			m.Set(f, protoreflect.ValueOfString(with(v.String())))
		case inner:
			redact(v.Message(), with)
		}
		return true
	})
}
