package manifest

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
)

// Problem is one thing wrong with one object.
type Problem struct {
	Object  string // as ID names it
	Message string
}

func (p Problem) String() string { return p.Object + ": " + p.Message }

// Validate names every problem that can be seen without a cluster: missing kind or name, fields that
// the kind does not have, values of the wrong type, an object given twice, a hook that cannot be one.
// Kinds that client-go's scheme does not know are judged only by their name.
func Validate(objs []*unstructured.Unstructured) []Problem {
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
		json.SerializerOptions{Strict: true})
	var problems []Problem
	type key struct{ group, kind, namespace, name string }
	seen := map[key]bool{}
	for _, obj := range objs {
		add := func(format string, args ...any) {
			problems = append(problems, Problem{ID(obj), fmt.Sprintf(format, args...)})
		}
		if obj.GetKind() == "" {
			add("has no kind")
			continue
		}
		if obj.GetAPIVersion() == "" {
			add("has no apiVersion")
			continue
		}
		if obj.GetName() == "" {
			if obj.GetGenerateName() != "" {
				add("has generateName only: an installed object needs a fixed metadata.name")
			} else {
				add("has no metadata.name")
			}
			continue
		}
		k := key{obj.GroupVersionKind().Group, obj.GetKind(), obj.GetNamespace(), obj.GetName()}
		if seen[k] {
			add("is given twice")
			continue
		}
		seen[k] = true
		if _, _, err := ReadHook(obj); err != nil {
			add("%v", err)
		}
		for _, m := range decode(strict, obj) {
			add("%s", m)
		}
	}
	return problems
}

// decode returns what the strict decoder of the object's own kind says.
func decode(strict runtime.Decoder, obj *unstructured.Unstructured) []string {
	js, err := obj.MarshalJSON()
	if err != nil {
		return []string{err.Error()}
	}
	_, _, err = strict.Decode(js, nil, nil)
	if err == nil || runtime.IsNotRegisteredError(err) {
		return nil
	}
	if s, ok := runtime.AsStrictDecodingError(err); ok {
		var out []string
		for _, e := range s.Errors() {
			out = append(out, e.Error())
		}
		return out
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	// Go's decoder names its own types: "json: cannot unmarshal string into Go struct field
	// DeploymentSpec.spec.replicas of type int32".
	m := strings.TrimPrefix(err.Error(), "json: ")
	if i := strings.Index(m, "json: "); i >= 0 {
		m = m[i+len("json: "):]
	}
	return []string{strings.Replace(m, "Go struct field ", "field ", 1)}
}
