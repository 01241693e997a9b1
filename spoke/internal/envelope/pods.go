package envelope

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// Level is one of the Pod Security Standards.
type Level = psa.Level

// ParseLevel reads one.
func ParseLevel(text string) (Level, error) {
	if l := Level(text); l.Valid() {
		return l, nil
	}
	return "", fmt.Errorf("%q: want privileged, baseline or restricted", text)
}

// Labels on a Namespace that say how its pods are admitted, and by which version of the standards.
const (
	enforceLabel = psa.EnforceLevelLabel
	versionLabel = psa.EnforceVersionLabel
)

// templates are where kinds keep pods: the elements of the path to what has metadata and spec.
var templates = map[schema.GroupKind][]string{
	{Kind: "Pod"}:                        {},
	{Kind: "PodTemplate"}:                {"template"},
	{Kind: "ReplicationController"}:      {"spec", "template"},
	{Group: "apps", Kind: "Deployment"}:  {"spec", "template"},
	{Group: "apps", Kind: "ReplicaSet"}:  {"spec", "template"},
	{Group: "apps", Kind: "StatefulSet"}: {"spec", "template"},
	{Group: "apps", Kind: "DaemonSet"}:   {"spec", "template"},
	{Group: "batch", Kind: "Job"}:        {"spec", "template"},
	{Group: "batch", Kind: "CronJob"}:    {"spec", "jobTemplate", "spec", "template"},
}

// alike are the places in which kinds of others keep pods that are made like those.
var alike = [][]string{{"spec", "template"}, {"spec", "jobTemplate", "spec", "template"}}

// template is a pod in an object.
type template struct {
	at    []string
	value map[string]any
	known bool // of a kind whose pods are these for sure
}

func (t template) field(more ...string) string {
	return strings.Join(slices.Concat(t.at, []string{"spec"}, more), ".")
}

// podsIn finds the pods of an object. What should be one and cannot be read is an error.
func podsIn(s Subject) ([]template, error) {
	if at, known := templates[s.GroupVersionKind().GroupKind()]; known {
		v, there := inside(s.Object, at)
		m, isMap := v.(map[string]any)
		switch {
		case !there || v == nil:
			return nil, nil // the API server refuses it, or it makes none
		case !isMap:
			return nil, fmt.Errorf("%s is no pod template", strings.Join(at, "."))
		}
		return []template{{at, m, true}}, nil
	}
	var all []template
	for _, at := range alike {
		v, _ := inside(s.Object, at)
		m, _ := v.(map[string]any)
		spec, _ := m["spec"].(map[string]any)
		if _, pod := spec["containers"].([]any); pod {
			all = append(all, template{at, m, false})
		}
	}
	return all, nil
}

func inside(m map[string]any, at []string) (v any, there bool) {
	v, there = m, true
	for _, element := range at {
		next, isMap := v.(map[string]any)
		if !isMap {
			return v, v != nil
		}
		if v, there = next[element]; !there {
			return nil, false
		}
	}
	return v, there
}

// pods judges the pods of an object: their images and their security.
func (l Layer) pods(s Subject) []Violation {
	if len(l.Registries) == 0 && !l.Digests && l.PodSecurity == "" {
		return nil
	}
	all := l.loosened(s)
	pods, err := podsIn(s)
	if err != nil {
		return append(all, Violation{"spec", err.Error() + ", so that its images and its security cannot be told", ""})
	}
	for _, t := range pods {
		if len(l.Registries) > 0 || l.Digests {
			all = append(all, l.images(t)...)
		}
		if l.PodSecurity != "" && l.PodSecurity != psa.LevelPrivileged {
			all = append(all, l.secure(t)...)
		}
	}
	return all
}

// loosened: a Namespace that would have the API server admit what the envelope does not.
func (l Layer) loosened(s Subject) []Violation {
	if l.PodSecurity == "" || s.GroupVersionKind().GroupKind() != (schema.GroupKind{Kind: "Namespace"}) {
		return nil
	}
	label, version := s.GetLabels()[enforceLabel], s.GetLabels()[versionLabel]
	if version != "" && version != psa.VersionLatest {
		return []Violation{{"metadata.labels[" + versionLabel + "]", fmt.Sprintf("%q is not the latest version, and an older one admits more (envelope.podSecurity); let an overlay take it out", version), ""}}
	}
	if given := Level(label); label == "" || given.Valid() && psa.CompareLevels(given, l.PodSecurity) >= 0 {
		return nil
	}
	return []Violation{{"metadata.labels[" + enforceLabel + "]", fmt.Sprintf("%q is less than %s, which the envelope asks for (envelope.podSecurity); let an overlay change it", label, l.PodSecurity), ""}}
}

// images judges every reference to an image in a pod.
func (l Layer) images(t template) []Violation {
	var all []Violation
	spec, _ := t.value["spec"].(map[string]any)
	for _, group := range []string{"initContainers", "containers", "ephemeralContainers"} {
		list, ok := asMaps(spec[group])
		if !ok {
			all = append(all, Violation{t.field(group), "is no list of containers, so that their images cannot be told", ""})
		}
		for _, c := range list {
			at := t.field(fmt.Sprintf("%s[%v].image", group, c["name"]))
			all = append(all, l.image(at, c["image"])...)
		}
	}
	volumes, ok := asMaps(spec["volumes"])
	if !ok {
		all = append(all, Violation{t.field("volumes"), "is no list of volumes, so that their images cannot be told", ""})
	}
	for _, v := range volumes {
		if source, has := v["image"]; has {
			m, _ := source.(map[string]any)
			all = append(all, l.image(t.field(fmt.Sprintf("volumes[%v].image.reference", v["name"])), m["reference"])...)
		}
	}
	return all
}

// asMaps reads a list of mappings; nothing there is an empty one.
func asMaps(v any) (all []map[string]any, ok bool) {
	if v == nil {
		return nil, true
	}
	list, ok := v.([]any)
	for _, one := range list {
		m, isMap := one.(map[string]any)
		if !isMap {
			return all, false
		}
		all = append(all, m)
	}
	return all, ok
}

func (l Layer) image(at string, v any) []Violation {
	text, _ := v.(string)
	if text == "" {
		return []Violation{{at, "it names no image, and what others have set there would stay; name it", ""}}
	}
	i, err := parseImage(text)
	if err != nil {
		return []Violation{{at, "it is no image reference that every container runtime reads the same way; want HOST/PATH in lower case with a tag or a digest", fmt.Sprintf("it is %q", text)}}
	}
	var all []Violation
	if len(l.Registries) > 0 && !slices.ContainsFunc(l.Registries, func(r Registry) bool { return r.holds(i) }) {
		all = append(all, Violation{at, "it is not of a registry that is allowed (envelope.images.registries); let the overlay's images: say newName",
			fmt.Sprintf("%q is %s; allowed are %s", text, i, list(l.Registries))})
	}
	if l.Digests && i.digest == "" {
		all = append(all, Violation{at, "it has no digest, and digests are required (envelope.images.digests); let the overlay's images: say digest", fmt.Sprintf("it is %q", text)})
	}
	return all
}

// secure judges a pod by the Pod Security Standards, as the newest version of them that is built in has it.
func (l Layer) secure(t template) []Violation {
	var pod corev1.PodTemplateSpec
	at := t.field()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(t.value, &pod); err != nil {
		if !t.known {
			return nil // a kind of others; its own rules are under envelope.rules
		}
		return []Violation{{at, "it cannot be read as a pod, so that its security cannot be told", err.Error()}}
	}
	judge, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return []Violation{{at, "its security cannot be told: " + err.Error(), ""}}
	}
	found := policy.AggregateCheckResults(judge.EvaluatePod(psa.LevelVersion{Level: l.PodSecurity, Version: psa.LatestVersion()}, &pod.ObjectMeta, &pod.Spec))
	if found.Allowed {
		return nil
	}
	return []Violation{{at, fmt.Sprintf("pod security %s (envelope.podSecurity): %s", l.PodSecurity, found.ForbiddenDetail()), ""}}
}
