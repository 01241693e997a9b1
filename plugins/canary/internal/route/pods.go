package route

import (
	"fmt"
	"math"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Ratio is how many pods of the candidate beside so many stable ones come nearest to a share, and what
// share that is. There is at least one, and never more than stable ones: as these stay, 90 % would take
// nine times of what runs.
func Ratio(stable, weight int) (candidate int, percent float64) {
	if weight <= 0 {
		return 0, 0
	}
	stable = max(stable, 1)
	best, gap := 1, math.Inf(1)
	exact := float64(stable) * float64(weight) / float64(max(100-weight, 1))
	for _, n := range []int{int(math.Floor(exact)), int(math.Ceil(exact))} {
		n = min(max(n, 1), stable)
		if d := math.Abs(share100(stable, n) - float64(weight)); d < gap {
			best, gap = n, d
		}
	}
	return best, share100(stable, best)
}

func share100(stable, candidate int) float64 {
	return 100 * float64(candidate) / float64(stable+candidate)
}

// leadPods leads without a router: the Service selects the stable pods, the candidate's, or, for a share
// between, both, in which case the candidate has as many pods as the share needs. The stable workload is
// not touched: its number of pods is what it is.
func leadPods(c call) (Result, error) {
	service := c.named("", "Service", c.service.Name)
	if service == nil {
		if c.traffic.allStable() {
			return Result{}, nil
		}
		return Result{}, c.wrong("does not exist; the release's objects are applied first")
	}
	switched, err := c.switchSelector(service)
	if err != nil {
		return Result{}, err
	}
	if c.traffic.Weight == 100 {
		return c.takeOver(switched), nil
	}
	workload, warnings, err := c.shareLabel(switched)
	if err != nil {
		return Result{}, err
	}
	result := Result{Apply: []Object{switched}, Warnings: warnings}
	if workload != nil {
		result.Apply = append(result.Apply, workload)
	}
	return result, nil
}

// takeOver gives the candidate all the requests once it has as many pods ready as the stable side.
func (c call) takeOver(switched Object) Result {
	found := c.named("apps", "Deployment", c.service.Target+strategy.Suffix)
	stable := c.named("apps", "Deployment", c.service.Target)
	if document.Mapping(found, "spec") == nil || stable == nil {
		return Result{Apply: []Object{switched}}
	}
	result := Result{Apply: []Object{switched}}
	want := pods(found)
	if !c.scaled(found) && want < pods(stable) {
		want = pods(stable)
		found = document.Clone(found)
		document.Mapping(found, "spec")["replicas"] = int64(want)
		result.Apply = append(result.Apply, found)
	}
	ready, _ := document.Number(document.At(found, "status", "readyReplicas"))
	if _, known := found["status"].(map[string]any); known && int(ready) < want {
		result.Apply = result.Apply[1:]
		result.Waits = fmt.Sprintf("%d of %d pods of %s are ready", int(ready), want, id(found))
	}
	return result
}

// pods is how many a Deployment is to have.
func pods(o Object) int {
	n, ok := document.Number(document.At(o, "spec", "replicas"))
	if !ok {
		return 1
	}
	return int(n)
}

// scaled tells whether an autoscaler says how many.
func (c call) scaled(workload Object) bool {
	for _, scaler := range c.of("autoscaling", "HorizontalPodAutoscaler") {
		if document.Text(scaler, "metadata", "namespace") == c.service.Namespace && document.Text(scaler, "spec", "scaleTargetRef", "name") == document.Text(workload, "metadata", "name") {
			return true
		}
	}
	return false
}

// switchSelector makes the Service select the candidate's pods, or what it selected when it was found.
func (c call) switchSelector(service Object) (Object, error) {
	l, had, err := readLedger(service)
	if err != nil {
		return nil, err
	}
	candidates := Object{strategy.LabelCandidateOf: c.service.Name}
	selector := document.At(service, "spec", "selector")
	if selector == nil {
		return nil, c.wrong("has no selector, so that its endpoints are somebody else's; take the Canary out, or write a selector")
	}
	if !had || !document.Equal(selector, candidates) {
		// Not as it was left here: somebody wrote another one meanwhile, and that holds.
		l.Original = selector
	}
	out := document.Clone(service)
	l.Led = map[string]entry{}
	document.Mapping(out, "spec")["selector"] = l.Original
	if c.traffic.Weight == 100 {
		l.Led[c.entry().key()] = c.entry()
		document.Mapping(out, "spec")["selector"] = candidates
	}
	return out, l.write(out)
}

// shareLabel gives the candidate's pods the label that the Service selects by, and their number, or takes
// the label back. Its pods are replaced once when the first share begins: labels of pods follow from their
// template. With all the requests the Service selects them in another way, and they stay as they are.
func (c call) shareLabel(service Object) (workload Object, warnings []string, err error) {
	found := c.named("apps", "Deployment", c.service.Target+strategy.Suffix)
	stable := c.named("apps", "Deployment", c.service.Target)
	shared := c.traffic.Weight > 0 && c.traffic.Weight < 100
	if found == nil || stable == nil {
		if shared {
			return nil, nil, c.wrong("a share of its pods needs the Deployments %s and %s; apply the candidate first", c.service.Target, c.service.Target+strategy.Suffix)
		}
		return nil, nil, nil
	}
	value := document.Text(stable, "spec", "template", "metadata", "labels", c.service.Label)
	if c.service.Label == "" || value == "" {
		return nil, nil, c.wrong("the pods of Deployment %s have no label %q to be told apart by", c.service.Target, c.service.Label)
	}
	out := document.Clone(found)
	labels := document.Mapping(out, "spec", "template", "metadata", "labels")
	if labels == nil {
		return nil, nil, c.wrong("the pods of Deployment %s have no labels; make the candidate anew", c.service.Target+strategy.Suffix)
	}
	if !shared {
		labels[c.service.Label] = value + strategy.Suffix
		return out, nil, nil
	}
	labels[c.service.Label] = value
	n, percent := Ratio(pods(stable), c.traffic.Weight)
	document.Mapping(out, "spec")["replicas"] = int64(n)
	if math.Abs(percent-float64(c.traffic.Weight)) >= 1 {
		warnings = append(warnings, fmt.Sprintf("%s: %d pods beside %d stable ones are %.0f %% of the requests, not %d %%; a router gives finer shares, and more stable pods small ones",
			id(found), n, pods(stable), percent, c.traffic.Weight))
	}
	if c.scaled(stable) {
		warnings = append(warnings, fmt.Sprintf("%s: its autoscaler counts the candidate's pods too while both are selected by %s=%s", id(stable), c.service.Label, value))
	}
	for key, want := range document.Mapping(service, "spec", "selector") {
		if key != strategy.LabelCandidateOf && key != c.service.Label && labels[key] != want {
			return nil, nil, c.wrong("selects by %s=%v, which the candidate's pods do not have, so that a share of the pods would get nothing", key, want)
		}
	}
	return out, warnings, nil
}
