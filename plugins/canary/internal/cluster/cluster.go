// Package cluster carries out what package course works out: it reads objects of an API server, knows
// what it has read until that may have changed, and makes one request for each Effect. It decides
// nothing.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

// Manager is the field manager of every change.
const Manager = "wheelwright-canary"

// ErrStale says that the cluster is not as it was read: read it again.
var ErrStale = errors.New("the object has changed meanwhile")

// Server is an API server: one call, one request. An answer that is no success is a kube.StatusError.
type Server interface {
	Do(ctx context.Context, r kube.Request, into any) error
}

// View is a cluster as it has been read, for one goroutine.
type View struct {
	server Server
	read   map[course.Query][]course.Object
}

// New reads nothing yet.
func New(s Server) *View { return &View{s, map[course.Query][]course.Object{}} }

// Read answers everything that the queries name, in their order; what is known is not asked again. A
// kind that the cluster does not have has no objects.
func (v *View) Read(ctx context.Context, queries []course.Query) ([]course.Object, error) {
	var out []course.Object
	for _, q := range queries {
		list, known := v.read[q]
		if !known {
			var err error
			if list, err = v.list(ctx, q); err != nil {
				return nil, err
			}
			v.read[q] = list
		}
		out = append(out, list...)
	}
	return out, nil
}

// Forget makes these kinds be read again; none named: all.
func (v *View) Forget(kinds ...string) {
	for q := range v.read {
		if len(kinds) == 0 || slices.Contains(kinds, q.Kind.Kind) {
			delete(v.read, q)
		}
	}
}

// versions of what a router needs, newest first: a cluster that has several converts them.
func versions(group string) []string {
	switch group {
	case "":
		return []string{"v1"}
	case "autoscaling":
		return []string{group + "/v2"}
	case "keda.sh":
		return []string{group + "/v1alpha1"}
	case "linkerd.io":
		return []string{group + "/v1alpha2"}
	case "policy.linkerd.io":
		return []string{group + "/v1beta3", group + "/v1beta2"}
	case "flagger.app":
		return []string{group + "/v1beta1"}
	case "argoproj.io":
		return []string{group + "/v1alpha1"}
	case "networking.istio.io":
		return []string{group + "/v1", group + "/v1beta1", group + "/v1alpha3"}
	}
	return []string{group + "/v1"}
}

// Serves tells whether the cluster has a kind.
func (v *View) Serves(ctx context.Context, kind route.Kind, namespace string) (bool, error) {
	err := v.server.Do(ctx, kube.Request{Path: path(versions(kind.Group)[0], kind.Kind, namespace), Query: url.Values{"limit": {"1"}}}, nil)
	if err != nil && !kube.HasCode(err, http.StatusNotFound) {
		return false, fmt.Errorf("list %s in %s: %w", plural(kind.Kind), namespace, err)
	}
	return err == nil, nil
}

// Merge changes an object by a merge patch, if it is still as it was read; ErrStale: it is not.
func (v *View) Merge(ctx context.Context, was course.Object, patch map[string]any, status bool) error {
	merged := document.Clone(patch)
	meta, _ := merged["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		merged["metadata"] = meta
	}
	meta["resourceVersion"] = document.Text(was, "metadata", "resourceVersion")
	body, err := json.Marshal(merged)
	if err != nil {
		return fmt.Errorf("encode %s: %w", ID(was), err)
	}
	below := []string{document.Text(was, "metadata", "name")}
	if status {
		below = append(below, "status")
	}
	v.Forget(document.Text(was, "kind"))
	err = v.server.Do(ctx, kube.Request{Method: http.MethodPatch, Path: pathOf(was, below...), Query: url.Values{"fieldManager": {Manager}}, Type: "application/merge-patch+json", Body: body}, nil)
	switch {
	case kube.HasCode(err, http.StatusConflict), kube.HasCode(err, http.StatusNotFound):
		return ErrStale
	case err != nil:
		return fmt.Errorf("patch %s: %w", ID(was), err)
	}
	return nil
}

func (v *View) list(ctx context.Context, q course.Query) ([]course.Object, error) {
	values := url.Values{}
	if q.Selector != "" {
		values.Set("labelSelector", q.Selector)
	}
	for _, version := range versions(q.Group) {
		var list struct{ Items []course.Object }
		err := v.server.Do(ctx, kube.Request{Path: path(version, q.Kind.Kind, q.Namespace), Query: values}, &list)
		switch {
		case kube.HasCode(err, http.StatusNotFound):
			continue // the cluster has no such kind
		case err != nil:
			return nil, fmt.Errorf("list %s in %s: %w", plural(q.Kind.Kind), q.Namespace, err)
		}
		for _, o := range list.Items {
			// Lists of built-in kinds leave this out.
			o["apiVersion"], o["kind"] = version, q.Kind.Kind
		}
		return list.Items, nil
	}
	return nil, nil
}

func plural(kind string) string {
	kind = strings.ToLower(kind)
	if kind == "canary" {
		return "canaries"
	}
	if strings.HasSuffix(kind, "s") {
		return kind + "es"
	}
	return kind + "s"
}

func path(version, kind, namespace string, below ...string) string {
	return kube.Resource{APIVersion: version, Plural: plural(kind)}.Path(namespace, below...)
}

func pathOf(o course.Object, below ...string) string {
	return path(document.Text(o, "apiVersion"), document.Text(o, "kind"), document.Text(o, "metadata", "namespace"), below...)
}

// ID names an object for people.
func ID(o course.Object) string {
	return document.Text(o, "kind") + " " + document.Text(o, "metadata", "namespace") + "/" + document.Text(o, "metadata", "name")
}

// Do carries an effect out and knows afterwards what came of it. The answer says what was done; empty:
// nothing had to be. ErrStale: look again.
func (v *View) Do(ctx context.Context, e course.Effect) (verb string, err error) {
	name := document.Text(e.Object, "metadata", "name")
	var made course.Object
	switch e.Verb {
	case course.Ensure, course.Lend:
		verb = "create"
		made, err = v.create(ctx, e.Object)
		switch exists := kube.HasCode(err, http.StatusConflict); {
		case exists && e.Verb == course.Ensure:
			v.Forget(document.Text(e.Object, "kind"))
			return "", nil // whatever it is like
		case exists:
			verb = ""
			made, err = v.existing(ctx, e)
		}
	case course.Apply:
		verb = "apply"
		err = v.send(ctx, kube.Request{Method: http.MethodPatch, Path: pathOf(e.Object, name), Type: "application/apply-patch+yaml",
			Query: url.Values{"fieldManager": {Manager}, "force": {strconv.FormatBool(e.Force)}}}, e.Object, &made)
	case course.Patch:
		verb = "patch"
		err = v.patch(ctx, e.Was, e.Object, &made)
	case course.Remove:
		return "delete", v.remove(ctx, e.Object)
	case course.Release:
		verb = "patch"
		made, err = v.release(ctx, e.Object)
	}
	if err != nil {
		return "", wrap(string(e.Verb), e.Object, err)
	}
	v.know(made)
	return verb, nil
}

func wrap(verb string, o course.Object, err error) error {
	if errors.Is(err, ErrStale) {
		return err
	}
	return fmt.Errorf("%s %s: %w", verb, ID(o), err)
}

func (v *View) send(ctx context.Context, r kube.Request, body any, into *course.Object) error {
	var err error
	if r.Body, err = json.Marshal(body); err != nil {
		return err
	}
	return v.server.Do(ctx, r, into)
}

func (v *View) create(ctx context.Context, o course.Object) (made course.Object, err error) {
	err = v.send(ctx, kube.Request{Method: http.MethodPost, Path: pathOf(o), Query: url.Values{"fieldManager": {Manager}}}, o, &made)
	return made, err
}

// existing is what has the name already. What is lent to a candidate has to be what the release says.
func (v *View) existing(ctx context.Context, e course.Effect) (found course.Object, err error) {
	err = v.server.Do(ctx, kube.Request{Path: pathOf(e.Object, document.Text(e.Object, "metadata", "name"))}, &found)
	switch {
	case kube.HasCode(err, http.StatusNotFound):
		return nil, ErrStale
	case err != nil:
		return nil, err
	case document.At(found, "metadata", "deletionTimestamp") != nil:
		return nil, ErrStale
	}
	for key, value := range e.Object {
		if key != "metadata" && key != "stringData" && !contains(found[key], value) {
			return nil, strategy.Problems{{Object: ID(e.Object), Field: key, Message: "exists and is not what the release makes of it, and no candidate can be tested with another one; delete it, or give it a name with a hash"}}
		}
	}
	return found, nil
}

// contains tells whether have is want with, perhaps, what a cluster adds.
func contains(have, want any) bool {
	w, ok := want.(map[string]any)
	if !ok {
		return document.Equal(have, want)
	}
	h, _ := have.(map[string]any)
	for key, value := range w {
		if !contains(h[key], value) {
			return false
		}
	}
	return true
}

// patch sends what is different, and to that object only as it was read.
func (v *View) patch(ctx context.Context, was, is course.Object, into *course.Object) error {
	changes := difference(was, is)
	meta, _ := changes["metadata"].(map[string]any)
	if meta == nil {
		meta = course.Object{}
		changes["metadata"] = meta
	}
	meta["resourceVersion"] = document.Text(was, "metadata", "resourceVersion")
	err := v.send(ctx, kube.Request{Method: http.MethodPatch, Path: pathOf(was, document.Text(was, "metadata", "name")), Type: "application/merge-patch+json",
		Query: url.Values{"fieldManager": {Manager}}}, changes, into)
	if kube.HasCode(err, http.StatusConflict) || kube.HasCode(err, http.StatusNotFound) {
		return ErrStale
	}
	return err
}

// difference is the JSON merge patch from one object to the other.
func difference(was, is map[string]any) map[string]any {
	out := map[string]any{}
	for key := range was {
		if _, kept := is[key]; !kept {
			out[key] = nil
		}
	}
	for key, value := range is {
		before, had := was[key]
		if had && document.Equal(before, value) {
			continue
		}
		a, isMap := before.(map[string]any)
		if b, both := value.(map[string]any); isMap && both {
			out[key] = difference(a, b)
		} else {
			out[key] = value
		}
	}
	return out
}

// remove deletes that very object. A workload is gone when its pods are.
func (v *View) remove(ctx context.Context, o course.Object) error {
	propagation := "Background"
	if document.Text(o, "kind") == "Deployment" {
		propagation = "Foreground"
	}
	options := course.Object{"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
	if uid := document.Text(o, "metadata", "uid"); uid != "" {
		options["preconditions"] = course.Object{"uid": uid}
	}
	var left course.Object // the object, or a Status
	err := v.send(ctx, kube.Request{Method: http.MethodDelete, Path: pathOf(o, document.Text(o, "metadata", "name"))}, options, &left)
	v.Forget(document.Text(o, "kind"))
	if err == nil || kube.HasCode(err, http.StatusNotFound) {
		return nil
	}
	if kube.HasCode(err, http.StatusConflict) {
		return ErrStale
	}
	return wrap("delete", o, err)
}

// release takes our mark off, and, where somebody else applies the object, our part in its fields: a key
// that is taken out of it later must not stay because it was once made here.
func (v *View) release(ctx context.Context, o course.Object) (made course.Object, err error) {
	bare := document.Clone(o)
	delete(document.Mapping(bare, "metadata", "labels"), strategy.LabelCandidateOf)
	if kept, ours := keepers(o); kept && ours {
		// Empty managers of ours: fields that somebody else applies stay.
		others := slices.DeleteFunc(slices.Clone(document.At(o, "metadata", "managedFields").([]any)), func(m any) bool {
			entry, _ := m.(map[string]any)
			return document.Text(entry, "manager") == Manager
		})
		document.Mapping(bare, "metadata")["managedFields"] = others
	}
	return made, v.patch(ctx, o, bare, &made)
}

// keepers tells whether somebody else applies an object, and whether anything of it is ours.
func keepers(o course.Object) (others, ours bool) {
	for _, entry := range document.Mappings(document.At(o, "metadata", "managedFields")) {
		switch {
		case document.Text(entry, "manager") == Manager:
			ours = true
		case document.Text(entry, "operation") == "Apply":
			others = true
		}
	}
	return others, ours
}

// know puts an object into what has been read.
func (v *View) know(o course.Object) {
	if o == nil {
		return
	}
	for q, list := range v.read {
		list = slices.DeleteFunc(slices.Clone(list), func(have course.Object) bool {
			return document.Text(have, "kind") == document.Text(o, "kind") && document.Group(have) == document.Group(o) &&
				document.Text(have, "metadata", "name") == document.Text(o, "metadata", "name") && document.Text(have, "metadata", "namespace") == document.Text(o, "metadata", "namespace")
		})
		if q.Holds(o) {
			list = append(list, o)
		}
		v.read[q] = list
	}
}

// Get reads one object; nil where there is none.
func (v *View) Get(ctx context.Context, kind, namespace, name string) (course.Object, error) {
	var o course.Object
	err := v.server.Do(ctx, kube.Request{Path: path("v1", kind, namespace, name)}, &o)
	if kube.HasCode(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s/%s: %w", kind, namespace, name, err)
	}
	return o, nil
}
