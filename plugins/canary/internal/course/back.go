package course

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Way is how everything becomes stable's.
type Way struct {
	Promoted bool // stable is the new release; else it is the old one
	Now      time.Time
	Drain    time.Duration // between the last traffic and the end of a candidate
}

// kinds of which something that was made here may be left.
var leftKinds = []string{"Deployment", "HorizontalPodAutoscaler", "ScaledObject", "Service"}

// Back works out what has to be done for all traffic to be stable's and nothing to be left of what was
// made: traffic first, then the requests in flight, then the copies, and last what their pods read. The
// way to the old release waits for nothing: whatever state it is begun in, stable has never been touched.
func Back(members []Member, way Way, live []Object) (Next, error) {
	var n Next
	if way.Promoted {
		if err := n.stable(members, live); err != nil || n.Waits != "" {
			return n, err
		}
	}
	if share := n.returning(members, way, live); share {
		return n, nil
	}
	effects, _, _, err := lead(members, nil, live)
	n.Effects = append(n.Effects, effects...)
	if len(n.Effects) > 0 {
		return n, nil // whoever can be led back is, whatever is wrong with others
	}
	if err != nil {
		return Next{}, err
	}
	n.drain(members, way, live)
	if n.Waits != "" || len(n.Effects) > 0 {
		return n, nil
	}
	n.remove(members, live)
	if n.Waits != "" || len(n.Effects) > 0 {
		return n, nil
	}
	if err := n.finish(members, way, live); err != nil {
		return Next{}, err
	}
	n.Settled = true
	return n, nil
}

// stable makes the Services that the release leaves to it, also where there is no canary, and waits until
// the new release can take what it is to get.
func (n *Next) stable(members []Member, live []Object) error {
	for _, m := range members {
		service, err := m.StableObject(true)
		if err != nil {
			return err
		}
		if service != nil && find(live, "", "Service", m.Namespace, m.Name) == nil {
			n.Effects = append(n.Effects, Effect{Verb: Ensure, Object: service, Detail: "the Service that the release leaves to its Canary"})
		}
	}
	for _, m := range members {
		found := find(live, "apps", "Deployment", m.Namespace, m.Target.Name)
		if !m.Led || found == nil || replicas(found) == 0 || len(m.mine(live, leftKinds...)) == 0 {
			continue // there is no canary of it any more, or nothing that could become ready
		}
		if reason, _ := unreadiness(found, m.StableReady); reason != "" && n.Waits == "" {
			n.Waits, n.Look = reason, []string{"Deployment"}
		}
	}
	return nil
}

// returning gives the traffic back by shares, where the declaration asks for that. Where it has got to is
// told by the routes: they are as one of the shares has left them.
func (n *Next) returning(members []Member, way Way, live []Object) bool {
	told := map[string]route.Traffic{}
	for _, m := range members {
		if !way.Promoted || len(m.Return) < 2 || !m.Led {
			continue
		}
		shares := append([]int{m.Steps[len(m.Steps)-1].Weight}, m.Return...)
		for i, share := range shares[:len(shares)-1] {
			traffic := route.At(m.Service, strategy.Step{Weight: share}, m.Version)
			effects, _, _, err := lead([]Member{m}, map[string]route.Traffic{m.Name: traffic}, live)
			if err == nil && len(effects) == 0 && shares[i+1] > 0 {
				told[m.Name] = route.At(m.Service, strategy.Step{Weight: shares[i+1]}, m.Version)
			}
		}
	}
	var slow []Member
	for _, m := range members {
		if _, ok := told[m.Name]; ok {
			slow = append(slow, m)
		}
	}
	effects, _, _, err := lead(slow, told, live)
	if len(slow) == 0 || err != nil {
		return false // all at once is always right
	}
	n.Effects = append(n.Effects, effects...)
	n.Pause, n.Waits = slow[0].Interval, fmt.Sprintf("%s: %d %% on the way back to stable", slow[0].Name, told[slow[0].Name].Weight)
	return true
}

// drain lets the requests end that candidates have begun to answer, and the last proxy hear of it.
func (n *Next) drain(members []Member, way Way, live []Object) {
	if way.Drain <= 0 {
		return
	}
	for _, m := range members {
		for _, o := range m.mine(live, "Deployment") {
			if document.At(o, "metadata", "deletionTimestamp") != nil {
				continue
			}
			since, err := time.Parse(time.RFC3339Nano, document.Text(o, "metadata", "annotations", AnnotationIdleSince))
			if err != nil || since.After(way.Now) {
				noted := document.Clone(o)
				mark(noted, "annotations", AnnotationIdleSince, way.Now.UTC().Format(time.RFC3339Nano))
				n.Effects = append(n.Effects, Effect{Verb: Patch, Object: noted, Was: o, Detail: "its traffic is led away"})
			} else if way.Now.Sub(since) < way.Drain {
				n.Waits = fmt.Sprintf("requests that the candidate of %s has begun to answer, for %s", m.Name, way.Drain)
				n.Pause = max(n.Pause, way.Drain-way.Now.Sub(since))
			}
		}
	}
}

// remove takes the copies away, and waits until their pods are gone.
func (n *Next) remove(members []Member, live []Object) {
	for _, m := range members {
		for _, o := range m.mine(live, leftKinds...) {
			if document.At(o, "metadata", "deletionTimestamp") == nil {
				n.Effects = append(n.Effects, Effect{Verb: Remove, Object: o, Detail: "of the candidate of " + m.Name})
			} else if n.Waits == "" {
				n.Waits = fmt.Sprintf("%s %s/%s to go", document.Text(o, "kind"), m.Namespace, document.Text(o, "metadata", "name"))
			}
			n.Look = append(n.Look, document.Text(o, "kind"))
		}
	}
	slices.Sort(n.Look)
	n.Look = slices.Compact(n.Look)
}

// finish leaves the new release's own objects to it, or takes them away with the candidates.
func (n *Next) finish(members []Member, way Way, live []Object) error {
	for _, m := range members {
		for _, o := range m.mine(live, "ConfigMap", "Secret", "ServiceAccount") {
			e := Effect{Verb: Release, Object: o, Detail: "is the promoted release's"}
			if by := m.reader(live, document.Text(o, "metadata", "name")); by != "" && !way.Promoted {
				e.Detail = "is read by Deployment " + by
			} else if !way.Promoted {
				e.Verb, e.Detail = Remove, "of the candidate of "+m.Name
			}
			n.Effects = append(n.Effects, e)
		}
		found := find(live, "", "Service", m.Namespace, m.Name)
		madeFor := document.Text(found, "metadata", "annotations", AnnotationMadeFor)
		if found == nil || m.HasService {
			continue
		}
		if !way.Promoted {
			if madeFor == m.Version && m.Version != "" {
				n.Effects = append(n.Effects, Effect{Verb: Remove, Object: found, Detail: "was made for " + m.Version})
			}
			continue
		}
		wanted, err := m.StableObject(true)
		if err != nil {
			return err
		}
		if kept := asReleased(found, wanted); !document.Equal(kept, found) {
			n.Effects = append(n.Effects, Effect{Verb: Patch, Object: kept, Was: found, Detail: "as " + m.Version + " has it"})
		}
	}
	return nil
}

// reader is a workload other than a candidate that names an object: a promotion that did not come to its
// end has left it the new release, and its pods must not lose what they read before the spoke restores it.
func (m Member) reader(live []Object, name string) string {
	for _, o := range live {
		if document.Text(o, "kind") != "Deployment" || document.Text(o, "metadata", "namespace") != m.Namespace || document.Text(o, "metadata", "labels", strategy.LabelCandidateOf) != "" {
			continue
		}
		text, err := json.Marshal(document.At(o, "spec", "template", "spec"))
		if err == nil && bytes.Contains(text, []byte(`"`+name+`"`)) {
			return document.Text(o, "metadata", "name")
		}
	}
	return ""
}

// asReleased is a Service with the ports and the selector that its Canary gives it now. Ports that are so
// already keep what the cluster added.
func asReleased(found, wanted Object) Object {
	out := document.Clone(found)
	annotations := document.Mapping(out, "metadata", "annotations")
	delete(annotations, AnnotationMadeFor)
	if annotations != nil && len(annotations) == 0 {
		delete(document.Mapping(out, "metadata"), "annotations")
	}
	if wanted == nil {
		return out
	}
	spec := document.Mapping(out, "spec")
	spec["selector"] = document.At(wanted, "spec", "selector")
	have, want := document.Mappings(spec["ports"]), document.Mappings(document.At(wanted, "spec", "ports"))
	if !slices.EqualFunc(have, want, samePort) {
		spec["ports"] = document.At(wanted, "spec", "ports")
	}
	return out
}

func samePort(have, want Object) bool {
	for key, v := range want {
		if !document.Equal(have[key], v) {
			return false
		}
	}
	return true
}
