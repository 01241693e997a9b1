package course

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Verb is what an Effect does.
type Verb string

const (
	// Ensure makes an object where there is none of its name.
	Ensure Verb = "ensure"
	// Lend makes an object where there is none; one that is there has to be like it.
	Lend Verb = "lend"
	// Apply makes an object be so, server-side.
	Apply Verb = "apply"
	// Patch changes what is different between Was and Object, if the cluster still has Was.
	Patch Verb = "patch"
	// Remove deletes the object, and what it owns before it.
	Remove Verb = "delete"
	// Release leaves an object to whoever else keeps it.
	Release Verb = "release"
)

// Effect is one change to the cluster.
type Effect struct {
	Verb   Verb
	Object Object
	Was    Object
	Detail string // for people
	Force  bool   // Apply: the object is known to be ours
}

// Next is what to do now.
type Next struct {
	Effects []Effect // in this order
	// Settled: with the effects, that is all. Else look again, at once where there are effects.
	Settled  bool
	Waits    string        // what for, for people
	Look     []string      // the kinds that change while it waits
	Failed   string        // why it will never be settled
	Warnings []string      // what is other than told
	Pause    time.Duration // after the effects, before the next look; 0: as whoever looks likes
}

// Rehearse leads every member through all that is told, on the objects that there would be, and answers
// what would be other than told. Its error is everything that would keep traffic from being led.
func Rehearse(members []Member, told []map[string]route.Traffic, live []Object) (warnings []string, err error) {
	var wrong []error
	for _, m := range members {
		if !m.Led {
			continue
		}
		stable := find(live, "apps", "Deployment", m.Namespace, m.Target.Name)
		if stable == nil {
			wrong = append(wrong, strategy.Problems{{Object: "Deployment " + m.Namespace + "/" + m.Target.Name, Message: "does not run, though the release before has it; restore it, and the canary has something to be compared with"}})
			continue
		}
		made, err := m.make(live, false)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		for _, e := range made {
			if !slices.ContainsFunc(live, func(o Object) bool { return sameObject(o, e.Object) }) {
				live = append(slices.Clone(live), e.Object)
			}
		}
	}
	for _, t := range told {
		_, _, said, err := lead(members, t, live)
		warnings = append(warnings, said...)
		wrong = append(wrong, err)
	}
	return warnings, errors.Join(wrong...)
}

// Forward works out what has to be done for every member's traffic to be as told; a member that is not told
// of gets none. Candidates are made first and are ready before any of them gets more; one that was never
// ready within its deadline, or has not been for as long, has failed. An error is about the objects, and
// then nothing is to be changed.
func Forward(members []Member, told map[string]route.Traffic, now time.Time, live []Object) (Next, error) {
	cold, err := unmade(members, live)
	if err != nil {
		return Next{}, err
	}
	if len(cold) > 0 {
		return making(cold, live)
	}
	var n Next
	var unready []string
	for _, m := range members {
		if !m.Led {
			continue
		}
		reason, failed := unreadiness(m.workload(live), m.CandidateReady)
		if reason != "" {
			unready = append(unready, reason)
		}
		if since := unavailable(m.workload(live)); reason != "" && !since.IsZero() && now.Sub(since) > m.ProgressDeadline {
			reason, failed = reason+" for longer than its deadline", true
		}
		if failed && n.Failed == "" {
			n.Failed = reason
		}
	}
	if len(unready) > 0 {
		n.Waits, n.Look = unready[0], []string{"Deployment"}
		if len(unready) > 1 {
			n.Waits += fmt.Sprintf("; and %d more", len(unready)-1)
		}
		// Who is to get nothing can have it at once.
		members = slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return told[m.Name].Weight > 0 || told[m.Name].Mirror > 0 })
	}
	effects, waits, warnings, err := lead(members, told, live)
	if err != nil {
		return Next{}, err
	}
	n.Effects, n.Warnings = effects, warnings
	if n.Waits == "" && waits != "" {
		n.Waits, n.Look = waits, []string{"Deployment"}
	}
	n.Settled = n.Waits == "" && n.Failed == "" && !touches(effects, "Deployment")
	return n, nil
}

// unmade are the members whose candidate is not there, or is another one's.
func unmade(members []Member, live []Object) ([]Member, error) {
	var out []Member
	for _, m := range members {
		if !m.Led {
			continue
		}
		c, err := m.Candidate(0)
		if err != nil {
			return nil, err
		}
		sum, err := madeOf(c)
		if err != nil {
			return nil, err
		}
		found := m.workload(live)
		if found != nil && document.Text(found, "metadata", "labels", strategy.LabelCandidateOf) != m.Name {
			return nil, strategy.Problems{{Object: "Deployment " + m.Namespace + "/" + document.Text(found, "metadata", "name"), Message: "has the name of the candidate and is somebody else's; rename it"}}
		}
		if found == nil || document.At(found, "metadata", "deletionTimestamp") != nil || document.Text(found, "metadata", "annotations", AnnotationMadeOf) != sum {
			out = append(out, m)
		}
	}
	return out, nil
}

// making makes candidates. Whatever led to an earlier one leads to stable first.
func making(cold []Member, live []Object) (Next, error) {
	var n Next
	back, _, _, err := lead(cold, nil, live)
	if err != nil {
		return Next{}, err
	}
	n.Effects = back
	for _, m := range cold {
		found := m.workload(live)
		if document.At(found, "metadata", "deletionTimestamp") != nil {
			n.Waits, n.Look = "the Deployment of an earlier candidate of "+m.Name+" to go", []string{"Deployment"}
			continue
		}
		made, err := m.make(live, found != nil)
		if err != nil {
			return Next{}, err
		}
		n.Effects = append(n.Effects, made...)
	}
	return n, nil
}

// make is everything that a candidate needs, its Deployment last.
func (m Member) make(live []Object, ours bool) ([]Effect, error) {
	plain, err := m.Candidate(0)
	if err != nil {
		return nil, err
	}
	sum, err := madeOf(plain)
	if err != nil {
		return nil, err
	}
	pods := 0
	stable := find(live, "apps", "Deployment", m.Namespace, m.Target.Name)
	for _, step := range m.Steps {
		if step.Weight == 100 && !step.Matched && stable != nil {
			pods = replicas(stable)
		}
	}
	c, err := m.Candidate(pods)
	if err != nil {
		return nil, err
	}
	var out []Effect
	service, err := m.StableObject(false)
	if err != nil {
		return nil, err
	}
	if service != nil {
		mark(service, "annotations", AnnotationMadeFor, m.Version)
		out = append(out, Effect{Verb: Ensure, Object: service, Detail: "the Service that the release leaves to its Canary"})
	}
	for _, need := range c.Needs {
		out = append(out, Effect{Verb: Lend, Object: need, Detail: "of " + m.Version + ", for the candidate of " + m.Name})
	}
	detail := "candidate of " + m.Name + ", " + m.Version
	out = append(out, Effect{Verb: Apply, Object: c.Service, Detail: detail})
	if c.Autoscaler != nil {
		out = append(out, Effect{Verb: Apply, Object: c.Autoscaler, Detail: detail})
	}
	mark(c.Workload, "annotations", AnnotationMadeOf, sum)
	return append(out, Effect{Verb: Apply, Object: c.Workload, Detail: detail, Force: ours}), nil
}

func replicas(o Object) int {
	n, ok := document.Number(document.At(o, "spec", "replicas"))
	if !ok {
		return 1
	}
	return int(n)
}

// unreadiness says why so many percent of a Deployment's pods are not ready, as it now is; failed: and
// that its deadline has passed.
func unreadiness(o Object, percent int) (reason string, failed bool) {
	name := "Deployment " + document.Text(o, "metadata", "namespace") + "/" + document.Text(o, "metadata", "name")
	number := func(keys ...string) int {
		n, _ := document.Number(document.At(o, keys...))
		return int(n)
	}
	want := replicas(o)
	need := (want*percent + 99) / 100
	switch {
	case number("status", "observedGeneration") < number("metadata", "generation"):
		return name + " is not taken up by its controller", false
	case want == 0:
		return name + " is scaled to no pods", false
	case number("status", "replicas") > number("status", "updatedReplicas"):
		reason = fmt.Sprintf("%s has %d pods of before", name, number("status", "replicas")-number("status", "updatedReplicas"))
	case number("status", "updatedReplicas") < need || number("status", "availableReplicas") < need:
		reason = fmt.Sprintf("%s has %d of %d pods ready", name, number("status", "availableReplicas"), want)
	default:
		return "", false
	}
	for _, c := range document.Mappings(document.At(o, "status", "conditions")) {
		if document.Text(c, "type") == "Progressing" && document.Text(c, "status") == "False" && document.Text(c, "reason") == "ProgressDeadlineExceeded" {
			return reason + " after its deadline", true
		}
	}
	return reason, false
}

// unavailable is since when too few of a Deployment's pods are ready by its own measure, after they once
// were all; zero: it is not so.
func unavailable(o Object) time.Time {
	var since time.Time
	for _, c := range document.Mappings(document.At(o, "status", "conditions")) {
		switch kind := document.Text(c, "type"); {
		case kind == "Progressing" && document.Text(c, "reason") != "NewReplicaSetAvailable":
			return time.Time{} // on its way; its own deadline ends that
		case kind == "Available" && document.Text(c, "status") == "False":
			since, _ = time.Parse(time.RFC3339, document.Text(c, "lastTransitionTime"))
		}
	}
	return since
}

// lead works out every member's routes, one after the other on what the others leave, so that several
// services in one route make one patch. Beside an error the effects are those of the members that it is
// not about.
func lead(members []Member, told map[string]route.Traffic, live []Object) (effects []Effect, waits string, warnings []string, err error) {
	now := slices.Clone(live)
	var gone []Object
	var wrong []error
	details := map[int]string{}
	for _, m := range members {
		if !m.Led && told != nil {
			continue
		}
		for _, r := range m.Routers {
			result, err := r.Lead(route.Of(m.Service), told[m.Name], now)
			if err != nil {
				if len(m.Routers) == 1 { // else nobody knows whether this is its router at all
					wrong = append(wrong, err)
				}
				continue
			}
			for _, o := range result.Apply {
				i := slices.IndexFunc(now, func(have Object) bool { return sameObject(have, o) })
				if i < 0 {
					i, now = len(now), append(now, o)
				}
				now[i] = o
				details[i] = joined(details[i], detail(m.Name, told[m.Name]))
			}
			gone = append(gone, result.Delete...)
			warnings = append(warnings, result.Warnings...)
			if waits == "" {
				waits = result.Waits
			}
		}
	}
	for i, o := range now {
		switch {
		case details[i] == "" || slices.ContainsFunc(gone, func(g Object) bool { return sameObject(g, o) }):
		case i >= len(live):
			effects = append(effects, Effect{Verb: Apply, Object: o, Detail: details[i]})
		case !document.Equal(live[i], o):
			effects = append(effects, Effect{Verb: Patch, Object: o, Was: live[i], Detail: details[i]})
		}
	}
	for _, o := range gone {
		if was := find(live, document.Group(o), document.Text(o, "kind"), document.Text(o, "metadata", "namespace"), document.Text(o, "metadata", "name")); was != nil {
			effects = append(effects, Effect{Verb: Remove, Object: was, Detail: "made for the candidate"})
		}
	}
	return effects, waits, warnings, errors.Join(wrong...)
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

func detail(name string, t route.Traffic) string {
	switch {
	case t.Weight == 0 && t.Mirror == 0:
		return name + ": all to stable"
	case len(t.Matches) > 0:
		return fmt.Sprintf("%s: %d %% of those that fit", name, t.Weight)
	case t.Mirror > 0:
		return fmt.Sprintf("%s: %d %%, copies of %d %%", name, t.Weight, t.Mirror)
	}
	return fmt.Sprintf("%s: %d %%", name, t.Weight)
}

func sameObject(a, b Object) bool {
	return is(a, document.Group(b), document.Text(b, "kind"), document.Text(b, "metadata", "namespace"), document.Text(b, "metadata", "name"), "")
}

func touches(effects []Effect, kind string) bool {
	return slices.ContainsFunc(effects, func(e Effect) bool { return document.Text(e.Object, "kind") == kind })
}
