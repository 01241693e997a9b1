package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Annotations of hooks: ours, and those that charts bring with them (Helm, "Chart Hooks"; Argo CD, "Resource
// Hooks"), which are read where ours is not there.
const (
	HookAnnotation       = "wheelwright.dev/hook"        // "before" or "after"
	HookWeightAnnotation = "wheelwright.dev/hook-weight" // a whole number; the smaller goes first

	argoHook, argoWave   = "argocd.argoproj.io/hook", "argocd.argoproj.io/sync-wave"
	helmHook, helmWeight = "helm.sh/hook", "helm.sh/hook-weight"
)

// Hook is an object that belongs to a delivery and not to what runs: a migration, say. Each delivery makes it
// anew, and a Job has to end well.
type Hook struct {
	Before, After   bool // what runs is touched; all of the release is well
	Install, Update bool // with the first release; with a later one
	Weight          int  // of several at the same time the smaller ones go first
}

// Due reports whether the hook has its turn at all in a delivery.
func (h Hook) Due(first bool) bool {
	return (h.Before || h.After) && (first && h.Install || !first && h.Update)
}

// ReadHook reads what an object's annotations say; is is false of one that is none. Hooks of moments that do
// not come here (a deletion, a return) have no turn at all.
func ReadHook(o *unstructured.Unstructured) (h Hook, is bool, err error) {
	notes := o.GetAnnotations()
	weight, key := "", ""
	switch {
	case notes[HookAnnotation] != "":
		key, weight, is = HookAnnotation, notes[HookWeightAnnotation], true
		h.Install, h.Update = true, true
		h.Before, h.After = notes[key] == "before", notes[key] == "after"
		if !h.Before && !h.After {
			return h, true, fmt.Errorf("annotation %s: %q is neither before nor after", key, notes[key])
		}
	case notes[argoHook] != "":
		key, weight = argoHook, notes[argoWave]
		is = h.argo(words(notes[key]))
	case notes[helmHook] != "":
		key, weight = helmHook, notes[helmWeight]
		is = h.helm(words(notes[key]))
	}
	if !is || !h.Before && !h.After {
		return h, is, nil
	}
	if weight != "" {
		if h.Weight, err = strconv.Atoi(strings.TrimSpace(weight)); err != nil {
			return h, true, fmt.Errorf("the weight of its %s is %q, which is no whole number", key, weight)
		}
	}
	suspended, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend")
	switch {
	case h.Before && h.After:
		return h, true, fmt.Errorf("annotation %s: it cannot be both before and after; make two of it", key)
	case o.GetKind() == "Job" && suspended:
		return h, true, errors.New("it is a hook and suspended, and would never end; take spec.suspend out")
	case slices.Contains([]string{"Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "CronJob"}, o.GetKind()):
		return h, true, errors.New("of what runs only a Job can be a hook; make a Job of it")
	}
	return h, true, nil
}

// argo reads Argo CD's words; Sync is the moment at which everything is applied.
func (h *Hook) argo(words []string) (is bool) {
	h.Before, h.After = slices.Contains(words, "PreSync"), slices.Contains(words, "PostSync")
	h.Install, h.Update = true, true
	return h.Before || h.After || !slices.Contains(words, "Sync")
}

// helm reads Helm's; tests of it are not this package's business, and of its old word for definitions nothing is left.
func (h *Hook) helm(words []string) (is bool) {
	has := func(all ...string) bool {
		return slices.ContainsFunc(all, func(w string) bool { return slices.Contains(words, w) })
	}
	h.Before, h.After = has("pre-install", "pre-upgrade"), has("post-install", "post-upgrade")
	h.Install, h.Update = has("pre-install", "post-install"), has("pre-upgrade", "post-upgrade")
	return !has("crd-install")
}

func words(list string) (all []string) {
	for _, w := range strings.Split(list, ",") {
		all = append(all, strings.TrimSpace(w))
	}
	return all
}

// HookProblems are all that is wrong with the hooks of a set.
func HookProblems(objs []*unstructured.Unstructured) (problems []Problem) {
	for _, o := range objs {
		if _, _, err := ReadHook(o); err != nil {
			problems = append(problems, Problem{ID(o), err.Error()})
		}
	}
	return problems
}
