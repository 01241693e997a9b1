package fleetapi

import (
	"context"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// scope is which clusters a caller sees and changes; the server has decided which methods it may call. The
// zero scope sees none.
type scope struct {
	who      caller.Caller
	all      bool
	provider string
}

func scopeOf(ctx context.Context) scope {
	c, _ := caller.From(ctx)
	switch c.Role.Kind {
	case caller.Admin, caller.Viewer, caller.VendorRelease, caller.VendorOperator, caller.Approver:
		return scope{who: c, all: true}
	case caller.Provider:
		return scope{who: c, provider: c.Role.Of}
	}
	return scope{who: c}
}

// sees: the cluster is one of the scope's.
func (s scope) sees(cluster string) bool {
	return s.all || s.provider != "" && fleet.Cluster(cluster).Provider() == s.provider
}

// must refuses another's cluster, whether there is one of the name or not.
func (s scope) must(cluster fleet.Cluster) error {
	if s.sees(string(cluster)) {
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "%s, whose role is %q, may not see or change cluster %s; `hub get clusters` lists its own", s.who, s.who.Role, cluster)
}

// clusterForm finds what may be the name of a cluster in a text.
var clusterForm = regexp.MustCompile(`[a-z0-9](?:[-a-z0-9]*[a-z0-9])?/[a-z0-9](?:[-a-z0-9]*[a-z0-9])?`)

// anothers stands where the name of a cluster stood that is not the reader's to know.
const anothers = "another provider's cluster"

// veil takes the names of clusters that the scope does not see out of every text of an answer: why a rollout
// holds names a cluster at fault, and so may what a person wrote.
func (s *Service) veil(sc scope, m proto.Message) error {
	if sc.all {
		return nil
	}
	var named map[fleet.Cluster]bool
	var trouble error
	texts(m.ProtoReflect(), func(text string) string {
		if !strings.Contains(text, "/") {
			return text
		}
		return clusterForm.ReplaceAllStringFunc(text, func(name string) string {
			if sc.sees(name) || trouble != nil {
				return name
			}
			if named == nil {
				named, trouble = s.cfg.Conductor.Named()
			}
			if named[fleet.Cluster(name)] {
				return anothers
			}
			return name
		})
	})
	if trouble != nil {
		return s.failure("find out which clusters an answer names", trouble)
	}
	return nil
}

// texts replaces every text in a message and in the messages that it holds. Lists and maps may be shared
// with the store, so that one with another text in it is another list.
func texts(m protoreflect.Message, replace func(string) string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Kind() == protoreflect.StringKind {
				textsOfMap(m, f, v.Map(), replace)
			}
		case f.IsList():
			textsOfList(m, f, v.List(), replace)
		case f.Kind() == protoreflect.StringKind:
			if text := replace(v.String()); text != v.String() {
				m.Set(f, protoreflect.ValueOfString(text))
			}
		case f.Kind() == protoreflect.MessageKind:
			texts(v.Message(), replace)
		}
		return true
	})
}

func textsOfMap(m protoreflect.Message, f protoreflect.FieldDescriptor, old protoreflect.Map, replace func(string) string) {
	next, changed := m.NewField(f), false
	old.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		text := replace(v.String())
		changed = changed || text != v.String()
		next.Map().Set(k, protoreflect.ValueOfString(text))
		return true
	})
	if changed {
		m.Set(f, next)
	}
}

func textsOfList(m protoreflect.Message, f protoreflect.FieldDescriptor, old protoreflect.List, replace func(string) string) {
	if f.Kind() == protoreflect.MessageKind {
		for i := range old.Len() {
			texts(old.Get(i).Message(), replace)
		}
	}
	if f.Kind() != protoreflect.StringKind {
		return
	}
	next, changed := m.NewField(f), false
	for i := range old.Len() {
		text := replace(old.Get(i).String())
		changed = changed || text != old.Get(i).String()
		next.List().Append(protoreflect.ValueOfString(text))
	}
	if changed {
		m.Set(f, next)
	}
}
