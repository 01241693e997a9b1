package harness

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

// What a pod does in a simulated cluster. Without any of these it is ready at once, and a Job's pod
// completes.
//
//   - An image whose name contains "does-not-exist", "nonexistent" or "missing" cannot be pulled: the
//     pod stays Pending, its container waiting with reason ImagePullBackOff.
//   - An image whose name contains "crash-loop" runs and never becomes ready, waiting with reason
//     CrashLoopBackOff.
//   - NeverReady, an annotation on the pod with any value: it runs and never becomes ready.
//   - ReadyAfter, an annotation with a duration: it becomes ready that much later.
//
// A Service of type LoadBalancer gets an address, as from a cloud.
const (
	NeverReady = "test.wheelwright.dev/never-ready"
	ReadyAfter = "test.wheelwright.dev/ready-after"

	badImages     = "does-not-exist|nonexistent|missing"
	crashedImages = "crash-loop"
)

// writeStages writes kwok's configuration: its own stages, of which pod-ready leaves alone the pods
// that one of ours takes.
func writeStages(source, target string) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("read kwok's stages: %w", err)
	}
	var out bytes.Buffer
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		var stage map[string]any
		if err := yaml.Unmarshal([]byte(doc), &stage); err != nil {
			return fmt.Errorf("read kwok's stages: %w", err)
		}
		if metadata, _ := stage["metadata"].(map[string]any); metadata["name"] == "pod-ready" {
			if err := narrowReady(stage); err != nil {
				return err
			}
		}
		text, err := yaml.Marshal(stage)
		if err != nil {
			return fmt.Errorf("write kwok's stages: %w", err)
		}
		fmt.Fprintf(&out, "%s---\n", text)
	}
	out.WriteString(unreadyStages())
	out.WriteString(loadBalancerStage)
	return os.WriteFile(target, out.Bytes(), 0o644)
}

func narrowReady(stage map[string]any) error {
	spec, _ := stage["spec"].(map[string]any)
	selector, _ := spec["selector"].(map[string]any)
	expressions, _ := selector["matchExpressions"].([]any)
	if expressions == nil {
		return fmt.Errorf("read kwok's stages: pod-ready has no spec.selector.matchExpressions: this kwok is not the pinned one")
	}
	for _, key := range []string{imageQuery(badImages + "|" + crashedImages), annotationQuery(NeverReady)} {
		expressions = append(expressions, map[string]any{"key": key, "operator": "DoesNotExist"})
	}
	selector["matchExpressions"] = expressions
	spec["delay"] = map[string]any{
		"durationMilliseconds": 0,
		"durationFrom":         map[string]any{"expressionFrom": annotationQuery(ReadyAfter)},
	}
	return nil
}

// imageQuery is a jq expression that yields the images matching pattern, if any.
func imageQuery(pattern string) string {
	return `(.spec.containers[], (.spec.initContainers // [])[]) | .image | select(test("` + pattern + `"))`
}

func annotationQuery(name string) string { return `.metadata.annotations["` + name + `"]` }

// unreadyStages hold a pod in the state in which a kubelet would show it. Each matches only a pod
// that is not there yet, so that it is written once.
func unreadyStages() string {
	return unreadyStage("pod-image-pull-back-off", imageQuery(badImages), "Pending", `
  {{ if regexMatch "`+badImages+`" .image }}
  ready: false
  started: false
  restartCount: 0
  state:
    waiting:
      reason: ImagePullBackOff
      message: {{ printf "Back-off pulling image \"%s\": ErrImagePull: failed to pull and unpack image \"%s\": not found" .image .image | Quote }}
  {{ else }}
  ready: true
  started: true
  restartCount: 0
  state:
    running:
      startedAt: {{ $now | Quote }}
  {{ end }}`) +
		unreadyStage("pod-crash-loop", imageQuery(crashedImages), "Running", `
  ready: false
  started: false
  restartCount: 3
  state:
    waiting:
      reason: CrashLoopBackOff
      message: {{ printf "back-off 40s restarting failed container=%s" .name | Quote }}
  lastState:
    terminated:
      exitCode: 1
      reason: Error
      finishedAt: {{ $now | Quote }}
      startedAt: {{ $now | Quote }}`) +
		unreadyStage("pod-never-ready", annotationQuery(NeverReady), "Running", `
  ready: false
  started: true
  restartCount: 0
  state:
    running:
      startedAt: {{ $now | Quote }}`)
}

func unreadyStage(name, query, phase, containerStatus string) string {
	const form = `apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata:
  name: %s
spec:
  resourceRef:
    apiGroup: v1
    kind: Pod
  selector:
    matchExpressions:
    - key: .metadata.deletionTimestamp
      operator: DoesNotExist
    - key: %q
      operator: Exists
    - key: .status.startTime
      operator: DoesNotExist
  next:
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      - lastTransitionTime: {{ $now | Quote }}
        status: "True"
        type: Initialized
      - lastTransitionTime: {{ $now | Quote }}
        status: "False"
        type: Ready
        reason: ContainersNotReady
        message: containers are not ready
      - lastTransitionTime: {{ $now | Quote }}
        status: "False"
        type: ContainersReady
        reason: ContainersNotReady
        message: containers are not ready
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
%s
      {{ end }}
      phase: %s
      startTime: {{ $now | Quote }}
---
`
	indented := strings.ReplaceAll(strings.TrimPrefix(containerStatus, "\n"), "\n", "\n      ")
	return fmt.Sprintf(form, name, query, "      "+indented, phase)
}

const loadBalancerStage = `apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata:
  name: service-load-balancer
spec:
  resourceRef:
    apiGroup: v1
    kind: Service
  selector:
    matchExpressions:
    - key: .metadata.deletionTimestamp
      operator: DoesNotExist
    - key: .spec.type
      operator: In
      values: [LoadBalancer]
    - key: '.status.loadBalancer.ingress[]?.ip'
      operator: DoesNotExist
  next:
    statusTemplate: |
      loadBalancer:
        ingress:
        - ip: 203.0.113.7
`
