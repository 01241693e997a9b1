// Package route works out what routing objects have to be for live traffic to be led as a step says. It
// is pure: it is given the objects that exist, answers those that have to change, and applies nothing.
//
// An existing route belongs to somebody else and is patched, never replaced: what does not lead to the
// service stays as it is, and what does keeps its own filters, matches, timeouts and place. What it was
// is kept in one annotation of the object itself, so that whoever comes later, after a crash, in another
// process, without memory, leads all traffic back and leaves the object as it was found. What somebody
// changed on a patched route meanwhile is kept through that.
//
// Where no route leads to a service one is made, marked with strategy.LabelCandidateOf, and taken away
// again at the end.
//
// Every answer holds for whatever was before: Lead of the same traffic twice changes nothing, and from
// any traffic to any other one call is enough.
package route

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Object is a Kubernetes object as it is decoded from YAML or JSON.
type Object = document.Object

// Service is what is led: two Service objects in one namespace.
type Service struct {
	Name      string
	Namespace string
	Candidate string // name of the candidate's Service
	Port      int    // of both; for routes that have to be made
	Target    string // the stable Deployment; the candidate's is Target + strategy.Suffix. Router none only
	Label     string // in which the pods of both differ. Router none only
	Route     Object // spec.service of the Canary; for routes that have to be made
	Ingress   string // the only Ingress to look at; empty: every one that leads to the service
}

// Of takes what a router has to know out of a service.
func Of(s strategy.Service) Service {
	return Service{Name: s.Name, Namespace: s.Namespace, Candidate: s.Candidate(), Port: s.Main.Port, Target: s.Target.Name, Label: s.Label, Route: s.Route, Ingress: s.Ingress.Name}
}

// Traffic is what the candidate gets. The zero value: nothing, everything is as it was found.
type Traffic struct {
	Weight   int              `json:"weight,omitempty"`  // percent of the requests; with Matches, of those that fit one
	Matches  []strategy.Match `json:"matches,omitempty"` // alternatives
	Mirror   int              `json:"mirror,omitempty"`  // percent of the requests that are copied to it
	Affinity Affinity         `json:"affinity"`
}

// Affinity holds users who were led to the candidate there, by a cookie.
type Affinity struct {
	Cookie     string        `json:"cookie,omitempty"` // empty: they are not held
	Value      string        `json:"value,omitempty"`  // one for each release, so that a cookie of an earlier one holds nobody
	MaxAge     time.Duration `json:"maxAge,omitempty"`
	Attributes []string      `json:"attributes,omitempty"` // of the cookie; nil: Path=/
}

// At is the traffic of one step. release, such as the version, tells its cookies from those of others.
func At(s strategy.Service, step strategy.Step, release string) Traffic {
	t := Traffic{Weight: step.Weight, Mirror: step.Mirror}
	if step.Matched {
		t.Matches = s.Matches
	}
	if s.Affinity.Cookie != "" {
		sum := sha256.Sum256([]byte(release))
		t.Affinity = Affinity{Cookie: s.Affinity.Cookie, Value: hex.EncodeToString(sum[:8]), MaxAge: s.Affinity.MaxAge, Attributes: s.Affinity.Attributes}
	}
	return t
}

// allStable tells whether the candidate gets nothing.
func (t Traffic) allStable() bool { return t.Weight == 0 && t.Mirror == 0 }

// held is whether some users are led to the candidate and others are not.
func (t Traffic) held() bool { return t.Affinity.Cookie != "" && t.Weight > 0 && t.Weight < 100 }

// Result is what has to be done, in this order.
type Result struct {
	Apply    []Object // whole objects; only those that are not so already
	Delete   []Object // made here and no longer needed: kind and name
	Warnings []string
	// Waits is what has to be ready before the rest of the traffic can follow; empty: nothing. Then Lead is
	// called again, with what the cluster has by then.
	Waits string
}

// Router leads the traffic of one kind of routing objects.
type Router struct {
	name     string
	mirrors  bool
	matches  bool
	holds    bool
	needs    []Kind
	lead     func(call) (Result, error)
	percents bool // HTTPRoute: mirrors a share
	prefix   string
}

// Kind is a kind of object that a router has to be given.
type Kind struct{ Group, Kind string }

// Option says what the cluster's own version of a router has.
type Option func(*Router)

// WithoutMirrorPercent is for a Gateway API before 1.3, whose RequestMirror filter copies all or nothing.
func WithoutMirrorPercent() Option { return func(r *Router) { r.percents = false } }

// WithAnnotationPrefix is for an ingress-nginx that was started with --annotations-prefix.
func WithAnnotationPrefix(prefix string) Option { return func(r *Router) { r.prefix = prefix } }

// For finds a router by its name in package strategy.
func For(name string, options ...Option) (Router, error) {
	services, deployments := Kind{"", "Service"}, Kind{"apps", "Deployment"}
	routes := Kind{gatewayGroup, "HTTPRoute"}
	r := Router{name: name, percents: true, prefix: "nginx.ingress.kubernetes.io"}
	switch name {
	case strategy.RouterNone:
		r.needs, r.lead = []Kind{services, deployments, {"autoscaling", "HorizontalPodAutoscaler"}}, leadPods
	case strategy.RouterGatewayAPI:
		r.needs, r.lead, r.mirrors, r.matches, r.holds = []Kind{routes}, leadHTTPRoutes, true, true, true
	case strategy.RouterLinkerd:
		r.needs, r.lead, r.matches = []Kind{routes, {linkerdGroup, "HTTPRoute"}, {"linkerd.io", "ServiceProfile"}}, leadLinkerd, true
	case strategy.RouterIstio:
		r.needs, r.lead, r.mirrors, r.matches, r.holds = []Kind{{istioGroup, "VirtualService"}, {istioGroup, "DestinationRule"}}, leadIstio, true, true, true
	case strategy.RouterNGINX:
		r.needs, r.lead, r.matches, r.holds = []Kind{{"networking.k8s.io", "Ingress"}}, leadIngresses, true, true
	default:
		return Router{}, fmt.Errorf("router %q is not known; write %s, %s, %s, %s or %s", name, strategy.RouterNone, strategy.RouterGatewayAPI,
			strategy.RouterIstio, strategy.RouterLinkerd, strategy.RouterNGINX)
	}
	for _, option := range options {
		option(&r)
	}
	return r, nil
}

// Needs are the kinds of objects in the service's namespace that Lead wants to be given; those of them
// that the cluster does not know are left out.
func (r Router) Needs() []Kind { return slices.Clone(r.needs) }

// call is one Lead.
type call struct {
	Router
	service  Service
	traffic  Traffic
	existing []Object
}

// Lead works out what has to change for a service's traffic to be as told. existing is what the cluster
// has of the kinds that the router needs; what does not lead to the service does no harm there. An error
// is strategy.Problems, and then nothing is to be changed.
func (r Router) Lead(s Service, t Traffic, existing []Object) (Result, error) {
	c := call{r, s, t, existing}
	if err := c.able(); err != nil {
		return Result{}, err
	}
	result, err := r.lead(c)
	if err != nil {
		return Result{}, err
	}
	result.Apply = slices.DeleteFunc(result.Apply, c.isSo)
	return result, nil
}

// able names what the router cannot do of what is asked.
func (c call) able() error {
	t := c.traffic
	switch {
	case t.Weight < 0 || t.Weight > 100 || t.Mirror < 0 || t.Mirror > 100:
		return c.wrong("weight %d and mirror %d: want percentages from 0 to 100", t.Weight, t.Mirror)
	case len(t.Matches) > 0 && !c.matches:
		return c.wrong("router %s sees no headers; use blue/green, or a router that does", c.name)
	case t.Mirror > 0 && !c.mirrors:
		return c.wrong("router %s cannot copy requests; mirror nothing, or use istio or gatewayapi:v1", c.name)
	case t.Affinity.Cookie != "" && !c.holds:
		return c.wrong("router %s cannot set a cookie for the candidate alone; hold nobody, or use istio, nginx or gatewayapi:v1", c.name)
	case t.Affinity.Cookie != "" && t.Affinity.Value == "":
		return c.wrong("cookie %s has no value that is this release's own", t.Affinity.Cookie)
	}
	return nil
}

func (c call) wrong(format string, args ...any) error {
	return strategy.Problems{{Object: "Service " + c.service.Namespace + "/" + c.service.Name, Message: fmt.Sprintf(format, args...)}}
}

// isSo tells whether the cluster has the object like that already.
func (c call) isSo(o Object) bool {
	for _, e := range c.existing {
		if sameObject(e, o) {
			return document.Equal(e, o)
		}
	}
	return false
}

func sameObject(a, b Object) bool {
	return document.Group(a) == document.Group(b) && document.Text(a, "kind") == document.Text(b, "kind") &&
		document.Text(a, "metadata", "name") == document.Text(b, "metadata", "name") && document.Text(a, "metadata", "namespace") == document.Text(b, "metadata", "namespace")
}

// of are the existing objects of one kind.
func (c call) of(group, kind string) []Object {
	var out []Object
	for _, o := range c.existing {
		if document.Group(o) == group && document.Text(o, "kind") == kind {
			out = append(out, o)
		}
	}
	return out
}

func (c call) named(group, kind, name string) Object {
	for _, o := range c.of(group, kind) {
		if document.Text(o, "metadata", "name") == name && document.Text(o, "metadata", "namespace") == c.service.Namespace {
			return o
		}
	}
	return nil
}

// ours tells whether the object was made here for this service.
func (c call) ours(o Object) bool {
	return document.Text(o, "metadata", "labels", strategy.LabelCandidateOf) == c.service.Name &&
		document.Text(o, "metadata", "namespace") == c.service.Namespace
}

// made puts an object that is ours in its place: fields that a cluster added to it stay.
func (c call) made(o Object) Object {
	meta := document.Mapping(o, "metadata")
	meta["namespace"] = c.service.Namespace
	meta["labels"] = Object{strategy.LabelCandidateOf: c.service.Name}
	existing := c.named(document.Group(o), document.Text(o, "kind"), document.Text(meta, "name"))
	if existing == nil {
		return o
	}
	out := document.Clone(existing)
	out["apiVersion"] = o["apiVersion"]
	if !covers(out["spec"], o["spec"]) {
		out["spec"] = o["spec"]
	}
	// Annotations are an Ingress's whole meaning; there are no others on what is made.
	delete(document.Mapping(out, "metadata"), "annotations")
	if annotations := meta["annotations"]; annotations != nil {
		document.Mapping(out, "metadata")["annotations"] = annotations
	}
	return out
}

// gone names an object to delete.
func gone(o Object) Object {
	return Object{"apiVersion": o["apiVersion"], "kind": o["kind"],
		"metadata": Object{"name": document.Text(o, "metadata", "name"), "namespace": document.Text(o, "metadata", "namespace")}}
}
