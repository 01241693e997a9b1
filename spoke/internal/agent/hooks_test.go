package agent_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// hookJob is a Job of one pod that ends well at once, but for one whose image is held; notes are its annotations.
func hookJob(name, notes, image string) string {
	return fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata: {name: %s, annotations: {%s}}\nspec:\n  backoffLimit: 0\n  ttlSecondsAfterFinished: 1\n"+
		"  template: {spec: {restartPolicy: Never, containers: [{name: main, image: %q}]}}\n", name, notes, image)
}

const (
	beforeAll = "wheelwright.dev/hook: before"
	afterAll  = "wheelwright.dev/hook: after"
	held      = "registry.example.com/missing:1" // the pod is there until the test ends it
)

// releases publishes an app and more files of it.
func (s *stage) releases(version string, files map[string]string, more map[string]string) {
	s.t.Helper()
	files = maps.Clone(files)
	maps.Copy(files, more)
	delete(files, "kustomization.yaml")
	s.vendor.release(s.t, version, kustomized(files))
	s.offer()
}

// get is one field of an object; "" where there is no such object.
func (s *stage) get(what, path string) string {
	s.t.Helper()
	out, err := s.cluster.Kubectl("-n", s.ns, "get", "--ignore-not-found", what, "-o", "jsonpath={"+path+"}")
	if err != nil {
		s.t.Fatal(out, err)
	}
	return out
}

// endsJob makes the pod of a Job end in a phase.
func (s *stage) endsJob(name, phase string) {
	s.t.Helper()
	s.cluster.Eventually(s.t, "the pod of "+name, func() error {
		out, err := s.cluster.Kubectl("-n", s.ns, "get", "pods", "-l", "job-name="+name, "-o", "jsonpath={.items[0].metadata.name} {.items[0].status.phase}")
		pod, at, _ := strings.Cut(out, " ")
		if err != nil || at != "Pending" {
			return fmt.Errorf("%s %w", out, err)
		}
		out, err = s.cluster.Kubectl("-n", s.ns, "patch", "pod", pod, "--subresource=status", "-p", fmt.Sprintf(`{"status":{"phase":%q}}`, phase))
		if err != nil {
			err = fmt.Errorf("%s: %w", out, err)
		}
		return err
	})
}

// waitsFor waits until a phase says so.
func (s *stage) waitsFor(phase fleet.Phase, text string) {
	s.t.Helper()
	s.cluster.Eventually(s.t, text, func() error {
		if i := s.now(); i.Phase != phase || !strings.Contains(i.Reason, text) {
			return fmt.Errorf("%s: %s", i.Phase, i.Reason)
		}
		return nil
	})
}

// made is how many Jobs of a name there have ever been, by the job controller's own events.
func (s *stage) made(name string) int {
	s.t.Helper()
	out, err := s.cluster.Kubectl("-n", s.ns, "get", "events", "--field-selector", "involvedObject.kind=Job,involvedObject.name="+name, "-o", `jsonpath={range .items[*]}{.involvedObject.uid}{"\n"}{end}`)
	if err != nil {
		s.t.Fatal(out, err)
	}
	all := strings.Fields(out)
	slices.Sort(all)
	return len(slices.Compact(all))
}

func TestAMigrationEndsBeforeWhatRunsIsTouched(t *testing.T) {
	s := newStage(t)
	noLeaks(t)
	s.sub.HealthTimeout = 2 * time.Second // a hook may take longer
	stop := s.start(nil)
	defer func() { stop() }()
	s.releases("1.0.0", app("1.0.0", good, "old"), map[string]string{"migrate.yaml": hookJob("migrate", beforeAll, "tool:1")})
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	first := s.get("job/migrate", ".metadata.uid")
	if first == "" {
		t.Fatal("its logs are gone")
	}
	s.releases("1.1.0", app("1.1.0", good, "new"), map[string]string{
		"migrate.yaml": hookJob("migrate", beforeAll, held),
		"second.yaml":  hookJob("second", beforeAll+`, wheelwright.dev/hook-weight: "1"`, "tool:2"),
		"smoke.yaml":   hookJob("smoke", afterAll, held),
		"never.yaml":   hookJob("never", "helm.sh/hook: pre-delete", "tool:1"),
	})
	s.waitsFor(fleet.Promoting, "waits for a hook: Job "+s.ns+"/migrate")
	if shown, _, err := s.agent.Render(t.Context(), "shop", "1.1.0"); err != nil || !strings.Contains(string(shown), "name: migrate") || strings.Contains(string(shown), "name: never") {
		t.Errorf("what is to be applied is shown without its hooks: %v\n%s", err, shown)
	}
	if p, err := s.agent.Plan(t.Context(), "shop", "1.1.0"); err != nil || !strings.Contains(fmt.Sprint(p), "migrate") {
		t.Errorf("the plan does not name the migration: %v %v", err, p)
	}
	version := `.metadata.labels.app\.kubernetes\.io/version`
	if v := s.get("deployment/backend", version); v != "1.0.0" {
		t.Errorf("backend is of %s while the migration runs", v)
	}
	if s.get("configmap/settings", version) != "1.0.0" || s.get("configmap/new", version) != "1.1.0" || s.get("configmap/old", version) != "1.0.0" {
		t.Errorf("beside the migration are %v: what it may read is there, what runs is as it was", s.objects())
	}
	if s.get("job/second", ".metadata.name") != "" {
		t.Error("the second hook did not wait for the first")
	}
	run := s.get("job/migrate", ".metadata.uid")
	if run == first {
		t.Error("the new release's migration is the old one's")
	}
	begin := time.Now()
	stop = s.restart(t, stop, func() {})
	s.waitsFor(fleet.Promoting, "waits for a hook: Job "+s.ns+"/migrate")
	s.cluster.Eventually(t, "longer than health may take", func() error {
		if i := s.now(); i.Phase != fleet.Promoting {
			t.Fatalf("%s: %s", i.Phase, i.Reason)
		}
		if time.Since(begin) < 2*s.sub.HealthTimeout {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	s.endsJob("migrate", "Succeeded")
	s.waitsFor(fleet.Settling, "waits for a hook: Job "+s.ns+"/smoke")
	s.endsJob("smoke", "Succeeded")
	i := s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0", "new")
	if i.Objects != 3 {
		t.Errorf("%d objects: hooks are none of what runs", i.Objects)
	}
	if now := s.get("job/migrate", ".metadata.uid"); now != run || s.made("migrate") != 2 {
		t.Errorf("the migration was run %d times by two releases", s.made("migrate"))
	}
	if s.get("job/never", ".metadata.name") != "" {
		t.Error("a hook of a deletion was made")
	}
	if told := strings.Join(s.events(fleet.EventAgent), "\n"); !strings.Contains(told, "hooks of 1.1.0 ended well after") {
		t.Errorf("the hub does not hear of it:\n%s", told)
	}
	// It is over: who deletes it does no harm, and it is not run again.
	if out, err := s.cluster.Kubectl("-n", s.ns, "delete", "job", "migrate", "second"); err != nil {
		t.Fatal(out, err)
	}
	s.undrifted()
	if s.made("migrate") != 2 {
		t.Error("a deleted migration is run again")
	}
}

func TestAFailedMigrationLeavesWhatRunsAsItWas(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0", "old")()
	was := s.get("deployment/backend", ".metadata.resourceVersion")
	s.releases("1.1.0", app("1.1.0", good, "new"), map[string]string{"migrate.yaml": hookJob("migrate", beforeAll, held)})
	s.endsJob("migrate", "Failed")
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "a hook failed: Job "+s.ns+"/migrate: ") || !strings.Contains(i.Reason, "kubectl -n "+s.ns+" logs job/migrate") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0", "old")
	if now := s.get("deployment/backend", ".metadata.resourceVersion"); now != was {
		t.Errorf("the Deployment was written to: %s, was %s", now, was)
	}
	if s.get("job/migrate", ".metadata.name") == "" {
		t.Error("what failed cannot be looked at")
	}
	s.undrifted()
	s.releases("1.1.1", app("1.1.1", good, "new"), map[string]string{"migrate.yaml": hookJob("migrate", beforeAll, "tool:1")})
	s.reaches(fleet.Succeeded, "1.1.1", "1.1.1")
	s.mustBeWhole("1.1.1", "new")
}

func TestAHookAfterItFailsAndAllGoesBack(t *testing.T) {
	s := newStage(t)
	defer s.start(nil)()
	notes := `helm.sh/hook: post-upgrade`
	s.releases("1.0.0", app("1.0.0", good), map[string]string{"smoke.yaml": hookJob("smoke", notes, held)})
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0") // it is no upgrade
	s.releases("1.1.0", app("1.1.0", good), map[string]string{"smoke.yaml": hookJob("smoke", notes, held)})
	s.waitsFor(fleet.Settling, "waits for a hook: Job "+s.ns+"/smoke")
	s.endsJob("smoke", "Failed")
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "a hook failed: Job "+s.ns+"/smoke") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0")
}

func TestAHookThatDoesNotEndIsGivenUp(t *testing.T) {
	s := newStage(t)
	s.sub.HookTimeout = time.Second
	defer s.installed("1.0.0")()
	s.releases("1.1.0", app("1.1.0", good), map[string]string{"migrate.yaml": hookJob("migrate", beforeAll, bad)})
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "a hook has not ended after 1s: Job "+s.ns+"/migrate: ImagePullBackOff") || !strings.Contains(i.Reason, "hookTimeout in spoke.yaml") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0")
}

func TestAFirstInstallWhoseMigrationFailsLeavesNothing(t *testing.T) {
	s := newStage(t)
	defer s.start(nil)()
	s.releases("1.0.0", app("1.0.0", good, "old"), map[string]string{"migrate.yaml": hookJob("migrate", beforeAll, held)})
	s.endsJob("migrate", "Failed")
	s.reaches(fleet.RolledBack, "1.0.0", "")
	if left := s.objects(); strings.Join(left, "") != "" || s.get("job/migrate", ".metadata.name") != "" {
		t.Errorf("left: %v", left)
	}
}

func TestAHookThatCannotBeOneIsRefused(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	s.releases("1.1.0", app("1.1.0", good), map[string]string{"migrate.yaml": hookJob("migrate", "wheelwright.dev/hook: during", "tool:1")})
	i := s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "Job "+s.ns+"/migrate") || !strings.Contains(i.Reason, `"during" is neither before nor after`) {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0")
}

// A Job that was a part of the release becomes a hook of the next one: under another name.
func TestAHookDoesNotTakeThePlaceOfWhatRuns(t *testing.T) {
	s := newStage(t)
	defer s.start(nil)()
	s.releases("1.0.0", app("1.0.0", good), map[string]string{"migrate.yaml": hookJob("migrate", "", "tool:1")})
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.releases("1.1.0", app("1.1.0", good), map[string]string{"migrate.yaml": hookJob("migrate", beforeAll, "tool:2")})
	i := s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "Job "+s.ns+"/migrate: it is a hook, and a part of the release that runs has its name; give the hook another one") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0")
	s.releases("1.1.1", app("1.1.1", good), map[string]string{"migrate.yaml": hookJob("migrate-before", beforeAll, "tool:2")})
	s.reaches(fleet.Succeeded, "1.1.1", "1.1.1")
	s.mustBeWhole("1.1.1")
}

// The migration runs before there are candidates; where it or they fail, what it brought goes again.
func TestAMigrationBeforeACanary(t *testing.T) {
	for _, tc := range []struct {
		name, migration, metrics string
		end                      fleet.Phase
	}{{"all is well", "Succeeded", "good", fleet.Succeeded}, {"the migration fails", "Failed", "good", fleet.RolledBack}, {"the candidates fail", "Succeeded", "bad", fleet.RolledBack}} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			s.walking(tc.metrics)
			s.vendor.release(t, "1.0.0", led("1.0.0", "old"))
			defer s.start(nil)()
			s.offer()
			s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
			s.releases("1.1.0", led("1.1.0", "new"), map[string]string{"migrate.yaml": hookJob("migrate", beforeAll, held)})
			s.waitsFor(fleet.Progressing, "waits for a hook: Job "+s.ns+"/migrate")
			if out, err := s.cluster.Kubectl("-n", s.ns, "get", "deployments", "-l", "wheelwright.dev/candidate-of", "-o", "name"); err != nil || out != "" {
				t.Errorf("candidates before the migration has ended: %s %v", out, err)
			}
			run := s.get("job/migrate", ".metadata.uid")
			s.endsJob("migrate", tc.migration)
			if tc.end == fleet.Succeeded {
				s.reaches(tc.end, "1.1.0", "1.1.0")
				s.alone("1.1.0", "new")
			} else {
				s.reaches(tc.end, "1.1.0", "1.0.0")
				s.alone("1.0.0", "old")
			}
			if now := s.get("job/migrate", ".metadata.uid"); now != run || s.made("migrate") != 1 {
				t.Errorf("it was run %d times", s.made("migrate"))
			}
			s.undrifted()
		})
	}
}

// A spoke that is killed at any write of its journal finishes the upgrade, and runs each hook once.
func TestKilledAroundHooks(t *testing.T) {
	stride := 5
	if os.Getenv("WHEELWRIGHT_FIGURES") != "" {
		stride = 1
	}
	jobs := func() map[string]string {
		return map[string]string{"migrate.yaml": hookJob("migrate", beforeAll, "tool:1"), "smoke.yaml": hookJob("smoke", afterAll, "tool:1")}
	}
	for n := 3; ; n += stride {
		s := newStage(t)
		stop := s.start(nil)
		s.releases("1.0.0", app("1.0.0", good, "old"), jobs())
		s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
		files := app("1.1.0", good, "new")
		delete(files, "kustomization.yaml")
		maps.Copy(files, jobs())
		s.vendor.release(t, "1.1.0", kustomized(files))
		stop()
		s.keepOffers()
		killed := s.doom(doomed{N: n, After: n%2 == 0})
		stop = s.start(nil)
		s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
		s.mustBeWhole("1.1.0", "new")
		if a, b := s.made("migrate"), s.made("smoke"); a != 2 || b != 2 {
			t.Errorf("killed at write %d: two releases ran %d migrations and %d smoke tests", n, a, b)
		}
		stop()
		if !killed {
			if n < cmp.Or(8, stride) {
				t.Errorf("only %d writes: it does not reach every phase", n)
			}
			return
		}
	}
}
