package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var (
	pods        = resource{schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, "pods", true}
	replicaSets = resource{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}, "replicasets", true}
)

// pod is the part of a pod that says why it is not ready.
type pod struct {
	Metadata metav1.ObjectMeta
	Status   struct {
		Phase, Reason, Message string
		Conditions             []condition
		InitContainerStatuses  []container
		ContainerStatuses      []container
	}
}

type condition struct{ Type, Status, Reason, Message string }

type container struct {
	Name      string
	Ready     bool
	State     containerState
	LastState containerState
}

type containerState struct {
	Waiting    *struct{ Reason, Message string }
	Running    *struct{}
	Terminated *struct {
		ExitCode int
		Reason   string
	}
}

// symptom is why a workload is not ready, and the pod that says so, if one does.
type symptom struct {
	why string // "": nothing to say
	pod types.UID
}

// consult asks a workload's pods why it is not ready.
func (c *Cluster) consult(ctx context.Context, a ailing) (symptom, error) {
	if a.object == nil || a.Group != "apps" && a.Group != "batch" {
		why, err := podOf(a)
		return symptom{why: why}, err
	}
	owner := a.object.GetUID()
	labels, _, _ := unstructured.NestedStringMap(a.object.Object, "spec", "selector", "matchLabels")
	if len(labels) == 0 || owner == "" {
		return symptom{}, nil
	}
	if why := replicaFailure(a.object); why != "" {
		return symptom{why: why}, nil
	}
	if a.Kind == "Deployment" {
		set, hash, err := c.newestReplicaSet(ctx, a.Namespace, labels, owner)
		if err != nil || set == "" {
			return symptom{}, allowed(err)
		}
		owner = set
		labels["pod-template-hash"] = hash
	}
	found, err := c.podsOf(ctx, a.Namespace, labels, owner)
	if err != nil {
		return symptom{}, allowed(err)
	}
	if rev, _, _ := unstructured.NestedString(a.object.Object, "status", "updateRevision"); rev != "" { // a StatefulSet's new pods first
		slices.SortStableFunc(found, func(x, y pod) int { return newer(y, rev) - newer(x, rev) })
	}
	best, weight := symptom{}, 0
	for _, p := range found {
		if why, w := p.trouble(); w > weight {
			best, weight = symptom{why, p.Metadata.UID}, w
		}
	}
	return best, nil
}

func newer(p pod, revision string) int {
	if p.Metadata.Labels["controller-revision-hash"] == revision {
		return 1
	}
	return 0
}

// allowed: an explanation that may not be read is no reason to know nothing.
func allowed(err error) error {
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// podOf explains a pod that is an object of the set itself.
func podOf(a ailing) (string, error) {
	if a.object == nil || a.Kind != "Pod" || a.Group != "" {
		return "", nil
	}
	raw, err := a.object.MarshalJSON()
	if err != nil {
		return "", fmt.Errorf("read %s: %w", a.Item, err)
	}
	var p pod
	if err := json.Unmarshal(raw, &p); err != nil {
		return "", fmt.Errorf("read %s: %w", a.Item, err)
	}
	why, _ := p.trouble()
	return why, nil
}

// replicaFailure: the pods could not even be made (quota, admission, a missing service account).
func replicaFailure(u *unstructured.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, v := range conditions {
		if c, _ := v.(map[string]any); c["type"] == "ReplicaFailure" && c["status"] == "True" {
			return fmt.Sprint(c["reason"], ": ", c["message"])
		}
	}
	return ""
}

func selectorOf(labels map[string]string) string {
	var parts []string
	for k, v := range labels {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

func (c *Cluster) newestReplicaSet(ctx context.Context, namespace string, labels map[string]string, owner types.UID) (types.UID, string, error) {
	sets, err := c.api.listMetadata(ctx, replicaSets, namespace, selectorOf(labels))
	if err != nil {
		return "", "", err
	}
	var uid types.UID
	hash, newest := "", -1
	for _, s := range sets {
		if !ownedBy(s, owner) {
			continue
		}
		if rev, err := strconv.Atoi(s.Annotations["deployment.kubernetes.io/revision"]); err == nil && rev > newest {
			uid, hash, newest = s.UID, s.Labels["pod-template-hash"], rev
		}
	}
	return uid, hash, nil
}

func ownedBy(m metav1.ObjectMeta, owner types.UID) bool {
	return slices.ContainsFunc(m.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == owner })
}

func (c *Cluster) podsOf(ctx context.Context, namespace string, labels map[string]string, owner types.UID) ([]pod, error) {
	var found []pod
	err := c.api.list(ctx, pods, namespace, selectorOf(labels), "", func(raw []byte) error {
		var l struct{ Items []pod }
		if err := json.Unmarshal(raw, &l); err != nil {
			return fmt.Errorf("read the list of pods: %w", err)
		}
		for _, p := range l.Items {
			if ownedBy(p.Metadata, owner) {
				found = append(found, p)
			}
		}
		return nil
	})
	return found, err
}

const notRunning = 5 // the weight of a container that waits

// trouble says why a pod is not ready, and how telling that is; 0: it is ready, or says nothing.
func (p pod) trouble() (string, int) {
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating" {
			return waiting(c), notRunning
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == "PodScheduled" && c.Status == "False" && c.Reason != "" {
			return c.Reason + ": " + c.Message, 4
		}
	}
	if p.Status.Phase == "Failed" && p.Status.Reason != "" {
		return p.Status.Reason + ": " + p.Status.Message, 3
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			return fmt.Sprintf("container %s ended with exit code %d (%s)", c.Name, t.ExitCode, t.Reason), 3
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running != nil && !c.Ready {
			return fmt.Sprintf("container %s runs but is not ready: its readiness probe does not pass", c.Name), 2
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" && c.Status == "False" && c.Reason != "" && c.Reason != "PodCompleted" {
			return strings.TrimSuffix(c.Reason+": "+c.Message, ": "), 1
		}
	}
	return "", 0
}

// waiting tells a container's reason. What the program itself printed last is the provider's.
func waiting(c container) string {
	text := c.State.Waiting.Reason
	if m := c.State.Waiting.Message; m != "" {
		text += ": " + m
	}
	if t := c.LastState.Terminated; t != nil {
		text += fmt.Sprintf(" (container %s ended with exit code %d, %s)", c.Name, t.ExitCode, t.Reason)
	}
	return text
}
