package strategy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// v1beta1Only are the fields that flagger.app/v1alpha3 does not have, by the end of their path. There
// they are reported as unknown, and not read, as Flagger of that time did not.
var v1beta1Only = map[string][]string{
	"spec":              {"analysis", "routeRef", "upstreamRef", "revertOnDeletion", "suspend"},
	"spec.service":      {"backendTimeout", "headless", "trafficDistribution", "unmanagedMetadata", "appProtocol", "gatewayRefs", "delegation", "mirror", "apex", "primary", "canary"},
	"analysis":          {"stepWeights", "stepWeightPromotion", "mirrorWeight", "primaryReadyThreshold", "canaryReadyThreshold", "alerts", "sessionAffinity"},
	"analysis.metrics":  {"thresholdRange", "templateVariables"},
	"analysis.webhooks": {"muteAlert", "retries"},
}

// canaryReader reads one Canary.
type canaryReader struct {
	*report
	all     set
	object  Object
	id      string
	alpha   bool // v1alpha3
	options Options
	out     Service
}

func readCanary(r *report, all set, object Object, o Options) Service {
	namespace, name := all.namespaceOf(object), document.Text(object, "metadata", "name")
	c := &canaryReader{report: r, all: all, object: object, id: canaryID(namespace, name), options: o}
	c.out = Service{Namespace: namespace, Canary: name, Declared: object}
	top := newNode(r, c.id, "", object)
	for _, key := range []string{"apiVersion", "kind", "metadata", "status"} {
		top.has(key)
	}
	switch version := strings.TrimPrefix(document.Text(object, "apiVersion"), "flagger.app/"); version {
	case "v1beta1":
	case "v1alpha3":
		c.alpha = true
	default:
		top.wrong("apiVersion", "flagger.app/%s is not known; write flagger.app/v1beta1", version)
	}
	spec, ok := top.child("spec")
	top.done()
	if !ok {
		top.wrong("spec", "missing; write targetRef, service and analysis below it")
		return c.out
	}
	c.spec(spec)
	c.annotations()
	return c.out
}

// since takes out of a mapping what its version does not know, and says so.
func (c *canaryReader) since(n node, at string) {
	if !c.alpha {
		return
	}
	for _, key := range v1beta1Only[at] {
		if n.has(key) {
			n.warn(key, "unknown to flagger.app/v1alpha3, not acted on; write apiVersion: flagger.app/v1beta1 to have it")
			delete(n.fields, key)
		}
	}
}

// own gives a node fields of its own, so that since can take some out.
func own(n node) node {
	fields := make(map[string]any, len(n.fields))
	for key, v := range n.fields {
		fields[key] = v
	}
	n.fields = fields
	return n
}

func (c *canaryReader) spec(n node) {
	n = own(n)
	hasBeta := c.alpha && n.fields["analysis"] != nil && n.fields["canaryAnalysis"] == nil
	c.since(n, "spec")
	c.provider(n)
	c.target(n)
	c.service(n)
	c.labels()
	c.autoscaler(n)
	c.ingress(n)
	c.out.SkipAnalysis = n.boolean("skipAnalysis")
	c.out.Suspended = n.boolean("suspend")
	c.out.ProgressDeadline = 600 * time.Second
	if seconds, ok := n.integer("progressDeadlineSeconds", 1, 7*24*3600); ok {
		c.out.ProgressDeadline = time.Duration(seconds) * time.Second
	}
	n.unused("metrics come from the source that the spoke is configured with", "metricsServer")
	n.unused("its router is none of ours", "routeRef", "upstreamRef")
	n.unused("taking a Canary out changes no workload here", "revertOnDeletion")
	old, hasOld := n.child("canaryAnalysis")
	now, hasNow := n.child("analysis")
	switch {
	case hasBeta:
		n.wrong("analysis", "is of flagger.app/v1beta1, and this is v1alpha3; write apiVersion: flagger.app/v1beta1, or canaryAnalysis here")
	case hasOld && hasNow:
		n.wrong("canaryAnalysis", "stands beside analysis, and only one can hold; take canaryAnalysis out")
	case hasOld:
		c.analysis(own(old))
	case hasNow:
		c.analysis(own(now))
	case !c.out.SkipAnalysis:
		n.wrong(c.analysisKey(), "missing; write it, or skipAnalysis: true for a promotion that nothing measures")
	}
	if c.out.SkipAnalysis {
		c.out.Strategy, c.out.Steps = cmp.Or(c.out.Strategy, BlueGreen), nil
	}
	n.done()
}

func (c *canaryReader) analysisKey() string {
	if c.alpha {
		return "canaryAnalysis"
	}
	return "analysis"
}

// provider is which router leads the traffic.
func (c *canaryReader) provider(n node) {
	p := n.text("provider")
	switch {
	case p == "":
		c.out.Router = c.options.Router
	case p == "kubernetes":
		c.out.Router = RouterNone
	case strings.HasPrefix(p, "gatewayapi:"):
		c.out.Router = RouterGatewayAPI
	case p == RouterIstio, p == RouterLinkerd, p == RouterNGINX:
		c.out.Router = p
	default:
		n.wrong("provider", "%s is no router of this plugin; write kubernetes, istio, linkerd, nginx or gatewayapi:v1", p)
	}
}

func (c *canaryReader) ref(n node, key string) (Ref, node, bool) {
	m, ok := n.child(key)
	if !ok {
		return Ref{}, m, false
	}
	ref := Ref{m.text("apiVersion"), m.text("kind"), m.text("name")}
	return ref, m, true
}

func (r Ref) group() string {
	g, _, both := strings.Cut(r.APIVersion, "/")
	if !both {
		return ""
	}
	return g
}

func (c *canaryReader) target(n node) {
	ref, m, ok := c.ref(n, "targetRef")
	if !ok {
		n.wrong("targetRef", "missing; write apiVersion: apps/v1, kind: Deployment and the name of the workload")
		return
	}
	m.done()
	ref.APIVersion, ref.Kind = cmp.Or(ref.APIVersion, "apps/v1"), cmp.Or(ref.Kind, "Deployment")
	switch {
	case ref.Name == "":
		m.wrong("name", "missing; write the name of the Deployment")
		return
	case ref.Kind != "Deployment" || ref.group() != "apps":
		m.wrong("kind", "%s of %s: a candidate can be made of a Deployment of apps/v1 only; take this Canary out, and %s is replaced at promotion", ref.Kind, ref.APIVersion, ref.Name)
		return
	}
	c.out.Target = ref
	if c.all.get("apps", "Deployment", c.out.Namespace, ref.Name) == nil {
		m.wrong("name", "the release has no Deployment %s/%s; write the name of one that it has%s", c.out.Namespace, ref.Name, c.deployments())
		return
	}
	if c.all.get("apps", "Deployment", c.out.Namespace, ref.Name+Suffix) != nil {
		m.wrong("name", "the release brings a Deployment %s of its own, which is the candidate's name; rename it", ref.Name+Suffix)
	}
}

// labels looks at what tells the target's pods from others'.
func (c *canaryReader) labels() {
	workload := c.all.get("apps", "Deployment", c.out.Namespace, c.out.Target.Name)
	if workload == nil {
		return
	}
	key, value, err := selectorKey(workload, c.options.SelectorKeys)
	if err != nil {
		c.problems = append(c.problems, Problem{"Deployment " + c.out.Namespace + "/" + c.out.Target.Name, "spec.selector.matchLabels", err.Error()})
		return
	}
	c.out.Label = key
	c.bystanders(key, value)
}

// deployments are the workloads that a Canary could have meant.
func (c *canaryReader) deployments() string {
	var names []string
	for id := range c.all.objects {
		if id.kind == "Deployment" && id.namespace == c.out.Namespace {
			names = append(names, id.name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return ": " + strings.Join(names, ", ")
}

func (c *canaryReader) autoscaler(n node) {
	ref, m, ok := c.ref(n, "autoscalerRef")
	if !ok {
		c.out.Autoscaler = c.autoscalerOfTarget()
		return
	}
	m.unused("the stable side's autoscaler is not changed", "primaryScalerQueries", "primaryScalerReplicas")
	m.done()
	scaler := c.all.get(ref.group(), ref.Kind, c.out.Namespace, ref.Name)
	if scaler == nil {
		m.wrong("name", "the release has no %s %s/%s; write the name of one that it has, or take autoscalerRef out", ref.Kind, c.out.Namespace, ref.Name)
		return
	}
	if scaled := document.Text(scaler, "spec", "scaleTargetRef", "name"); c.out.Target.Name != "" && scaled != c.out.Target.Name {
		m.wrong("name", "%s scales %q, not %s; name the autoscaler of the target", ref, scaled, c.out.Target.Name)
	}
	ref.APIVersion = document.Text(scaler, "apiVersion")
	c.out.Autoscaler = ref
}

// autoscalerOfTarget finds one that scales the target and is not named.
func (c *canaryReader) autoscalerOfTarget() Ref {
	var found []Ref
	for id, o := range c.all.objects {
		if id.namespace == c.out.Namespace && id.kind == "HorizontalPodAutoscaler" && c.out.Target.Name != "" &&
			document.Text(o, "spec", "scaleTargetRef", "name") == c.out.Target.Name && document.Text(o, "spec", "scaleTargetRef", "kind") == c.out.Target.Kind {
			found = append(found, Ref{document.Text(o, "apiVersion"), id.kind, id.name})
		}
	}
	if len(found) == 0 {
		return Ref{}
	}
	return slices.MinFunc(found, func(a, b Ref) int { return cmp.Compare(a.Name, b.Name) })
}

func (c *canaryReader) ingress(n node) {
	ref, m, ok := c.ref(n, "ingressRef")
	if !ok {
		return
	}
	m.done()
	c.out.Ingress = ref
	if c.all.get("networking.k8s.io", "Ingress", c.out.Namespace, ref.Name) == nil {
		m.wrong("name", "the release has no Ingress %s/%s of networking.k8s.io; write the name of one that it has", c.out.Namespace, ref.Name)
	}
}

func (c *canaryReader) service(n node) {
	m, ok := n.child("service")
	if !ok {
		c.out.Name = c.out.Target.Name
		n.wrong("service", "missing; write port: and the port of the workload")
		return
	}
	m = own(m)
	c.since(m, "spec.service")
	c.out.Name = cmp.Or(m.text("name"), c.out.Target.Name)
	if n := len(c.out.Candidate()); n > 63 {
		m.wrong("name", "the candidate's, %s, would have %d characters, and a Service has at most 63; write a shorter one", c.out.Candidate(), n)
	}
	port, hasPort := m.integer("port", 1, 65535)
	c.out.Ports = []Port{{Name: cmp.Or(m.text("portName"), "http"), Port: port, Target: c.targetPort(m, port), Protocol: "TCP", AppProtocol: m.text("appProtocol")}}
	discovery := m.boolean("portDiscovery")
	c.out.Route = Object{}
	for _, key := range routeKeys {
		if m.has(key) {
			c.out.Route[key] = document.Clone(m.fields[key])
		}
	}
	m.unused("only the canary is mirrored to; see analysis.mirror", "mirror")
	m.unused("objects keep the labels and annotations that the release gives them", "apex", "primary", "canary", "unmanagedMetadata")
	m.unused("write the Service in the release, and its candidate's is like it", "headless", "trafficDistribution")
	m.unused("App Mesh is none of our routers", "meshName", "backends")
	m.unused("VirtualServices that are delegated to are patched as they are", "delegation")
	m.done()
	c.out.Main = c.out.Ports[0]
	if existing := c.all.get("", "Service", c.out.Namespace, c.out.Name); existing != nil && c.out.Name != "" {
		c.out.HasService = true
		c.existingPorts(m, existing, port)
	} else if !hasPort && m.fields["port"] == nil && c.out.Name != "" {
		m.wrong("port", "missing, and the release has no Service %s/%s; write the port of the workload", c.out.Namespace, c.out.Name)
	} else if discovery {
		c.discover()
	}
	if c.out.Name != "" && c.all.get("", "Service", c.out.Namespace, c.out.Candidate()) != nil {
		m.wrong("name", "the release brings a Service %s of its own, which is the candidate's name; rename it", c.out.Candidate())
	}
}

// routeKeys describe routes that have to be made where the release has none.
var routeKeys = []string{"hosts", "gateways", "gatewayRefs", "match", "rewrite", "timeout", "retries", "headers", "corsPolicy", "trafficPolicy", "backendTimeout"}

func (c *canaryReader) targetPort(m node, port int) any {
	if !m.has("targetPort") {
		return port
	}
	switch v := m.fields["targetPort"].(type) {
	case string:
		return v
	default:
		if f, ok := document.Number(v); ok {
			return int(f)
		}
		m.wrong("targetPort", "%v: write the number or the name of a container's port", v)
		return port
	}
}

// existingPorts takes the release's own Service as it is; its port has to be the one that is led.
func (c *canaryReader) existingPorts(m node, existing Object, port int) {
	c.out.Ports = nil
	var numbers []string
	for _, p := range document.Mappings(document.At(existing, "spec", "ports")) {
		n, _ := document.Number(p["port"])
		made := Port{Name: document.Text(p, "name"), Port: int(n), Target: p["targetPort"], Protocol: cmp.Or(document.Text(p, "protocol"), "TCP"), AppProtocol: document.Text(p, "appProtocol")}
		if made.Target == nil {
			made.Target = made.Port
		}
		if c.out.Ports = append(c.out.Ports, made); len(c.out.Ports) == 1 || made.Port == port {
			c.out.Main = made
		}
		numbers = append(numbers, fmt.Sprint(made.Port))
	}
	if port != 0 && !slices.Contains(numbers, fmt.Sprint(port)) {
		m.wrong("port", "Service %s/%s has no port %d; write one that it has: %s", c.out.Namespace, c.out.Name, port, strings.Join(numbers, ", "))
	}
}

// discover adds the ports of the workload's containers that are not there yet.
func (c *canaryReader) discover() {
	workload := c.all.get("apps", "Deployment", c.out.Namespace, c.out.Target.Name)
	for _, container := range document.Mappings(document.At(workload, "spec", "template", "spec", "containers")) {
		for _, p := range document.Mappings(container["ports"]) {
			f, _ := document.Number(p["containerPort"])
			name := cmp.Or(document.Text(p, "name"), fmt.Sprintf("tcp-%s-%d", document.Text(container, "name"), int(f)))
			if slices.ContainsFunc(c.out.Ports, func(have Port) bool { return have.Port == int(f) || have.Target == int(f) || have.Name == name }) {
				continue
			}
			c.out.Ports = append(c.out.Ports, Port{Name: name, Port: int(f), Target: name, Protocol: cmp.Or(document.Text(p, "protocol"), "TCP")})
			if document.Text(p, "name") == "" {
				c.out.Ports[len(c.out.Ports)-1].Target = int(f)
			}
		}
	}
}
