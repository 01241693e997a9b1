package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// candidateSuffix is what the Service of a candidate ends with.
const candidateSuffix = "-canary"

// release is what a Subject has, decoded.
type release struct {
	*pluginv1.Subject
	beside   []kube.Object // of no service
	services []service
}

// service is one of the Subject's.
type service struct {
	*pluginv1.Service
	canary   kube.Object // nil: none is declared
	objects  []kube.Object
	stable   []kube.Object
	checksum string
}

func readRelease(s *pluginv1.Subject) (release, error) {
	r := release{Subject: s}
	var err error
	if r.beside, err = kube.ReadObjects(s.GetObjects()); err != nil {
		return r, fmt.Errorf("read the objects of the release: %w", err)
	}
	for _, wire := range s.GetServices() {
		one := service{Service: wire}
		declared, err := kube.ReadObjects(wire.GetDeclared())
		if err != nil {
			return r, fmt.Errorf("read what declares service %s: %w", wire.GetName(), err)
		}
		for _, o := range declared {
			if isCanary(o) {
				one.canary = o
			}
		}
		if one.objects, err = kube.ReadObjects(wire.GetCandidate()); err != nil {
			return r, fmt.Errorf("read the objects of service %s: %w", wire.GetName(), err)
		}
		if one.stable, err = kube.ReadObjects(wire.GetStable()); err != nil {
			return r, fmt.Errorf("read the running objects of service %s: %w", wire.GetName(), err)
		}
		sum := sha256.New()
		sum.Write(wire.GetDeclared())
		sum.Write(wire.GetCandidate())
		one.checksum = hex.EncodeToString(sum.Sum(nil)[:8])
		r.services = append(r.services, one)
	}
	return r, nil
}

func isCanary(o kube.Object) bool { return o.Group() == "flagger.app" && o.Kind() == "Canary" }

// canaries are the services with what declares them, and the Canary objects of no service that the spoke
// named.
func (r release) canaries() []service {
	var out []service
	seen := map[string]bool{}
	key := func(o kube.Object) string { return cmp.Or(o.Namespace(), r.GetNamespace()) + "/" + o.Name() }
	for _, s := range r.services {
		if s.canary != nil {
			seen[key(s.canary)] = true
			out = append(out, s)
		}
	}
	for _, o := range r.beside {
		if !isCanary(o) || seen[key(o)] {
			continue
		}
		seen[key(o)] = true
		name := cmp.Or(o.Text("spec", "service", "name"), o.Text("spec", "targetRef", "name"), o.Name())
		text, err := json.Marshal(o)
		if err != nil {
			continue
		}
		sum := sha256.Sum256(text)
		out = append(out, service{Service: &pluginv1.Service{Name: name}, canary: o, checksum: hex.EncodeToString(sum[:8])})
	}
	return out
}

// objects are all of the new release.
func (r release) objects() []kube.Object {
	all := append([]kube.Object(nil), r.beside...)
	for _, s := range r.services {
		all = append(all, s.objects...)
	}
	return all
}

// secrets are the values of Secret objects, of the release that runs too.
func (r release) secrets() []string {
	all := r.objects()
	for _, s := range r.services {
		all = append(all, s.stable...)
	}
	var out []string
	for _, o := range all {
		if o.Kind() != "Secret" || o.Group() != "" {
			continue
		}
		for _, v := range o.Texts("stringData") {
			out = append(out, v)
		}
		for _, v := range o.Texts("data") {
			if plain, err := base64.StdEncoding.DecodeString(v); err == nil {
				out = append(out, string(plain))
			}
		}
	}
	return out
}

// beforePromotion tells the moments at which the new release is beside the one that runs.
func beforePromotion(m pluginv1.Moment) bool { return m != pluginv1.Moment_MOMENT_AFTER_PROMOTION }

// hasCandidate tells whether a service's new side runs beside the stable one before promotion.
func (r release) hasCandidate(s service) bool {
	strategy := s.GetStrategy()
	return r.GetVersionFrom() != "" && strategy != pluginv1.Strategy_STRATEGY_UNSPECIFIED && strategy != pluginv1.Strategy_STRATEGY_NONE
}

// stands tells whether the new release of a service is there to be asked at a moment: a first install is
// itself, and after promotion everything is.
func (r release) stands(s service, m pluginv1.Moment) bool {
	return !beforePromotion(m) || r.GetVersionFrom() == "" || r.hasCandidate(s)
}

// target is the Service that leads to the new release at a moment.
func (r release) target(s service, m pluginv1.Moment) string {
	if beforePromotion(m) && r.hasCandidate(s) {
		return s.GetName() + candidateSuffix
	}
	return s.GetName()
}

func (r release) service(name string) (service, bool) {
	for _, s := range r.services {
		if s.GetName() == name {
			return s, true
		}
	}
	// One without a course of its own is replaced at promotion.
	for _, o := range r.objects() {
		if o.Kind() == "Service" && o.Group() == "" && o.Name() == name {
			return service{Service: &pluginv1.Service{Name: name, Strategy: pluginv1.Strategy_STRATEGY_NONE}}, true
		}
	}
	return service{}, false
}

// object is the Service object of a service; nil where the release leaves it to be made.
func (r release) object(s service) kube.Object {
	for _, o := range append(r.objects(), s.stable...) {
		if o.Kind() == "Service" && o.Group() == "" && o.Name() == s.GetName() {
			return o
		}
	}
	return nil
}

func (r release) namespaceOf(s service) string {
	return cmp.Or(r.object(s).Namespace(), s.canary.Namespace(), r.GetNamespace())
}

// port resolves a number, a name, or nothing for the first port.
func (r release) port(s service, wanted string) (int, error) {
	if n, err := strconv.Atoi(wanted); err == nil {
		return n, nil
	}
	ports := r.object(s).Mappings("spec", "ports")
	if len(ports) == 0 && s.canary != nil {
		ports = []kube.Object{{"port": s.canary.At("spec", "service", "port"), "name": cmp.Or(s.canary.Text("spec", "service", "portName"), "http")}}
	}
	for _, p := range ports {
		if n, ok := p.Int("port"); ok && (wanted == "" || p.Text("name") == wanted) {
			return int(n), nil
		}
	}
	if wanted == "" {
		return 0, fmt.Errorf("port: Service %s of the release has none: write a number", s.GetName())
	}
	return 0, fmt.Errorf("port: Service %s of the release has none of the name %q", s.GetName(), wanted)
}

// probes reads the tests of wheelwright.yaml, which the spoke puts among the objects.
func (r release) probes() (probes []probe.Probe, problems []string) {
	for _, o := range r.beside {
		if o.Text("apiVersion") != probe.APIVersion || o.Kind() != probe.Kind {
			continue
		}
		text, err := json.Marshal(o)
		if err != nil {
			return nil, []string{err.Error()}
		}
		more, err := probe.ReadFile(text)
		if err != nil {
			for line := range strings.Lines(err.Error()) { // a problem each
				problems = append(problems, "wheelwright.yaml: "+strings.TrimSpace(line))
			}
		}
		probes = append(probes, more...)
	}
	return probes, problems
}
