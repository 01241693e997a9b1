package rules

import (
	"fmt"
	"sync"
)

// builtin is made when it is first needed: most clusters have none of these kinds.
var builtin = sync.OnceValues(func() (*Book, error) {
	all := []Rule{{
		// Its observedGeneration is text, and its conditions tell of an earlier rollout too.
		Group: "argoproj.io", Kind: "Rollout",
		Current: `status.phase == "Healthy" && status.observedGeneration == string(metadata.generation)`,
		Failed:  `status.phase == "Degraded" && status.observedGeneration == string(metadata.generation)`,
		Message: `status.phase + (has(status.message) ? ": " + status.message : "")`,
	}, {
		// Its condition is none of the usual. What cannot be opened now cannot be opened later either: its keys
		// are another cluster's, or somebody else has the Secret.
		Group: "bitnami.com", Kind: "SealedSecret",
		Current: is("Synced", "True"), Failed: is("Synced", "False"),
		Message: `"not opened: " + ` + first("Synced", "message"),
	}, {
		// Ready stays from before a change; what it was synced from begins with the generation. One that is made
		// once only never is again.
		Group: "external-secrets.io", Kind: "ExternalSecret",
		Current: is("Ready", "True") + ` && (!has(status.syncedResourceVersion) || spec.refreshPolicy == "CreatedOnce" || spec.refreshInterval in ["0", "0s", "0m", "0h", "0h0m0s"]` +
			` || status.syncedResourceVersion.startsWith(string(metadata.generation) + "-"))`,
		Message: notSynced, // its store may be away for a while; its message may quote what was there
	}}
	for _, kind := range []string{"SecretStore", "ClusterSecretStore", "ClusterExternalSecret", "PushSecret"} {
		all = append(all, Rule{Group: "external-secrets.io", Kind: kind, Current: is("Ready", "True"), Message: notSynced})
	}
	return Compile(all)
})

var notSynced = `"not ready: " + ` + first("Ready", "reason")

// is asks for a condition.
func is(kind, status string) string {
	return fmt.Sprintf(`status.conditions.exists(c, c.type == %q && c.status == %q)`, kind, status)
}

// first is a field of a condition.
func first(kind, field string) string {
	return fmt.Sprintf(`status.conditions.filter(c, c.type == %q)[0].%s`, kind, field)
}

// Builtin are the rules about kinds whose status says otherwise than is common how they are. A rule that
// somebody wrote about such a kind goes before.
func Builtin() (*Book, error) { return builtin() }
