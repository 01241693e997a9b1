package rules

import "sync"

// builtin is made when it is first needed: most clusters have none of these kinds.
var builtin = sync.OnceValues(func() (*Book, error) {
	return Compile([]Rule{{
		// Its observedGeneration is text, and its conditions tell of an earlier rollout too.
		Group: "argoproj.io", Kind: "Rollout",
		Current: `status.phase == "Healthy" && status.observedGeneration == string(metadata.generation)`,
		Failed:  `status.phase == "Degraded" && status.observedGeneration == string(metadata.generation)`,
		Message: `status.phase + (has(status.message) ? ": " + status.message : "")`,
	}})
})

// Builtin are the rules about kinds whose status says otherwise than is common how they are. A rule that
// somebody wrote about such a kind goes before.
func Builtin() (*Book, error) { return builtin() }
