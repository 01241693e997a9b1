package job

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

// state is what one look at a copy tells.
type state struct {
	passed, failed bool
	tooLate        bool // its own deadline has passed
	lost           bool // it ended for a reason that is not the test's
	started        bool
	reason         string // of an end; else what it does now
}

func look(kind string, o kube.Object) state {
	if kind == "Pod" {
		return lookAtPod(o)
	}
	if c := o.Condition("Complete"); c.Text("status") == "True" {
		return state{passed: true}
	}
	ready, _ := o.Int("status", "ready")
	active, _ := o.Int("status", "active")
	failed, _ := o.Int("status", "failed")
	s := state{started: ready > 0}
	if c := o.Condition("Failed"); c.Text("status") == "True" {
		s.tooLate = c.Text("reason") == "DeadlineExceeded"
		s.failed = !s.tooLate
		s.reason = strings.TrimSuffix(c.Text("reason")+": "+c.Text("message"), ": ")
		return s
	}
	switch {
	case failed > 0:
		s.reason = fmt.Sprintf("%d of its pods failed, it tries again", failed)
	case ready > 0:
		s.reason = "runs"
	case active > 0:
		s.reason = "waits for its pod"
	}
	return s
}

// clustersFault tells reasons of a pod's end that are a cluster's, not the test's.
func clustersFault(reason string) bool {
	return slices.Contains([]string{"Evicted", "NodeLost", "NodeShutdown", "Terminated", "Shutdown", "Preempting", "NodeAffinity", "UnexpectedAdmissionError",
		"OutOfcpu", "OutOfmemory", "OutOfpods"}, reason)
}

func lookAtPod(o kube.Object) state {
	started, waiting := podStarted(o)
	s := state{started: started}
	switch reason := o.Text("status", "reason"); o.Text("status", "phase") {
	case "Succeeded":
		s.passed = true
	case "Failed":
		s.tooLate = reason == "DeadlineExceeded"
		s.lost = clustersFault(reason)
		s.failed = !s.tooLate && !s.lost
		s.reason = cmp.Or(exits(o), strings.Trim(reason+": "+o.Text("status", "message"), ": "), "the pod failed")
		if s.lost {
			s.reason = "the cluster ended its pod: " + strings.Trim(reason+": "+o.Text("status", "message"), ": ")
		}
	case "Running":
		s.reason = "runs"
	default:
		s.reason = cmp.Or(waiting, "waits for its pod")
	}
	return s
}

func statuses(pod kube.Object) []kube.Object {
	return append(pod.Mappings("status", "initContainerStatuses"), pod.Mappings("status", "containerStatuses")...)
}

// podStarted tells whether a container of it has ever run, and why one does not.
func podStarted(pod kube.Object) (started bool, waiting string) {
	for _, c := range statuses(pod) {
		if c.At("state", "running") != nil || c.At("state", "terminated") != nil || c.At("lastState", "terminated") != nil {
			started = true
		}
		if why := c.Text("state", "waiting", "reason"); why != "" && !strings.HasSuffix(why, "ing") { // ContainerCreating, PodInitializing
			waiting = cmp.Or(waiting, strings.TrimSuffix(why+": "+c.Text("state", "waiting", "message"), ": "))
		}
	}
	if c := pod.Condition("PodScheduled"); waiting == "" && c.Text("status") == "False" {
		waiting = strings.TrimSuffix(c.Text("reason")+": "+c.Text("message"), ": ")
	}
	return started, waiting
}

// exits says how its containers ended, where not well.
func exits(pod kube.Object) string {
	var out []string
	for _, c := range statuses(pod) {
		end := kube.Object(asMap(c.At("state", "terminated")))
		code, ok := end.Int("exitCode")
		if !ok || code == 0 {
			continue
		}
		text := fmt.Sprintf("container %s exited with %d", c.Text("name"), code)
		if reason := end.Text("reason"); reason != "" && reason != "Error" {
			text += " (" + reason + ")"
		}
		if message := end.Text("message"); message != "" {
			text += ": " + message
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// pods are those of a copy, the newest first.
func (r Runner) pods(ctx context.Context, t Test, made kube.Object) ([]kube.Object, error) {
	if t.Kind == "Pod" {
		p, err := r.Client.Get(ctx, kube.Pods(), t.Namespace, made.Name())
		if err != nil {
			return nil, err
		}
		return []kube.Object{p}, nil
	}
	pods, err := r.Client.List(ctx, kube.Pods(), t.Namespace, LabelObject+"="+made.Name())
	slices.SortFunc(pods, func(a, b kube.Object) int {
		return cmp.Or(strings.Compare(b.Text("metadata", "creationTimestamp"), a.Text("metadata", "creationTimestamp")), strings.Compare(a.Name(), b.Name()))
	})
	return pods, err
}

// logs are the ends of what the containers of the newest pods have written, the newest last; where they
// cannot be read, why. Secrets are taken out before anything is cut off, so that no half of one is left.
func (r Runner) logs(ctx context.Context, t Test, made kube.Object) string {
	const mostPods = 2
	pods, err := r.pods(ctx, t, made)
	if err != nil {
		return excerpt.End(r.Redactor.Redact(fmt.Sprintf("(its pods cannot be listed: %v)", err)), maxLog)
	}
	var parts []string
	for _, p := range pods[:min(len(pods), mostPods)] {
		for _, c := range statuses(p) {
			name := c.Text("name")
			head := fmt.Sprintf("--- %s/%s", p.Name(), name)
			if end := exits(kube.Object{"status": map[string]any{"containerStatuses": []any{map[string]any(c)}}}); end != "" {
				head += ": " + end
			}
			text, err := r.Client.Logs(ctx, t.Namespace, p.Name(), name, 4*maxLog)
			if err != nil {
				text = fmt.Sprintf("(its log cannot be read: %v)\n", err)
			}
			parts = append(parts, head+"\n"+text)
		}
	}
	slices.Reverse(parts)
	return excerpt.End(r.Redactor.Redact(strings.Join(parts, "\n")), maxLog)
}
