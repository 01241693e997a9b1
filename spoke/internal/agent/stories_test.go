package agent_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

func TestInstallAndUpgrade(t *testing.T) {
	s := newStage(t)
	noLeaks(t)
	defer s.installed("1.0.0", "old")()
	s.mustBeWhole("1.0.0", "old")
	s.vendor.release(t, "1.1.0", app("1.1.0", good, "new"))
	s.offer()
	i := s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0", "new") // and "old" is pruned
	if i.Health != fleet.Healthy || i.Objects != 3 || i.Ready != 3 || i.Rendered == "" || i.Bundle == "" {
		t.Errorf("installation: %+v", i)
	}
	var phases []string
	for _, m := range s.events(fleet.EventPhase) {
		if m, ok := strings.CutSuffix(m, " 1.1.0"); ok {
			phases = append(phases, m)
		}
	}
	if got := strings.Join(phases, " "); got != "Fetching Verifying Rendering Checking Promoting Settling" {
		t.Errorf("phases: %s", got)
	}
	rec, _, err := s.journal.Record("shop")
	if err != nil || len(rec.Previous) != 1 || rec.Previous[0].Version != "1.0.0" || len(rec.Previous[0].Manifest) == 0 {
		t.Errorf("nothing to return to: %v %+v", err, rec.Previous)
	}
}

func TestAnUpgradeThatChangesNothingSendsNothing(t *testing.T) {
	s := newStage(t)
	s.every.Health = time.Hour
	defer s.installed("1.0.0")()
	// health is looked at once after an install; wait for it to be counted before
	s.cluster.Eventually(t, "the first look at health", func() error {
		if s.now().Health != fleet.Healthy {
			return errors.New("not healthy")
		}
		return nil
	})
	last, since := int64(-1), time.Now()
	s.cluster.Eventually(t, "the watches to be there", func() error { // they are begun beside the delivery
		if n := s.requests.Load(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) < time.Second {
			return errors.New("requests are made still")
		}
		return nil
	})
	before := s.requests.Load()
	files := app("1.0.0", good)
	files["README.md"] = "other words"
	s.vendor.release(t, "1.0.1", files)
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.1", "1.0.1")
	n := s.requests.Load() - before
	if n != 0 {
		t.Errorf("%d requests for an upgrade that changes nothing", n)
	}
}

func TestAReleaseWhosePodsNeverBecomeReadyIsRolledBackWhole(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0", "old")()
	s.vendor.release(t, "1.1.0", app("1.1.0", bad, "new"))
	s.offer()
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0", "old")
	if !strings.Contains(i.Reason, "backend") || !strings.Contains(i.Reason, "ImagePullBackOff") {
		t.Errorf("the reason does not name the object that failed: %s", i.Reason)
	}
	// Law 8: it sticks, and a newer release is taken as usual.
	s.offer()
	s.vendor.release(t, "1.1.1", app("1.1.1", good))
	s.offer()
	s.reaches(fleet.Succeeded, "1.1.1", "1.1.1")
	s.mustBeWhole("1.1.1")
	tries := 0
	for _, m := range s.events(fleet.EventPhase) {
		if m == "Promoting 1.1.0" {
			tries++
		}
	}
	if tries != 1 {
		t.Errorf("1.1.0 was tried %d times", tries)
	}
}

func TestAFirstInstallThatFailsStaysAndSaysSo(t *testing.T) {
	s := newStage(t)
	s.sub.HealthTimeout = time.Second
	s.vendor.release(t, "1.0.0", app("1.0.0", bad))
	defer s.start(nil)()
	s.offer()
	i := s.reaches(fleet.RollbackFailed, "1.0.0", "")
	if !strings.Contains(i.Reason, "backend") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0")
	s.vendor.release(t, "1.0.1", app("1.0.1", good))
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.1", "1.0.1")
	s.mustBeWhole("1.0.1")
}

func TestWhatTheDryRunRefusesIsNotApplied(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	files := app("1.1.0", good)
	files["settings.yaml"] = strings.Replace(files["settings.yaml"], "name: settings", "name: Not_A_Name", 1)
	s.vendor.release(t, "1.1.0", files)
	s.offer()
	i := s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "Not_A_Name") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0")
}

// The provider mends the cluster, here by making room in a quota, and need not tell anybody.
func TestWhatTheClusterRefusesIsTriedAgain(t *testing.T) {
	s := newStage(t)
	s.every.Refused = 2 * time.Second
	defer s.installed("1.0.0")()
	quota := func(verb string, more ...string) {
		if out, err := s.cluster.Kubectl(append([]string{"-n", s.ns, verb, "quota", "full"}, more...)...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	quota("create", "--hard=configmaps=1")
	s.vendor.release(t, "1.1.0", app("1.1.0", good, "more"))
	s.offer()
	s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0")
	quota("delete")
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0", "more")
}

func TestABundleThatIsNotItsTagIsRefused(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.vendor.offer[1].Version = "1.2.0" // an old release under a new name
	s.offer()
	i := s.reaches(fleet.Refused, "1.2.0", "1.0.0")
	if !strings.Contains(i.Reason, "1.1.0") {
		t.Errorf("reason: %s", i.Reason)
	}
}

func TestAnOverlaysRefIsAPinAndARevertRollsBack(t *testing.T) {
	s := newStage(t)
	over := func(ref, patch string) map[string]string {
		return map[string]string{"kustomization.yaml": "resources:\n- " + url + "//dist/app?ref=" + ref + "\npatches:\n- target: {kind: Deployment, name: " + patch + "}\n  patch: |\n    - {op: replace, path: /spec/replicas, value: 2}\n"}
	}
	s.sub.Variant = "" // the overlay names it
	s.sub.Overlay = config.Overlay{Path: "/provider"}
	for _, v := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		s.vendor.release(t, v, app(v, good))
	}
	s.overlay.write(over("1.0.0", "backend"))
	defer s.start(nil)()
	s.offer()
	i := s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	if i.Policy.Pin == nil || i.Policy.Pin.Source != "overlay" || i.Variant != "app" {
		t.Errorf("pin %+v, variant %q", i.Policy.Pin, i.Variant)
	}
	s.overlay.write(over("1.1.0", "backend"))
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.overlay.write(over("1.0.0", "backend"))
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.mustBeWhole("1.0.0")

	// An overlay in error waits for the provider, and is forgotten when it is put right.
	s.overlay.write(over("1.0.0", "backend") /* same */)
	broken := over("1.0.0", "backend")
	broken["kustomization.yaml"] += "- path: absent.yaml\n"
	s.overlay.write(broken)
	i = s.reaches(fleet.AwaitingConfig, "1.0.0", "1.0.0")
	if i.Reason == "" {
		t.Error("no reason")
	}
	s.overlay.write(over("1.0.0", "backend"))
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.overlay.fail(errors.New("overlay /provider: no such folder; put it back, or change overlay in spoke.yaml"))
	s.reaches(fleet.AwaitingConfig, "1.0.0", "1.0.0")
	s.overlay.fail(nil)
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.mustBeWhole("1.0.0")
}

func TestDriftIsPutBackWhileTheHubIsAway(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0")
	stop()
	s.vendor.away.Store(true)
	defer s.start(nil)() // never hears of the hub
	if _, err := s.cluster.Kubectl("-n", s.ns, "delete", "configmap", "settings"); err != nil {
		t.Fatal(err)
	}
	s.cluster.Eventually(t, "the ConfigMap is back", func() error { return s.whole("1.0.0") })
	s.cluster.Eventually(t, "an event of it", func() error {
		for _, m := range s.events(fleet.EventDrift) {
			if strings.Contains(m, "settings") && s.now().DriftCorrected > 0 {
				return nil
			}
		}
		return fmt.Errorf("events %v, corrected %d", s.events(fleet.EventDrift), s.now().DriftCorrected)
	})
}

func TestALostJournalTakesOverWhatRuns(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0", "old")
	before := s.now()
	stop()
	remove(t, filepath.Join(s.dir, "journal.db"))
	remove(t, filepath.Join(s.dir, "bundles", before.Bundle.Hex()+".tar"))
	writes := s.cluster.MarkRequests(t)
	defer s.start(nil)()
	i := s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	if i.Bundle != before.Bundle || i.Rendered != before.Rendered {
		t.Errorf("took over %+v, was %+v", i, before)
	}
	s.offer()
	s.cluster.Eventually(t, "the set to return to", func() error {
		if rec, _, err := s.journal.Record("shop"); err != nil || len(rec.Manifest) == 0 {
			return fmt.Errorf("none: %w", err)
		}
		return nil
	})
	for _, r := range s.cluster.Requests(t, writes, "") {
		if r.Writes() && strings.Contains(r.URI, s.ns) && strings.Contains(r.UserAgent, "wheelwright") && !strings.Contains(r.UserAgent, "harness") {
			t.Errorf("taking over wrote to the cluster: %s %s", r.Verb, r.URI)
		}
	}
	if all := s.events(fleet.EventAgent); len(all) == 0 || !strings.Contains(all[0], "took over 1.0.0") {
		t.Errorf("events: %v", all)
	}
	// It can be brought back to, like any other.
	s.vendor.release(t, "1.1.0", app("1.1.0", bad, "new"))
	s.offer()
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0", "old")
}

func TestASubscriptionThatIsTakenOutDeletesNothing(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0")
	stop()
	was := s.sub
	s.sub.Distribution = "another"
	stop = s.start(nil)
	s.cluster.Eventually(t, "it is said", func() error {
		for _, m := range s.events(fleet.EventAgent) {
			if strings.Contains(m, "nothing was deleted") {
				return nil
			}
		}
		return errors.New("not said")
	})
	stop()
	s.mustBeWhole("1.0.0")
	s.sub = was
	defer s.start(nil)()
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
}
