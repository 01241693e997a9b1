package manifest

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// podSpecs are the places where kinds keep a pod: Pod, the workloads (and kinds of others that are
// made like them, such as Argo's Rollout), CronJob, PodTemplate.
var podSpecs = [][]string{
	{"spec"},
	{"spec", "template", "spec"},
	{"spec", "jobTemplate", "spec", "template", "spec"},
	{"template", "spec"},
}

// CheckImages names every container whose image can change under a release that does not: no tag, or
// the tag "latest", unless a digest pins it.
func CheckImages(objs []*unstructured.Unstructured) []Problem {
	var problems []Problem
	for _, obj := range objs {
		for _, path := range podSpecs {
			pod, ok, _ := unstructured.NestedFieldNoCopy(obj.Object, path...)
			spec, isMap := pod.(map[string]any)
			if !ok || !isMap {
				continue
			}
			for _, field := range []string{"initContainers", "containers", "ephemeralContainers"} {
				for _, c := range maps(spec[field]) {
					image, given := c["image"].(string)
					if why := moves(image); why != "" && (given || field != "ephemeralContainers") {
						problems = append(problems, Problem{ID(obj), fmt.Sprintf("%s %v: image %q %s",
							strings.TrimSuffix(field, "s"), c["name"], image, why)})
					}
				}
			}
			for _, v := range maps(spec["volumes"]) {
				source, _ := v["image"].(map[string]any)
				reference, given := source["reference"].(string)
				if why := moves(reference); why != "" && given {
					problems = append(problems, Problem{ID(obj), fmt.Sprintf("volume %v: image %q %s",
						v["name"], reference, why)})
				}
			}
		}
	}
	return problems
}

// maps reads a list of mappings, wherever the list is one.
func maps(v any) []map[string]any {
	list, _ := v.([]any)
	var out []map[string]any
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// moves says why an image reference is not fixed; "" where it is.
func moves(image string) string {
	if image == "" {
		return "is empty; name one with a tag or a digest"
	}
	if _, digest, ok := strings.Cut(image, "@"); ok && strings.Contains(digest, ":") {
		return ""
	}
	last := image[strings.LastIndex(image, "/")+1:]
	_, tag, ok := strings.Cut(last, ":")
	switch {
	case !ok || tag == "":
		return "has no tag; give one, or a digest"
	case tag == "latest":
		return "is tagged latest, which moves; give a version, or a digest"
	}
	return ""
}
