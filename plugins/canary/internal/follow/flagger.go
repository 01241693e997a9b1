package follow

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// Annotation keeps, on a Canary that returns to the old release, what its spec.skipAnalysis was and since
// when Flagger has had nothing to do; and afterwards, how Flagger left it.
const Annotation = "wheelwright.dev/returning"

type returning struct {
	Skip  any       `json:"skipAnalysis,omitempty"` // as it was found
	State string    `json:"state,omitempty"`        // of Flagger, when it was found at rest
	Since time.Time `json:"since,omitzero"`
	Done  bool      `json:"done,omitempty"`
}

// Returning tells whether a Canary is on its way back to an earlier release.
func Returning(canary Object) bool {
	r, noted := readReturning(canary)
	return noted && !r.Done
}

func readReturning(canary Object) (returning, bool) {
	var r returning
	text := document.Text(canary, "metadata", "annotations", Annotation)
	return r, text != "" && json.Unmarshal([]byte(text), &r) == nil
}

// resting are the phases in which Flagger waits for something new.
func resting(phase string) bool {
	return slices.Contains([]string{"Initialized", "Succeeded", "Failed"}, phase)
}

// seen are the objects of a cluster that a Canary is about.
type seen struct {
	canary, target, primary Object
	phase                   string
	caught                  bool // what the primary runs is what the target says
}

func (s Service) see(live Live) seen {
	v := seen{canary: live.find("flagger.app", "Canary", s.Namespace, s.Object), target: live.find("apps", "Deployment", s.Namespace, s.Workload),
		primary: live.find("apps", "Deployment", s.Namespace, s.Workload+primarySuffix)}
	v.phase = document.Text(v.canary, "status", "phase")
	v.caught = v.target != nil && v.primary != nil && template(v.target, v.primary) && s.configured(live, v.target, v.primary)
	return v
}

// Interval is how often Flagger looks at a Canary.
func Interval(canary Object) time.Duration {
	for _, key := range []string{"analysis", "canaryAnalysis"} {
		if d, err := time.ParseDuration(document.Text(canary, "spec", key, "interval")); err == nil {
			return max(d, 10*time.Second)
		}
	}
	return time.Minute
}

// canary: the phase alone tells nothing, since it is that of the release before until Flagger has seen
// this one. A good end is one after which the primary runs what the target says; a bad one is younger than
// the release.
func (s Service) canary(live Live, q Question) State {
	v := s.see(live)
	weight, _ := document.Number(document.At(v.canary, "status", "canaryWeight"))
	out := State{Phase: v.phase, Weight: int(weight)}
	three := 3 * Interval(v.canary)
	switch {
	case v.canary == nil || v.target == nil || !covers(document.At(s.Coming, "spec", "template"), document.At(v.target, "spec", "template")):
		out.Reason = fmt.Sprintf("%s and Deployment %s/%s to be as the release says", s.ID(), s.Namespace, s.Workload)
		if q.late(three) {
			out.Outcome = Failed
		}
	case document.At(v.canary, "spec", "suspend") == true:
		out.Outcome, out.Reason = Asking, s.ID()+": spec.suspend holds it"
	case v.phase == "Failed" && s.fresh(v, q.Since):
		out.Outcome, out.Reason = Failed, s.ID()+": "+s.why(live, v, q.Since)
	case (v.phase == "Succeeded" || v.phase == "Initialized") && v.caught:
		if reason := unready(v.primary); reason != "" {
			out.Reason = reason
			return out
		}
		out.Outcome = Passed
	case resting(v.phase) || v.phase == "":
		return q.unseen(s, v.phase, "Flagger", three)
	case v.phase == "Waiting" || v.phase == "WaitingPromotion":
		out.Outcome, out.Reason = Asking, s.ID()+": "+v.phase+": one of its confirm webhooks does not let it go on"
	case stuck(v.primary):
		out.Outcome, out.Reason = Failed, fmt.Sprintf("%s: Deployment %s/%s exceeded its progress deadline", s.ID(), s.Namespace, document.Text(v.primary, "metadata", "name"))
	default:
		out.Reason = fmt.Sprintf("%s: %s, weight %d", s.ID(), v.phase, out.Weight)
	}
	return out
}

// fresh tells whether Flagger gave up after the release came.
func (s Service) fresh(v seen, since time.Time) bool {
	if since.IsZero() {
		return !v.caught
	}
	at, err := time.Parse(time.RFC3339, document.Text(promoted(v.canary), "lastTransitionTime"))
	return err == nil && !at.Before(since.Truncate(time.Second))
}

func promoted(canary Object) Object {
	for _, c := range document.Mappings(document.At(canary, "status", "conditions")) {
		if document.Text(c, "type") == "Promoted" {
			return c
		}
	}
	return nil
}

// why is Flagger's own reason: the last thing that it warned of before it rolled back, which is an Event.
func (s Service) why(live Live, v seen, since time.Time) string {
	var at, reason string
	for _, e := range live {
		message, last := document.Text(e, "message"), document.Text(e, "lastTimestamp")
		if document.Text(e, "kind") != "Event" || document.Text(e, "type") != "Warning" || document.Text(e, "involvedObject", "kind") != "Canary" ||
			document.Text(e, "involvedObject", "namespace") != s.Namespace || document.Text(e, "involvedObject", "name") != s.Object ||
			strings.HasPrefix(message, "Canary failed!") || strings.HasPrefix(message, "Rolling back") {
			continue
		}
		if when, err := time.Parse(time.RFC3339, last); err != nil || when.Before(since.Truncate(time.Second)) {
			continue
		}
		if last > at || last == at && message > reason {
			at, reason = last, message
		}
	}
	return "Failed: " + cmp.Or(reason, document.Text(promoted(v.canary), "message"), "Flagger says no more")
}

// unready says why a Deployment is not wholly what it is to be.
func unready(o Object) string {
	number := func(keys ...string) int {
		n, _ := document.Number(document.At(o, keys...))
		return int(n)
	}
	want := 1
	if document.At(o, "spec", "replicas") != nil {
		want = number("spec", "replicas")
	}
	if number("status", "observedGeneration") < number("metadata", "generation") || number("status", "updatedReplicas") < want ||
		number("status", "availableReplicas") < want || number("status", "replicas") > number("status", "updatedReplicas") {
		return fmt.Sprintf("Deployment %s/%s has %d of %d pods of the release ready", document.Text(o, "metadata", "namespace"), document.Text(o, "metadata", "name"),
			min(number("status", "availableReplicas"), number("status", "updatedReplicas")), want)
	}
	return ""
}

func stuck(o Object) bool {
	for _, c := range document.Mappings(document.At(o, "status", "conditions")) {
		if document.Text(c, "type") == "Progressing" && document.Text(c, "reason") == "ProgressDeadlineExceeded" {
			return true
		}
	}
	return false
}

// returnCanary: Flagger takes a restored target for one more new revision where it has promoted the bad
// one, where the configuration that it tracks is another, and once more after an analysis that was under
// way, whose end it books for the revision that it began with. So spec.skipAnalysis is set for as long as
// Flagger may find something to do: until it has had nothing to do for two of its intervals.
func (s Service) returnCanary(live Live, now time.Time) Edit {
	v := s.see(live)
	if v.canary == nil {
		return Edit{Settled: true} // the old release has none, or nobody brought one
	}
	if s.Stable == nil {
		return Edit{Waits: s.ID() + " to go: the old release has no Deployment for it"}
	}
	if v.target == nil {
		return Edit{Waits: fmt.Sprintf("Deployment %s/%s to be restored to the old release", s.Namespace, s.Workload)}
	}
	if reason := unrestored("Deployment", s.Stable, v.target); reason != "" {
		return Edit{Waits: reason}
	}
	state := strings.Join([]string{v.phase, document.Text(v.canary, "status", "lastAppliedSpec"), document.Text(v.canary, "status", "lastPromotedSpec"),
		document.Text(promoted(v.canary), "lastTransitionTime")}, " ")
	rest := resting(v.phase) && v.caught
	r, noted := readReturning(v.canary)
	switch {
	case noted && r.Done && rest && r.State == state:
		return Edit{Settled: true}
	case !noted || r.Done:
		return v.note(returning{Skip: document.At(v.canary, "spec", "skipAnalysis")}, true, "skipAnalysis, while it returns to the old release")
	case !rest:
		if v.phase == "Failed" {
			return Edit{Waits: s.ID() + ": Failed on the way back: " + s.why(live, v, time.Time{}) + "; Flagger tries again once its Deployment is changed"}
		}
		return Edit{Waits: fmt.Sprintf("%s: %s on the way back to the old release", s.ID(), cmp.Or(v.phase, "not seen by Flagger"))}
	case r.State != state:
		r.State, r.Since = state, now.UTC()
		return v.note(r, true, "is back on the old release")
	}
	if left := 2*Interval(v.canary) + 5*time.Second - now.Sub(r.Since); left > 0 {
		return Edit{Waits: fmt.Sprintf("%s: on the old release; Flagger to find nothing to do for %s", s.ID(), 2*Interval(v.canary))}
	}
	if reason := unready(v.primary); reason != "" {
		return Edit{Waits: reason}
	}
	r.Done = true
	return v.note(r, r.Skip, "is as it was found")
}

func (v seen) note(r returning, skip any, detail string) Edit {
	if r.Done {
		r.Skip, r.Since = nil, time.Time{}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return Edit{Waits: err.Error()}
	}
	return Edit{Object: v.canary, Detail: detail, Waits: "Flagger to take it up", Patch: map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{Annotation: string(text)}}, "spec": map[string]any{"skipAnalysis": skip}}}
}
