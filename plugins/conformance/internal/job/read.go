package job

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

// Annotations that make a Job or a Pod a test.
const (
	Annotation        = "wheelwright.dev/test"         // "true", "before-traffic" or "after-promotion"
	AnnotationTimeout = "wheelwright.dev/test-timeout" // "5m"
	helmHook          = "helm.sh/hook"
	helmWeight        = "helm.sh/hook-weight"
)

// When a test is run.
const (
	BeforeTraffic  = "before-traffic"
	AfterPromotion = "after-promotion"
)

// Test is one Job or Pod of a release.
type Test struct {
	Name      string // "Job smoke"
	Kind      string
	Namespace string
	When      []string
	Timeout   time.Duration
	Weight    int // those with less are run first

	base   string
	object kube.Object
}

func (t Test) resource() kube.Resource {
	if t.Kind == "Pod" {
		return kube.Pods()
	}
	return kube.Jobs()
}

// Read takes the tests out of a release's objects, in the order of their weight and name. namespace and
// timeout are for those that name none. What it cannot read it says, and leaves out.
func Read(objects []kube.Object, namespace string, timeout time.Duration) (tests []Test, problems []string) {
	seen := map[string]bool{}
	for _, o := range objects {
		when, is, problem := whenOf(o.Texts("metadata", "annotations"))
		if !is {
			continue
		}
		id := fmt.Sprintf("%s %s", o.Kind(), o.Name())
		if problem != "" {
			problems = append(problems, id+": "+problem)
			continue
		}
		t := Test{Name: id, Kind: o.Kind(), Namespace: cmp.Or(o.Namespace(), namespace), When: when, Timeout: timeout, base: o.Name(), object: o}
		if kind := o.Text("apiVersion") + " " + t.Kind; kind != "batch/v1 Job" && kind != "v1 Pod" {
			problems = append(problems, fmt.Sprintf("%s: is marked as a test and is no Job (batch/v1) or Pod (v1): take the annotation away", id))
			continue
		}
		if t.base == "" {
			problems = append(problems, id+": metadata.name: missing")
			continue
		}
		problems = append(problems, t.times(o)...)
		if key := t.Namespace + "/" + id; !seen[key] { // the objects of a service and those beside may both have it
			seen[key] = true
			tests = append(tests, t)
		}
	}
	slices.SortStableFunc(tests, func(a, b Test) int {
		return cmp.Or(cmp.Compare(a.Weight, b.Weight), strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace))
	})
	return tests, problems
}

// times reads how long the test may take and when its turn is.
func (t *Test) times(o kube.Object) (problems []string) {
	notes := o.Texts("metadata", "annotations")
	if seconds, ok := o.Int("spec", "activeDeadlineSeconds"); ok && seconds > 0 {
		t.Timeout = time.Duration(seconds) * time.Second
	}
	if text := notes[AnnotationTimeout]; text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second {
			problems = append(problems, fmt.Sprintf("%s: %s: %q is no span of time of a second or more, such as 5m", t.Name, AnnotationTimeout, text))
		} else {
			t.Timeout = d
		}
	}
	if text := notes[helmWeight]; text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %s: %q is no whole number", t.Name, helmWeight, text))
		}
		t.Weight = n
	}
	return problems
}

func whenOf(notes map[string]string) (when []string, is bool, problem string) {
	both := []string{BeforeTraffic, AfterPromotion}
	switch text, marked := notes[Annotation]; {
	case !marked:
	case text == "true":
		return both, true, ""
	case text == "false":
		return nil, false, ""
	default:
		for word := range strings.SplitSeq(text, ",") {
			word = strings.TrimSpace(word)
			if !slices.Contains(both, word) {
				return nil, true, fmt.Sprintf("%s: %q: want true, %s or %s", Annotation, text, BeforeTraffic, AfterPromotion)
			}
			when = append(when, word)
		}
		return when, true, ""
	}
	for word := range strings.SplitSeq(notes[helmHook], ",") {
		switch strings.TrimSpace(word) {
		case "test", "test-success":
			return both, true, ""
		case "test-failure":
			return nil, true, helmHook + ": test-failure is of Helm 2 and is not acted on: write a test that passes"
		}
	}
	return nil, false, ""
}

// annotations are those that mean something to others than who runs tests.
func annotations(o kube.Object) map[string]string {
	notes := o.Texts("metadata", "annotations")
	for key := range notes {
		if strings.HasPrefix(key, "helm.sh/") || key == Annotation || key == AnnotationTimeout {
			delete(notes, key)
		}
	}
	return notes
}
