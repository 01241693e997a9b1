package measure

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// What Kubernetes alone can tell of a candidate.
const (
	PodRestarts    = "pod-restarts"    // containers that ended since the span began
	PodReadiness   = "pod-readiness"   // percent of the wanted pods
	PodUnavailable = "pod-unavailable" // seconds that the pod has been unready which is so the longest
)

// Pods is what is known of a workload's pods at one moment.
type Pods struct {
	Workload string
	Wanted   int // replicas
	At       time.Time
	Pods     []Pod
}

// Pod is one that should run: neither ended nor on its way out.
type Pod struct {
	Name       string
	Created    time.Time
	Ready      bool
	Since      time.Time // when Ready last changed; zero: since it was created
	Containers []Container
}

// Container is one of a pod's.
type Container struct {
	Name     string
	Restarts int
	Ended    time.Time // the last time; zero: never
	Reason   string    // of that: "OOMKilled", "Error"
	Waiting  string    // why it does not run now: "CrashLoopBackOff"
}

// PodObjectives is what a candidate's pods have to keep where nothing is declared: nothing restarts, and
// nothing is unready for longer than the interval.
func PodObjectives(interval time.Duration) []Objective {
	none, longest := 0.0, interval.Seconds()
	return []Objective{
		{Name: PodRestarts, Title: "restarts", Max: &none, Interval: interval},
		{Name: PodUnavailable, Title: "longest unready", Unit: "s", Max: &longest, Interval: interval},
	}
}

// Samples tells one of the three. from is when the span began; zero: with each pod. Without a single
// pod there is no data.
func (p Pods) Samples(metric string, from time.Time) Samples {
	switch metric {
	case PodRestarts, PodReadiness, PodUnavailable:
	default:
		return Samples{Problem: fmt.Sprintf("Kubernetes does not tell %s: it tells %s, %s and %s", metric, PodRestarts, PodReadiness, PodUnavailable), Cause: NoBound}
	}
	if len(p.Pods) == 0 {
		return Samples{Problem: "no data: there is no pod of " + p.Workload, Cause: NoData}
	}
	count := float64(len(p.Pods))
	s := Samples{Counted: &count, Of: "pods", Newest: p.At}
	var value float64
	switch metric {
	case PodRestarts:
		value, s.Detail = p.restarts(from)
	case PodReadiness:
		value, s.Detail = p.readiness()
	case PodUnavailable:
		value, s.Detail = p.unavailable()
	}
	s.Values = []float64{value}
	return s
}

// restarts counts. Kubernetes keeps only the last end of a container: of one that was there before the
// span, several restarts within it count as one.
func (p Pods) restarts(from time.Time) (float64, string) {
	total := 0
	var details []string
	for _, pod := range p.Pods {
		for _, c := range pod.Containers {
			n := c.Restarts
			if !from.IsZero() && pod.Created.Before(from) {
				n = min(n, 1)
				if c.Ended.Before(from) {
					n = 0
				}
			}
			if n > 0 {
				total += n
				details = append(details, fmt.Sprintf("%s/%s: %s", pod.Name, c.Name, either(c.Reason, "ended")))
			}
		}
	}
	return float64(total), listed(details)
}

func (p Pods) readiness() (float64, string) {
	ready := 0
	var details []string
	for _, pod := range p.Pods {
		if pod.Ready {
			ready++
		} else {
			details = append(details, pod.trouble())
		}
	}
	return 100 * float64(ready) / float64(max(p.Wanted, len(p.Pods))), listed(details)
}

func (p Pods) unavailable() (float64, string) {
	var longest time.Duration
	var detail string
	for _, pod := range p.Pods {
		since := pod.Since
		if since.IsZero() {
			since = pod.Created
		}
		if lasted := p.At.Sub(since); !pod.Ready && lasted > longest {
			longest, detail = lasted, pod.trouble()
		}
	}
	return longest.Seconds(), detail
}

// trouble says why the pod is not ready.
func (p Pod) trouble() string {
	for _, c := range p.Containers {
		if c.Waiting != "" {
			return fmt.Sprintf("%s/%s: %s", p.Name, c.Name, c.Waiting)
		}
	}
	return p.Name + ": not ready"
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// podShape is the little of a v1 Pod that matters here.
type podShape struct {
	Metadata struct {
		Name              string     `json:"name"`
		CreationTimestamp time.Time  `json:"creationTimestamp"`
		DeletionTimestamp *time.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Status struct {
		Phase      string `json:"phase"`
		Conditions []struct {
			Type               string    `json:"type"`
			Status             string    `json:"status"`
			LastTransitionTime time.Time `json:"lastTransitionTime"`
		} `json:"conditions"`
		InitContainerStatuses []containerShape `json:"initContainerStatuses"`
		ContainerStatuses     []containerShape `json:"containerStatuses"`
	} `json:"status"`
}

type containerShape struct {
	Name         string     `json:"name"`
	RestartCount int        `json:"restartCount"`
	State        stateShape `json:"state"`
	LastState    stateShape `json:"lastState"`
}

type stateShape struct {
	Waiting *struct {
		Reason string `json:"reason"`
	} `json:"waiting"`
	Terminated *struct {
		Reason     string    `json:"reason"`
		FinishedAt time.Time `json:"finishedAt"`
	} `json:"terminated"`
}

// ReadPods takes a v1 PodList as the API server answers it. Pods that have ended or are on their way out
// are left out.
func ReadPods(list []byte, workload string, wanted int, at time.Time) (Pods, error) {
	var l struct {
		Items []podShape `json:"items"`
	}
	if err := json.Unmarshal(list, &l); err != nil {
		return Pods{}, fmt.Errorf("read the pods of %s: %w", workload, err)
	}
	out := Pods{Workload: workload, Wanted: wanted, At: at}
	for _, item := range l.Items {
		if item.Metadata.DeletionTimestamp != nil || item.Status.Phase == "Succeeded" || item.Status.Phase == "Failed" {
			continue
		}
		pod := Pod{Name: item.Metadata.Name, Created: item.Metadata.CreationTimestamp}
		for _, c := range item.Status.Conditions {
			if c.Type == "Ready" {
				pod.Ready, pod.Since = c.Status == "True", c.LastTransitionTime
			}
		}
		for _, c := range append(item.Status.InitContainerStatuses, item.Status.ContainerStatuses...) {
			pod.Containers = append(pod.Containers, c.container())
		}
		out.Pods = append(out.Pods, pod)
	}
	return out, nil
}

func (c containerShape) container() Container {
	out := Container{Name: c.Name, Restarts: c.RestartCount}
	if c.State.Waiting != nil && !strings.HasSuffix(c.State.Waiting.Reason, "ing") { // ContainerCreating, PodInitializing
		out.Waiting = c.State.Waiting.Reason
	}
	for _, s := range []stateShape{c.LastState, c.State} {
		if t := s.Terminated; t != nil && t.FinishedAt.After(out.Ended) {
			out.Ended, out.Reason = t.FinishedAt, t.Reason
		}
	}
	return out
}
