package strategy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// LabelCandidateOf is on everything that is made for a canary, and on the candidate's pods; its value is
// the name of the Service whose candidate it is.
const LabelCandidateOf = "wheelwright.dev/candidate-of"

// Making is what the caller decides about a candidate.
type Making struct {
	Namespace    string   // of objects that name none
	SelectorKeys []string // as in Options
	// Replicas is how many pods the candidate has, and its autoscaler keeps at least: as many as the stable
	// side runs, where it is to take all the requests at once. 0: as the release says.
	Replicas int
}

// Candidate is the copy of a service's new side, to be applied beside its stable one.
type Candidate struct {
	Workload   Object
	Service    Object
	Autoscaler Object // nil: none
	// Needs are the new release's own objects that the workload refers to and that do not run yet, such as
	// ConfigMaps with a hash in their name. They are applied with the candidate, unchanged.
	Needs []Object
	// Warnings name what the candidate shares with the stable side though the release changes it.
	Warnings []Problem
}

// Objects are all of it in the order of applying.
func (c Candidate) Objects() []Object {
	out := append(slices.Clone(c.Needs), c.Service, c.Workload)
	if c.Autoscaler != nil {
		out = append(out, c.Autoscaler)
	}
	return out
}

// MakeCandidate copies a service's workload, Service and autoscaler out of the new release's objects.
// Names, the one label that tells workloads apart, and selectors by it become the candidate's; everything
// else is as the release has it. stable is what runs now, and only looked at.
func (s Service) MakeCandidate(stable, next []Object, m Making) (Candidate, error) {
	old, all := newSet(stable, m.Namespace), newSet(next, m.Namespace)
	workload := all.get("apps", "Deployment", s.Namespace, s.Target.Name)
	if workload == nil {
		return Candidate{}, fmt.Errorf("make candidate of %s: the release has no Deployment %s/%s", s.id(), s.Namespace, s.Target.Name)
	}
	running := old.get("apps", "Deployment", s.Namespace, s.Target.Name)
	if running == nil {
		return Candidate{}, fmt.Errorf("make candidate of %s: no Deployment %s/%s runs; a first install needs no canary", s.id(), s.Namespace, s.Target.Name)
	}
	// The stable Service selects by the labels that run now, so that these are what a candidate has to differ in.
	key, _, err := selectorKey(running, m.SelectorKeys)
	if err != nil {
		return Candidate{}, fmt.Errorf("make candidate of Deployment %s/%s: %w", s.Namespace, s.Target.Name, err)
	}
	var c Candidate
	c.Workload, err = s.copyWorkload(workload, key, m.Replicas)
	if err != nil {
		return Candidate{}, err
	}
	c.Service = s.copyService(all)
	// Where pods are the share, an autoscaler would change it.
	if s.Autoscaler.Name != "" && s.Strategy != Replicas {
		if c.Autoscaler, err = s.copyAutoscaler(all, m.Replicas); err != nil {
			return Candidate{}, err
		}
	}
	c.needs(old, all, workload, s)
	return c, nil
}

// StableService is the Service object that the release leaves to whoever reads its Canary; only where
// HasService is false.
func (s Service) StableService(workload Object, selectorKeys []string) (Object, error) {
	key, value, err := selectorKey(workload, selectorKeys)
	if err != nil {
		return nil, fmt.Errorf("make Service %s/%s: %w", s.Namespace, s.Name, err)
	}
	return s.newService(s.Name, map[string]any{key: value}), nil
}

func (s Service) newService(name string, selector map[string]any) Object {
	var ports []any
	for _, p := range s.Ports {
		port := Object{"name": p.Name, "port": int64(p.Port), "protocol": p.Protocol, "targetPort": p.Target}
		if n, ok := document.Number(p.Target); ok {
			port["targetPort"] = int64(n)
		}
		if p.Name == "" {
			delete(port, "name")
		}
		if p.AppProtocol != "" {
			port["appProtocol"] = p.AppProtocol
		}
		ports = append(ports, port)
	}
	return Object{
		"apiVersion": "v1", "kind": "Service",
		"metadata": Object{"name": name, "namespace": s.Namespace},
		"spec":     Object{"type": "ClusterIP", "selector": selector, "ports": ports},
	}
}

// selectorKey is the label by which a workload's pods are told from others'.
func selectorKey(workload Object, keys []string) (key, value string, err error) {
	if len(keys) == 0 {
		keys = SelectorKeys()
	}
	selector := document.Mapping(workload, "spec", "selector", "matchLabels")
	for _, key := range keys {
		if value, ok := selector[key].(string); ok && document.Text(workload, "spec", "template", "metadata", "labels", key) == value {
			return key, value, nil
		}
	}
	return "", "", fmt.Errorf("none of the labels %s selects the pods of %s; write one of them in spec.selector and in the template, or name another with selectorKeys",
		strings.Join(keys, ", "), document.Text(workload, "metadata", "name"))
}

// mark takes away what a cluster wrote, renames, and marks as made here.
func (s Service) mark(o Object, name string) {
	meta := document.Mapping(o, "metadata")
	for _, key := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences", "selfLink", "finalizers"} {
		delete(meta, key)
	}
	delete(o, "status")
	meta["name"], meta["namespace"] = name, s.Namespace
	labels, _ := meta["labels"].(Object)
	if labels == nil {
		labels = Object{}
		meta["labels"] = labels
	}
	labels[LabelCandidateOf] = s.Name
}

func (s Service) copyWorkload(workload Object, key string, replicas int) (Object, error) {
	o := document.Clone(workload)
	s.mark(o, s.Target.Name+Suffix)
	template := document.Mapping(o, "spec", "template")
	labels := document.Mapping(template, "metadata", "labels")
	value, _ := labels[key].(string)
	if value == "" {
		return nil, fmt.Errorf("make candidate of Deployment %s/%s: its pods lose the label %s with this release, by which the running ones are selected; keep it",
			s.Namespace, s.Target.Name, key)
	}
	if document.Text(o, "metadata", "labels", key) == value {
		document.Mapping(o, "metadata", "labels")[key] = value + Suffix
	}
	labels[key] = value + Suffix
	labels[LabelCandidateOf] = s.Name
	// Where pods are shared with the stable Service, the label key goes back to its stable value while the
	// pods stay the candidate's: so only the label that is never shared may select them.
	document.Mapping(o, "spec")["selector"] = Object{"matchLabels": Object{LabelCandidateOf: s.Name}}
	spec := document.Mapping(template, "spec")
	respread(spec["affinity"], key, value)
	respread(spec["topologySpreadConstraints"], key, value)
	if s.Strategy == Replicas {
		// Whoever leaves the share leaves at once: no pod with the old label outlives the change of it.
		document.Mapping(o, "spec")["strategy"] = Object{"type": "Recreate"}
	}
	if replicas > 0 {
		document.Mapping(o, "spec")["replicas"] = int64(replicas)
	}
	return o, nil
}

// respread makes rules that spread a workload's own pods spread the candidate's.
func respread(v any, key, value string) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			respread(item, key, value)
		}
	case map[string]any:
		if labels, ok := v["matchLabels"].(map[string]any); ok && labels[key] == value {
			labels[key] = value + Suffix
		}
		if document.Text(v, "key") == key {
			if values, ok := v["values"].([]any); ok {
				for i, item := range values {
					if item == value {
						values[i] = value + Suffix
					}
				}
			}
		}
		for _, name := range sortedKeys(v) {
			respread(v[name], key, value)
		}
	}
}

func (s Service) copyService(all set) Object {
	selector := map[string]any{LabelCandidateOf: s.Name}
	o := s.newService(s.Candidate(), selector)
	if existing := all.get("", "Service", s.Namespace, s.Name); document.Mapping(existing, "spec") != nil {
		o = document.Clone(existing)
		spec := document.Mapping(o, "spec")
		// What a cluster gives to one Service alone, and what would show the candidate to the outside.
		for _, key := range []string{"clusterIP", "clusterIPs", "ipFamilies", "healthCheckNodePort", "loadBalancerIP", "loadBalancerClass", "externalIPs",
			"externalTrafficPolicy", "loadBalancerSourceRanges", "allocateLoadBalancerNodePorts"} {
			if key != "clusterIP" || spec[key] != "None" {
				delete(spec, key)
			}
		}
		if t := document.Text(spec, "type"); t == "NodePort" || t == "LoadBalancer" {
			spec["type"] = "ClusterIP"
		}
		for _, p := range document.Mappings(spec["ports"]) {
			delete(p, "nodePort")
		}
		spec["selector"] = selector
	}
	s.mark(o, s.Candidate())
	return o
}

func (s Service) copyAutoscaler(all set, replicas int) (Object, error) {
	scaler := all.get(s.Autoscaler.group(), s.Autoscaler.Kind, s.Namespace, s.Autoscaler.Name)
	if scaler == nil {
		return nil, fmt.Errorf("make candidate of %s: the release has no %s %s/%s", s.id(), s.Autoscaler.Kind, s.Namespace, s.Autoscaler.Name)
	}
	o := document.Clone(scaler)
	s.mark(o, s.Autoscaler.Name+Suffix)
	target := document.Mapping(o, "spec", "scaleTargetRef")
	if target == nil {
		return nil, fmt.Errorf("make candidate of %s: %s has no spec.scaleTargetRef", s.id(), s.Autoscaler)
	}
	target["name"] = s.Target.Name + Suffix
	spec := document.Mapping(o, "spec")
	least, _ := document.Number(spec["minReplicas"])
	most, bounded := document.Number(spec["maxReplicas"])
	if s.Autoscaler.Kind == "HorizontalPodAutoscaler" && bounded && replicas > int(least) {
		spec["minReplicas"] = int64(min(replicas, int(most)))
	}
	return o, nil
}

// needs finds the objects that the pods refer to by name.
func (c *Candidate) needs(old, all set, workload Object, s Service) {
	for _, ref := range references(document.Mapping(workload, "spec", "template", "spec")) {
		now, before := all.get("", ref.Kind, s.Namespace, ref.Name), old.get("", ref.Kind, s.Namespace, ref.Name)
		switch {
		case now == nil:
		case before == nil:
			c.Needs = append(c.Needs, document.Clone(now))
		case ref.Kind == "PersistentVolumeClaim":
			c.Warnings = append(c.Warnings, Problem{fmt.Sprintf("%s %s/%s", ref.Kind, s.Namespace, ref.Name), "",
				"is mounted by the stable side and the candidate at once; take the Canary out where the workload cannot share it"})
		case ref.Kind != "ServiceAccount" && !document.Equal(content(now), content(before)):
			c.Warnings = append(c.Warnings, Problem{fmt.Sprintf("%s %s/%s", ref.Kind, s.Namespace, ref.Name), "",
				"changes with this release under the name that the stable side uses, so the candidate is tested with the old one; give it a name with a hash, as kustomize's generators do"})
		}
	}
}

// references are the ConfigMaps, Secrets, claims and the account that a pod names, each once.
func references(pod Object) []Ref {
	var out []Ref
	add := func(kind, name string) {
		if ref := (Ref{"v1", kind, name}); name != "" && !slices.Contains(out, ref) {
			out = append(out, ref)
		}
	}
	add("ServiceAccount", cmp.Or(document.Text(pod, "serviceAccountName"), document.Text(pod, "serviceAccount")))
	sources := func(volume Object) {
		add("ConfigMap", document.Text(volume, "configMap", "name"))
		add("Secret", document.Text(volume, "secret", "secretName"))
		add("Secret", document.Text(volume, "secret", "name"))
		add("PersistentVolumeClaim", document.Text(volume, "persistentVolumeClaim", "claimName"))
	}
	for _, volume := range document.Mappings(pod["volumes"]) {
		sources(volume)
		for _, projected := range document.Mappings(document.At(volume, "projected", "sources")) {
			sources(projected)
		}
	}
	for _, list := range []string{"initContainers", "containers"} {
		for _, container := range document.Mappings(pod[list]) {
			for _, from := range document.Mappings(container["envFrom"]) {
				add("ConfigMap", document.Text(from, "configMapRef", "name"))
				add("Secret", document.Text(from, "secretRef", "name"))
			}
			for _, env := range document.Mappings(container["env"]) {
				add("ConfigMap", document.Text(env, "valueFrom", "configMapKeyRef", "name"))
				add("Secret", document.Text(env, "valueFrom", "secretKeyRef", "name"))
			}
		}
	}
	for _, pull := range document.Mappings(pod["imagePullSecrets"]) {
		add("Secret", document.Text(pull, "name"))
	}
	return out
}

// content is an object without what names and counts it.
func content(o Object) Object {
	out := Object{}
	for key, v := range o {
		if key != "metadata" && key != "status" {
			out[key] = v
		}
	}
	return out
}
