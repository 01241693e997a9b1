// Package envelope judges objects by what a provider lets a release put on its cluster: in which namespaces,
// of which kinds, which objects without a namespace, images of which registries, pods of which security, and
// by rules of the provider's own. It sees declared objects and nothing else: it reads no cluster, and decides
// nothing about what becomes of an object that is outside. What a controller or an image does later it does
// not see, nor image references in custom resources that keep them in places of their own.
//
// An Envelope is Layers, and an object has to be inside of each of them: one can only make another narrower.
// Whatever cannot be read or answered is outside.
package envelope

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// Envelope is what holds for one subscription; the zero one lets everything pass. The first layer says what is
// allowed where the others say nothing; a further one makes that narrower.
type Envelope []Layer

// None reports that there is no envelope.
func (e Envelope) None() bool { return len(e) == 0 }

// Layer is one envelope as somebody wrote it.
type Layer struct {
	// Namespaces that objects may be in. None: the subscription's own; in a further layer, what the first says.
	Namespaces []Namespace
	// Kinds: the allowed ones, where any are named, but for the denied ones.
	Allow, Deny []Kind
	// ClusterScoped are the objects without a namespace that are allowed. None: none; in a further layer, what
	// the first says.
	ClusterScoped []terms.Pattern
	// Registries that images may be of, by whole path elements. None: any.
	Registries []Registry
	// Digests: images are named by digest.
	Digests bool
	// PodSecurity of every pod and pod template. Empty: any.
	PodSecurity Level
	// Rules that every object has to keep.
	Rules []Rule
}

// Violation is one way in which an object is outside.
type Violation struct {
	Field string // metadata.namespace, spec.template.spec.containers[app].image; empty: the object as a whole
	Why   string // what is allowed, and what to change: without values of the object or of the envelope
	// Detail has them, for the provider alone: it does not leave the cluster. May be empty.
	Detail string
}

// Text is the part that may be told to others.
func (v Violation) Text() string {
	if v.Field == "" {
		return v.Why
	}
	return v.Field + ": " + v.Why
}

// Subject is an object as it is going to be sent.
type Subject struct {
	*unstructured.Unstructured
	Namespaced bool   // its kind is
	Namespace  string // where it goes; empty where it is not namespaced
	Home       string // the subscription's namespace
}

// Check is all that is wrong with an object; each thing once, whichever layer finds it.
func (e Envelope) Check(s Subject) []Violation {
	var all []Violation
	for n, l := range e {
		for _, v := range l.check(s, n == 0) {
			if !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
	}
	return all
}

func (l Layer) check(s Subject, first bool) []Violation {
	var all []Violation
	if v, out := l.kind(s); out {
		all = append(all, v)
	}
	if v, out := l.place(s, first); out {
		all = append(all, v)
	}
	all = append(all, l.pods(s)...)
	return append(all, l.rules(s)...)
}

func (l Layer) kind(s Subject) (Violation, bool) {
	gk := s.GroupVersionKind().GroupKind()
	name := Kind{gk.Kind, gk.Group}.String()
	matches := func(k Kind) bool { return k.matches(gk) }
	switch {
	case slices.ContainsFunc(l.Deny, matches):
		return Violation{"kind", name + " is denied (envelope.kinds.deny); let an overlay take the object out", ""}, true
	case len(l.Allow) > 0 && !slices.ContainsFunc(l.Allow, matches):
		return Violation{"kind", fmt.Sprintf("%s is not among the kinds that are allowed; let an overlay take the object out, or add it to envelope.kinds.allow", name), "allowed are " + list(l.Allow)}, true
	}
	return Violation{}, false
}

// place judges where an object goes; of one without a namespace, whether it may be there at all.
func (l Layer) place(s Subject, first bool) (Violation, bool) {
	if !s.Namespaced {
		gk := s.GroupVersionKind().GroupKind()
		in := func(p terms.Pattern) bool { return p.Matches(gk.Group, gk.Kind, "", s.GetName()) }
		if slices.ContainsFunc(l.ClusterScoped, in) || l.ClusterScoped == nil && !first {
			return Violation{}, false
		}
		return Violation{"kind", fmt.Sprintf("it has no namespace, and of such objects only those under envelope.clusterScoped are allowed; let an overlay take it out, or add %s/%s there", Kind{gk.Kind, gk.Group}, s.GetName()),
			"allowed are " + cmp.Or(list(l.ClusterScoped), "none")}, true
	}
	spaces := l.Namespaces
	if spaces == nil && first {
		spaces = []Namespace{Namespace(s.Home)}
	}
	if spaces == nil || slices.ContainsFunc(spaces, func(n Namespace) bool { return n.matches(s.Namespace) }) {
		return Violation{}, false
	}
	return Violation{"metadata.namespace", fmt.Sprintf("namespace %q is not allowed; let an overlay move the object, or add the namespace to envelope.namespaces", s.Namespace), "allowed are " + list(spaces)}, true
}

// Namespace is a name, or the beginning of one with * behind it.
type Namespace string

// ParseNamespace reads one.
func ParseNamespace(text string) (Namespace, error) {
	start, _ := strings.CutSuffix(text, "*")
	if text == "" || strings.Trim(start, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(start, "-") || len(text) > 63 {
		return "", fmt.Errorf("%q: want a namespace, or the beginning of its name and a *, such as shop-*", text)
	}
	return Namespace(text), nil
}

func (n Namespace) matches(name string) bool {
	if start, open := strings.CutSuffix(string(n), "*"); open {
		return name != "" && strings.HasPrefix(name, start)
	}
	return name == string(n)
}

func list[T any](all []T) string {
	texts := make([]string, len(all))
	for n, one := range all {
		texts[n] = fmt.Sprint(one)
	}
	return strings.Join(texts, ", ")
}

// Text is all that an envelope says, for telling one from another.
func (e Envelope) Text() string {
	if e.None() {
		return ""
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err.Error() // texts and flags: it does not happen
	}
	return string(text)
}
