package agent_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// withDatabase adds a StatefulSet to a release.
func withDatabase(files map[string]string, image string) map[string]string {
	files["database.yaml"] = `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: database}
spec:
  replicas: 2
  serviceName: database
  selector: {matchLabels: {app: database}}
  template:
    metadata: {labels: {app: database}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: "` + image + `"}]}
`
	files["kustomization.yaml"] += "- database.yaml\n"
	return files
}

// Law 8: the way back needs nobody, not even where a StatefulSet waits for the pod that failed. And a
// first release that failed is followed by one that works.
func TestAStatefulSetIsRolledBackWhole(t *testing.T) {
	s := newStage(t)
	s.sub.HealthTimeout = 20 * time.Second
	s.vendor.release(t, "0.9.0", withDatabase(app("0.9.0", good), bad))
	defer s.start(nil)()
	s.offer()
	s.cluster.Eventually(t, "the first release's broken pod", func() error {
		if i := s.now(); i.Phase != fleet.Settling || !strings.Contains(i.HealthMessage, "ImagePullBackOff") {
			return errors.New(i.HealthMessage)
		}
		return nil
	})
	s.reaches(fleet.RollbackFailed, "0.9.0", "")
	s.vendor.release(t, "1.0.0", withDatabase(app("1.0.0", good), good))
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.vendor.release(t, "1.1.0", withDatabase(app("1.1.0", good), bad))
	s.offer()
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0")
	if n := strings.Count(s.log.String(), "replaced pods that their StatefulSet waited for"); n < 2 {
		t.Errorf("what was replaced is said %d times", n)
	}
}

// What somebody else made is taken over, and both the log and the hub hear of it.
func TestTakingOverIsSaid(t *testing.T) {
	s := newStage(t)
	if _, err := s.cluster.Kubectl("-n", s.ns, "create", "configmap", "settings"); err != nil {
		t.Fatal(err)
	}
	defer s.installed("1.0.0")()
	want := "1.0.0 takes over 1 objects that were on the cluster before: ConfigMap " + s.ns + "/settings"
	if all := s.events(fleet.EventAgent); !strings.Contains(strings.Join(all, "\n"), want) {
		t.Errorf("want %q in %q", want, all)
	}
	if !strings.Contains(s.log.String(), "settings") {
		t.Error("the log says nothing")
	}
}

// Two subscriptions with the same object: the second is refused with both names, and what the first
// installed stays as it is.
func TestAnObjectOfAnotherSubscriptionIsRefused(t *testing.T) {
	s := newStage(t)
	s.vendor.release(t, "1.0.0", app("1.0.0", good))
	if _, err := s.cluster.Kubectl("-n", s.ns, "create", "configmap", "settings"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.cluster.Kubectl("-n", s.ns, "label", "configmap", "settings", "wheelwright.dev/distribution=billing"); err != nil {
		t.Fatal(err)
	}
	defer s.start(nil)()
	s.offer()
	i := s.reaches(fleet.Refused, "1.0.0", "")
	if !strings.Contains(i.Reason, "distributions shop and billing both declare it") {
		t.Errorf("reason: %s", i.Reason)
	}
}

// Each new reason of a wait is in the log: it is all that an operator may see.
func TestEveryReasonIsLogged(t *testing.T) {
	s := newStage(t)
	s.sub.Overlay.Path = "overlay"
	s.vendor.release(t, "1.0.0", app("1.0.0", good))
	s.overlay.fail(errors.New("no trouble yet"))
	defer s.start(nil)()
	s.offer()
	for _, reason := range []string{"first trouble", "second trouble"} {
		s.overlay.fail(errors.New(reason))
		s.cluster.Eventually(t, reason, func() error {
			if !strings.Contains(s.log.String(), `reason="`+reason+`"`) {
				return errors.New("not in the log")
			}
			return nil
		})
	}
	s.cluster.Eventually(t, "some more looks", func() error {
		if s.overlay.looks() < 10 {
			return errors.New("not yet")
		}
		return nil
	})
	if n := strings.Count(s.log.String(), "second trouble"); n > 2 {
		t.Errorf("the log says the same thing %d times", n)
	}
}

// Law 7: a spoke that is killed in the middle of an upgrade, and whose folder is lost with it, does not
// take what is half there for what runs: the upgrade is made whole.
func TestALostJournalInTheMiddleOfAnUpgrade(t *testing.T) {
	for n := int64(2); n <= 5; n++ { // the inventory, settings, deployment, new; then the inventory again
		s := newStage(t)
		s.installed("1.0.0", "old")()
		s.vendor.release(t, "1.1.0", app("1.1.0", good, "new"))
		k := &killer{n: n, after: true}
		s.killer.Store(k)
		stop := s.start(func(_ journal.Record, write func() error) error {
			if k.dead.Load() {
				return errKilled
			}
			return write()
		})
		s.offer()
		s.cluster.Eventually(t, "the spoke is killed", func() error {
			if !k.dead.Load() {
				return errors.New("not yet")
			}
			return nil
		})
		stop()
		s.killer.Store(nil)
		remove(t, filepath.Join(s.dir, "journal.db"))
		stop = s.start(nil)
		s.offer()
		s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
		s.cluster.Eventually(t, "all of the new release and no more", func() error { return s.whole("1.1.0", "new") })
		stop()
	}
}
