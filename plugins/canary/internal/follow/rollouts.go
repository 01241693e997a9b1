package follow

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// pods is the object that says which pods a Rollout has: itself, or a Deployment.
func (s Service) pods(live Live) Object {
	if s.Workload != "" {
		return live.find("apps", "Deployment", s.Namespace, s.Workload)
	}
	return live.find("argoproj.io", "Rollout", s.Namespace, s.Object)
}

// observed tells whether what a Rollout's status says is about what it is to be now.
func (s Service) observed(live Live, rollout Object) bool {
	if document.Text(rollout, "status", "observedGeneration") != whole(document.At(rollout, "metadata", "generation")) {
		return false
	}
	at := document.Text(rollout, "metadata", "annotations", "rollout.argoproj.io/workload-generation")
	return s.Workload == "" || at == whole(document.At(s.pods(live), "metadata", "generation")) && document.Text(rollout, "status", "workloadObservedGeneration") == at
}

func whole(v any) string {
	n, ok := document.Number(v)
	if !ok {
		return ""
	}
	return strconv.FormatInt(int64(n), 10)
}

// rollout: the phase counts once its controller has seen this generation, and a good one only where no pods
// of before are the stable ones.
func (s Service) rollout(live Live, q Question) State {
	o := live.find("argoproj.io", "Rollout", s.Namespace, s.Object)
	pods := s.pods(live)
	if o == nil || pods == nil || !covers(document.At(s.Coming, "spec", "template"), document.At(pods, "spec", "template")) {
		out := State{Reason: s.ID() + " to be as the release says"}
		if q.late(0) {
			out.Outcome = Failed
		}
		return out
	}
	out := State{Phase: document.Text(o, "status", "phase"), Weight: weight(o)}
	if !s.observed(live, o) || out.Phase == "" {
		return q.unseen(s, out.Phase, "Argo Rollouts", 0)
	}
	message := cmp.Or(document.Text(o, "status", "message"), "it says no more")
	whole := document.Text(o, "status", "stableRS") == document.Text(o, "status", "currentPodHash")
	switch {
	case out.Phase == "Degraded" || document.At(o, "status", "abort") == true:
		out.Outcome, out.Reason = Failed, fmt.Sprintf("%s: %s: %s", s.ID(), out.Phase, message)
	case out.Phase == "Healthy" && whole:
		out.Outcome = Passed
	case out.Phase == "Paused" && !ends(o):
		out.Outcome, out.Reason = Asking, fmt.Sprintf("%s: Paused: %s; `kubectl argo rollouts promote %s -n %s` lets it go on", s.ID(), message, s.Object, s.Namespace)
	default:
		out.Reason = fmt.Sprintf("%s: %s, weight %d: %s", s.ID(), out.Phase, out.Weight, message)
	}
	return out
}

// ends tells whether a pause ends by itself.
func ends(rollout Object) bool {
	if document.At(rollout, "spec", "paused") == true {
		return false
	}
	for _, c := range document.Mappings(document.At(rollout, "status", "pauseConditions")) {
		switch document.Text(c, "reason") {
		case "CanaryPauseStep":
			if step := step(rollout); document.At(step, "pause", "duration") == nil {
				return false
			}
		case "BlueGreenPause":
			if n, _ := document.Number(document.At(rollout, "spec", "strategy", "blueGreen", "autoPromotionSeconds")); n <= 0 {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// step is the one that a Rollout is at; nil where it has none.
func step(rollout Object) Object {
	steps := document.Mappings(document.At(rollout, "spec", "strategy", "canary", "steps"))
	n, _ := document.Number(document.At(rollout, "status", "currentStepIndex"))
	if int(n) >= len(steps) {
		return nil
	}
	return steps[int(n)]
}

// weight is what the last of the steps so far asked for.
func weight(rollout Object) int {
	if n, ok := document.Number(document.At(rollout, "status", "canary", "weights", "canary", "weight")); ok {
		return int(n)
	}
	if document.Text(rollout, "status", "stableRS") == document.Text(rollout, "status", "currentPodHash") {
		return 100
	}
	out := 0.0
	at, _ := document.Number(document.At(rollout, "status", "currentStepIndex"))
	for i, s := range document.Mappings(document.At(rollout, "spec", "strategy", "canary", "steps")) {
		if n, ok := document.Number(s["setWeight"]); ok && i <= int(at) {
			out = n
		}
	}
	return int(out)
}

// returnRollout: what was not promoted yet goes straight back. What was promoted would take all its steps
// and analyses once more, which promoteFull, for `kubectl argo rollouts promote --full`, leaves out.
func (s Service) returnRollout(live Live) Edit {
	o := live.find("argoproj.io", "Rollout", s.Namespace, s.Object)
	pods := s.pods(live)
	switch {
	case o == nil:
		return Edit{Settled: true}
	case s.Stable == nil || pods == nil:
		return Edit{Waits: s.ID() + " to go or to be restored to the old release"}
	}
	if reason := unrestored(document.Text(pods, "kind"), s.Stable, pods); reason != "" {
		return Edit{Waits: reason}
	}
	if !s.observed(live, o) {
		return Edit{Waits: s.ID() + ": to be taken up by Argo Rollouts"}
	}
	phase, current := document.Text(o, "status", "phase"), document.Text(o, "status", "currentPodHash")
	if stable := document.Text(o, "status", "stableRS"); stable != "" && stable != current && document.At(o, "status", "promoteFull") != true {
		return Edit{Object: o, Status: true, Patch: map[string]any{"status": map[string]any{"promoteFull": true}}, Detail: "promoteFull, to return to the old release",
			Waits: s.ID() + ": to return to the old release"}
	}
	if phase == "Healthy" {
		return Edit{Settled: true}
	}
	return Edit{Waits: fmt.Sprintf("%s: %s on the way back to the old release: %s", s.ID(), cmp.Or(phase, "not seen by Argo Rollouts"), document.Text(o, "status", "message"))}
}
