package rules_test

import (
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/rules"
)

func TestRollouts(t *testing.T) {
	book, err := rules.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what    string
		status  object
		want    rules.Verdict
		message string
	}{
		{"healthy", object{"phase": "Healthy", "observedGeneration": "3"}, rules.Current, ""},
		{"healthy before the change", object{"phase": "Healthy", "observedGeneration": "2"}, rules.InProgress, "Healthy"},
		{"given up", object{"phase": "Degraded", "observedGeneration": "3", "message": "RolloutAborted: metric bad"}, rules.Failed, "Degraded: RolloutAborted: metric bad"},
		{"given up before the change", object{"phase": "Degraded", "observedGeneration": "2"}, rules.InProgress, "Degraded"},
		{"held", object{"phase": "Paused", "observedGeneration": "3", "message": "CanaryPauseStep"}, rules.InProgress, "Paused: CanaryPauseStep"},
		{"not seen by anybody", nil, rules.InProgress, "by its health rule it is not ready yet"},
	} {
		o := object{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": object{"name": "web", "generation": int64(3)}}
		if c.status != nil {
			o["status"] = c.status
		}
		v, message, ok, err := book.Judge(o)
		if v != c.want || message != c.message || !ok || err != nil {
			t.Errorf("%s: %s %q %v %v, want %s %q", c.what, v, message, ok, err, c.want, c.message)
		}
	}
	if book.About("argoproj.io", "v1alpha1", "AnalysisRun") {
		t.Error("there is a rule about AnalysisRuns")
	}
}

// What brings a Secret is waited for, and tells why there is none without what stands in it.
func TestSecretsThatOthersMake(t *testing.T) {
	book, err := rules.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	condition := func(kind, status, reason, message string) object {
		return object{"conditions": []any{object{"type": "Other", "status": "True"}, object{"type": kind, "status": status, "reason": reason, "message": message}}}
	}
	synced := func(version string) object {
		s := condition("Ready", "True", "SecretSynced", "")
		s["syncedResourceVersion"] = version
		return s
	}
	for _, c := range []struct {
		what, apiVersion, kind string
		spec, status           object
		want                   rules.Verdict
		message                string
	}{
		{"opened", "bitnami.com/v1alpha1", "SealedSecret", nil, condition("Synced", "True", "", ""), rules.Current, ""},
		{"cannot be opened", "bitnami.com/v1alpha1", "SealedSecret", nil, condition("Synced", "False", "", "no key could decrypt secret (k)"), rules.Failed, "not opened: no key could decrypt secret (k)"},
		{"not seen yet", "bitnami.com/v1alpha1", "SealedSecret", nil, nil, rules.InProgress, "by its health rule it is not ready yet"},
		{"synced", "external-secrets.io/v1", "ExternalSecret", nil, synced("3-abc"), rules.Current, ""},
		{"synced, of an older controller", "external-secrets.io/v1beta1", "ExternalSecret", nil, condition("Ready", "True", "SecretSynced", ""), rules.Current, ""},
		{"synced before the change", "external-secrets.io/v1", "ExternalSecret", nil, synced("2-abc"), rules.InProgress, "not ready: SecretSynced"},
		{"made once", "external-secrets.io/v1", "ExternalSecret", object{"refreshPolicy": "CreatedOnce"}, synced("2-abc"), rules.Current, ""},
		{"never refreshed", "external-secrets.io/v1", "ExternalSecret", object{"refreshInterval": "0"}, synced("2-abc"), rules.Current, ""},
		{"the store is away", "external-secrets.io/v1beta1", "ExternalSecret", nil, condition("Ready", "False", "SecretSyncedError", "template: hunter2"), rules.InProgress, "not ready: SecretSyncedError"},
		{"not seen yet", "external-secrets.io/v1", "ExternalSecret", nil, nil, rules.InProgress, "by its health rule it is not ready yet"},
		{"a store", "external-secrets.io/v1", "SecretStore", nil, condition("Ready", "True", "Valid", ""), rules.Current, ""},
		{"a store that is not", "external-secrets.io/v1", "ClusterSecretStore", nil, condition("Ready", "False", "InvalidProviderConfig", "x"), rules.InProgress, "not ready: InvalidProviderConfig"},
	} {
		o := object{"apiVersion": c.apiVersion, "kind": c.kind, "metadata": object{"name": "db", "generation": int64(3)}}
		if c.spec != nil {
			o["spec"] = c.spec
		}
		if c.status != nil {
			o["status"] = c.status
		}
		if v, message, ok, err := book.Judge(o); v != c.want || message != c.message || !ok || err != nil {
			t.Errorf("%s %s: %s %q %v %v, want %s %q", c.kind, c.what, v, message, ok, err, c.want, c.message)
		}
	}
}
