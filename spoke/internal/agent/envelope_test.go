package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

// bounds has the spoke read a spoke.yaml, and returns what writes another one: lines of the subscription.
func (s *stage) bounds(lines string) (rewrite func(lines string)) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "spoke.yaml")
	rewrite = func(lines string) {
		s.t.Helper()
		text := "version: 1\nhealthTimeout: 4s\nsubscriptions:\n- distribution: shop\n  variant: app\n  namespace: " + s.ns + "\n" + lines
		if err := atOnce(path, text); err != nil {
			s.t.Fatal(err)
		}
	}
	rewrite(lines)
	settings, err := config.Load(path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.settings, s.every.Config = &settings, 50*time.Millisecond
	return rewrite
}

// atOnce replaces a file: the spoke sees the one or the other, and none that is half written.
func atOnce(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// having adds objects to a distribution.
func having(files map[string]string, more map[string]string) map[string]string {
	for name, text := range more {
		files[name+".yaml"] = text
		files["kustomization.yaml"] += "- " + name + ".yaml\n"
	}
	return files
}

const job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: %s, annotations: {%s}}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: %q, securityContext: {privileged: true}}]}}}\n"

// All that a release would bring, its hooks and its tests too, is judged before anything is touched: everything that is
// outside is named at once, in the reason, in the pre-flight, and to whoever asks before.
func TestAReleaseOutsideOfTheEnvelope(t *testing.T) {
	s := newStage(t)
	s.overlay.write(map[string]string{"kustomization.yaml": "resources:\n- " + url + "//dist/app\n"}) // without one kustomize moves everything into the namespace
	s.bounds("  overlay: {path: .}\n  envelope: {podSecurity: baseline, images: {registries: [registry.example.com]}, kinds: {deny: [Secret]}}\n")
	defer s.installed("1.0.0")()
	name := "outside-" + s.ns
	s.vendor.release(t, "1.1.0", having(app("1.1.0", good), map[string]string{
		"role":    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: " + name + "}\nrules: []\n",
		"space":   "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: default}\n",
		"secret":  "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
		"list":    "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: " + name + "-listed, namespace: default}}\n",
		"migrate": fmt.Sprintf(job, "migrate", beforeAll, "registry.example.com/tool:1"),
		"test":    fmt.Sprintf(job, "smoke", `wheelwright.dev/test: "true"`, "quiet.example.org/tool:1"),
	}))
	s.offer()
	i := s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	if !strings.HasPrefix(i.Reason, "outside of the envelope in 7 ways, ") || strings.Contains(i.Reason, "quiet.example.org") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.told(fleet.EventPreflight, "1.1.0: breaks: outside of the envelope in 7 ways, all of which spoke diff shop 1.1.0 shows: ")
	plan, err := s.agent.Plan(t.Context(), "shop", "1.1.0")
	if err != nil || plan.Preflight.Outcome != fleet.OutcomeBreaks {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	_, shown, err := s.agent.Render(t.Context(), "shop", "1.1.0")
	if err != nil {
		t.Error(err)
	}
	for what, texts := range map[string][]string{"diff": plan.Problems, "render": shown} {
		all := strings.Join(texts, "\n")
		for _, want := range []string{
			"ClusterRole " + name + ": kind: it has no namespace", "ConfigMap default/" + name + ": metadata.namespace: namespace \"default\" is not allowed",
			"ConfigMap default/" + name + "-listed: metadata.namespace", "Secret " + s.ns + "/s: kind: Secret.core is denied",
			"Job " + s.ns + "/migrate: spec.template.spec: pod security baseline", "Job " + s.ns + "/smoke: spec.template.spec: pod security baseline",
			"Job " + s.ns + "/smoke: spec.template.spec.containers[a].image: it is not of a registry that is allowed",
			`"quiet.example.org/tool:1" is quiet.example.org/tool; allowed are registry.example.com`,
		} {
			if !strings.Contains(all, want) {
				t.Errorf("spoke %s does not say %q:\n%s", what, want, all)
			}
		}
	}
	s.mustBeWhole("1.0.0")
	for _, args := range [][]string{{"get", "clusterrole", name}, {"-n", "default", "get", "configmap", name}, {"-n", s.ns, "get", "job,secret", "-l", "wheelwright.dev/distribution"}} {
		if out, _ := s.cluster.Kubectl(append(args, "--ignore-not-found", "-o", "name")...); out != "" {
			t.Errorf("it is there: %s", out)
		}
	}
	for _, e := range s.events(fleet.EventPhase) {
		if strings.Contains(e, "quiet") {
			t.Errorf("the vendor is told a value: %s", e)
		}
	}
	s.upgraded(t, "1.1.1")
}

// An envelope that changes under what runs deletes nothing and puts nothing of it back; it is said, and more of the same
// is refused, until it is inside again.
func TestTheEnvelopeChangesUnderWhatRuns(t *testing.T) {
	s := newStage(t)
	rewrite := s.bounds("")
	defer s.installed("1.0.0")()
	rewrite("  envelope: {kinds: {deny: [ConfigMap]}}\n")
	says := func(running string, left int, text string) {
		t.Helper()
		s.cluster.Eventually(t, fmt.Sprintf("%d objects left outside", left), func() error {
			if i := s.now(); i.Running != running || i.Drifted != left || !strings.Contains(i.DriftMessage, text) {
				return fmt.Errorf("with %s %d are left: %s", i.Running, i.Drifted, i.DriftMessage)
			}
			return nil
		})
	}
	says("1.0.0", 1, "ConfigMap "+s.ns+"/settings is outside of the envelope, is left as it is and not put back: kind: ConfigMap.core is denied")
	s.mustBeWhole("1.0.0")
	s.kubectl(t, "-n", s.ns, "delete", "configmap", "settings")
	s.kubectl(t, "-n", s.ns, "set", "image", "deployment/backend", "app=registry.example.com/by-hand:1")
	s.cluster.Eventually(t, "what is inside to be put back", func() error { return s.image(good) })
	if out := s.kubectl(t, "-n", s.ns, "get", "configmap", "settings", "--ignore-not-found", "-o", "name"); out != "" {
		t.Error("what is outside was put back")
	}
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	rewrite("  envelope: {kinds: {deny: [ConfigMap]}}\n  drift: ignore\n")
	says("1.0.0", 1, "outside of the envelope")
	rewrite("  envelope: {kinds: {deny: [Secret]}}\n")
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0") // at once: what was refused is judged by what holds now
	says("1.1.0", 0, "")
	s.mustBeWhole("1.1.0")
}

// Law 8, and its bound: an earlier release that is outside by now is not gone back to, whoever asks. Law 7: what ran when
// the delivery began is, so that nothing is left in between.
func TestGoingBackOutsideOfTheEnvelope(t *testing.T) {
	s := newStage(t)
	rewrite := s.bounds("")
	defer s.installed("1.0.0", "old")()
	const other = "other.example.com/app:1"
	s.vendor.release(t, "1.1.0", app("1.1.0", other, "new"))
	s.offer()
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	rewrite("  envelope: {images: {registries: [other.example.com]}}\n")
	s.cluster.Eventually(t, "the way back to be refused", func() error {
		_, _, err := s.agent.RollBack(t.Context(), "shop", "", "we want to", true)
		if err == nil || !strings.Contains(err.Error(), "shop 1.0.0: nothing to act on: outside of the envelope: Deployment "+s.ns+"/backend: spec.template.spec.containers[app].image") || !strings.Contains(err.Error(), "widen the envelope in spoke.yaml") {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	if _, _, err := s.agent.RollBack(t.Context(), "shop", "1.0.0", "we want to", false); err == nil {
		t.Error("it is gone back to")
	}
	s.hear(recalled("1.1.0", "1.0.0"))
	s.reaches(fleet.Refused, "1.0.0", "1.1.0")
	s.mustBeWhole("1.1.0", "new")
	s.offer()

	// The envelope is narrowed while a release that does not become well is on the cluster.
	s.vendor.release(t, "1.2.0", app("1.2.0", "other.example.com/does-not-exist:1", "newer"))
	s.offer()
	s.cluster.Eventually(t, "1.2.0 to be on the cluster", func() error {
		if i := s.now(); i.Phase != fleet.Settling || i.Target != "1.2.0" {
			return fmt.Errorf("it is %s %s", i.Phase, i.Target)
		}
		return nil
	})
	rewrite("  envelope: {kinds: {deny: [Deployment]}}\n")
	s.cluster.Eventually(t, "what ran to run again", func() error {
		if i := s.now(); i.Running != "1.1.0" || !slices.Contains([]fleet.Phase{fleet.RolledBack, fleet.Refused}, i.Phase) {
			return fmt.Errorf("it is %s %s with %s running: %s", i.Phase, i.Target, i.Running, i.Reason)
		}
		return s.whole("1.1.0", "new")
	})
	s.cluster.Eventually(t, "it to be said", func() error {
		if i := s.now(); i.Drifted != 1 || !strings.Contains(i.DriftMessage, "Deployment "+s.ns+"/backend is outside of the envelope") {
			return fmt.Errorf("%d are left: %s", i.Drifted, i.DriftMessage)
		}
		return nil
	})
}
