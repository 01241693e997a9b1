package course

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Object is a Kubernetes object as it is decoded.
type Object = document.Object

// What is written on objects that are made here, beside strategy.LabelCandidateOf.
const (
	// AnnotationMadeOf, on a candidate's Deployment, tells what it and all that comes with it was made of. It
	// is made last: who finds it finds the rest.
	AnnotationMadeOf = "wheelwright.dev/made-of"
	// AnnotationMadeFor, on a Service that the release leaves to its Canary, names the version whose delivery
	// made it; it is gone once that is promoted.
	AnnotationMadeFor = "wheelwright.dev/made-for"
	// AnnotationIdleSince, on a candidate's Deployment, is when its last traffic was led away.
	AnnotationIdleSince = "wheelwright.dev/idle-since"
)

// Member is a service of the release with what there is to know about it.
type Member struct {
	strategy.Service
	Version string // of the release to come
	Running []Object
	Coming  []Object
	Making  strategy.Making
	// Routers lead its traffic: one; of a service whose declaration cannot be read any of them may have.
	Routers []route.Router
	// Led is false where it is promoted without a canary: on a first install, or because nobody wants it measured.
	Led bool
}

// Candidate is what is made for it, with so many pods; 0: as many as the release says.
func (m Member) Candidate(pods int) (strategy.Candidate, error) {
	making := m.Making
	making.Replicas = pods
	c, err := m.MakeCandidate(m.Running, m.Coming, making)
	if err != nil {
		return c, err
	}
	for _, o := range c.Objects() {
		tidy(o)
	}
	for _, need := range c.Needs {
		mark(need, "labels", strategy.LabelCandidateOf, m.Name)
	}
	spec := document.Mapping(c.Workload, "spec")
	least, _ := document.Number(spec["minReadySeconds"])
	spec["progressDeadlineSeconds"] = int64(max(int(m.ProgressDeadline.Seconds()), int(least)+1))
	if c.Autoscaler != nil && spec["replicas"] == nil {
		if n, ok := document.Number(document.At(c.Autoscaler, "spec", "minReplicas")); ok {
			spec["replicas"] = int64(n)
		}
	}
	return c, nil
}

// tidy takes off what says that somebody else keeps an object.
func tidy(o Object) {
	meta := document.Mapping(o, "metadata")
	for _, key := range []string{"labels", "annotations"} {
		written, _ := meta[key].(map[string]any)
		for name := range written {
			if strings.HasPrefix(name, "applyset.kubernetes.io/") || name == "kubectl.kubernetes.io/last-applied-configuration" {
				delete(written, name)
			}
		}
	}
}

func mark(o Object, where, key, value string) {
	meta := document.Mapping(o, "metadata")
	written, _ := meta[where].(map[string]any)
	if written == nil {
		written = Object{}
		meta[where] = written
	}
	written[key] = value
}

// madeOf is the sum of what a candidate is made of.
func madeOf(c strategy.Candidate) (string, error) {
	text, err := json.Marshal(c.Objects())
	if err != nil {
		return "", fmt.Errorf("encode the candidate: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), nil
}

// StableObject is the Service that the release leaves to its Canary; nil where it brings one. What runs
// says by which labels, until promotion; then the new release does.
func (m Member) StableObject(promoted bool) (Object, error) {
	if m.HasService || m.Target.Name == "" {
		return nil, nil
	}
	sets := [][]Object{m.Running, m.Coming}
	if promoted {
		slices.Reverse(sets)
	}
	for _, set := range sets {
		for _, o := range set {
			if is(o, "apps", "Deployment", m.Namespace, m.Target.Name, m.Making.Namespace) {
				return m.StableService(o, m.Making.SelectorKeys)
			}
		}
	}
	return nil, nil
}

// is tells whether o is the object of that name; namespace is meant where it names none.
func is(o Object, group, kind, namespace, name, otherwise string) bool {
	own := document.Text(o, "metadata", "namespace")
	if own == "" {
		own = otherwise
	}
	return document.Group(o) == group && document.Text(o, "kind") == kind && own == namespace && document.Text(o, "metadata", "name") == name
}

// Query names objects to read: all of a kind in a namespace, or those that a selector fits.
type Query struct {
	route.Kind
	Namespace, Selector string
}

func (q Query) same(o Object) bool {
	return document.Group(o) == q.Group && document.Text(o, "kind") == q.Kind.Kind && document.Text(o, "metadata", "namespace") == q.Namespace
}

// Holds tells whether the object is one of those that q reads.
func (q Query) Holds(o Object) bool {
	key, value, labelled := strings.Cut(q.Selector, "=")
	have := document.Text(o, "metadata", "labels", key)
	return q.same(o) && (q.Selector == "" || have != "" && (!labelled || have == value))
}

// Deployments are where every look at a cluster begins.
func Deployments(members []Member) []Query {
	var out []Query
	for _, m := range members {
		out = append(out, Query{Kind: route.Kind{Group: "apps", Kind: "Deployment"}, Namespace: m.Namespace})
	}
	return unique(out)
}

// Wants are what Forward or Back has to be given beside the Deployments, which are live already. What is
// there in good order is not read again.
func Wants(members []Member, live []Object, back bool) []Query {
	var out []Query
	for _, m := range members {
		cold := m.workload(live) == nil
		for _, r := range m.Routers {
			for _, kind := range r.Needs() {
				asked := kind.Kind == "ServiceProfile" && !cold // that once is enough
				needless := kind.Kind == "HorizontalPodAutoscaler" && m.Autoscaler.Name == "" && m.Canary != ""
				if !back && (!m.Led || asked || needless) {
					continue
				}
				out = append(out, Query{Kind: kind, Namespace: m.Namespace})
			}
		}
		if back {
			out = append(out, m.leftovers()...)
		}
	}
	return unique(out)
}

// leftovers are where something that was made for the member can be.
func (m Member) leftovers() []Query {
	out := []Query{{Kind: route.Kind{Kind: "Service"}, Namespace: m.Namespace}}
	scaler := route.Kind{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}
	if group, _, both := strings.Cut(m.Autoscaler.APIVersion, "/"); both && m.Autoscaler.Kind != "" {
		scaler = route.Kind{Group: group, Kind: m.Autoscaler.Kind}
	}
	out = append(out, Query{Kind: scaler, Namespace: m.Namespace})
	kinds := []string{"ConfigMap", "Secret", "ServiceAccount"}
	if c, err := m.Candidate(0); err == nil && m.Led {
		kinds = nil
		for _, need := range c.Needs {
			kinds = append(kinds, document.Text(need, "kind"))
		}
	} else if !m.Led && m.Canary != "" {
		kinds = nil
	}
	for _, kind := range kinds {
		out = append(out, Query{Kind: route.Kind{Kind: kind}, Namespace: m.Namespace, Selector: strategy.LabelCandidateOf})
	}
	return out
}

func unique(queries []Query) []Query {
	var out []Query
	for _, q := range queries {
		if !slices.Contains(out, q) {
			out = append(out, q)
		}
	}
	return out
}

// workload is the candidate's Deployment.
func (m Member) workload(live []Object) Object {
	return find(live, "apps", "Deployment", m.Namespace, m.Target.Name+strategy.Suffix)
}

func find(live []Object, group, kind, namespace, name string) Object {
	for _, o := range live {
		if is(o, group, kind, namespace, name, "") {
			return o
		}
	}
	return nil
}

// mine are the objects that were made for the member. Nothing is made for one without a name.
func (m Member) mine(live []Object, kinds ...string) []Object {
	var out []Object
	if m.Name == "" {
		return nil
	}
	for _, o := range live {
		if document.Text(o, "metadata", "labels", strategy.LabelCandidateOf) == m.Name && document.Text(o, "metadata", "namespace") == m.Namespace &&
			slices.Contains(kinds, document.Text(o, "kind")) {
			out = append(out, o)
		}
	}
	return out
}
