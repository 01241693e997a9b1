package agent_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

func TestAFirstInstallThatGetsWellLaterSucceeds(t *testing.T) {
	s := newStage(t)
	s.sub.HealthTimeout = time.Second
	s.vendor.release(t, "1.0.0", app("1.0.0", "registry.example.com/crash-loop:1"))
	defer s.start(nil)()
	s.offer()
	s.reaches(fleet.RollbackFailed, "1.0.0", "")
	s.cluster.SetPodsReady(t, s.ns, "app=backend", true)
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.mustBeWhole("1.0.0")
}

func TestAnOverlayThatANewReleaseBreaksIsRefused(t *testing.T) {
	s := newStage(t)
	s.sub.Overlay = config.Overlay{Path: "/provider"}
	s.overlay.write(map[string]string{"kustomization.yaml": "resources:\n- " + url + "//dist/app\npatches:\n- patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: old}\n    data: {colour: secret-blue}\n"})
	defer s.installed("1.0.0", "old")()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	i := s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "old") || strings.Contains(i.Reason, "secret-blue") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0", "old")
	// The provider puts the overlay right, and it goes on without anybody asking.
	s.overlay.write(map[string]string{"kustomization.yaml": "resources:\n- " + url + "//dist/app\n"})
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0")
}

func TestAnOverlayChangeThatFailsGoesBackToTheOverlayBefore(t *testing.T) {
	s := newStage(t)
	s.sub.Overlay = config.Overlay{Path: "/provider"}
	plain := map[string]string{"kustomization.yaml": "resources:\n- " + url + "//dist/app\n"}
	s.overlay.write(plain)
	defer s.installed("1.0.0")()
	s.overlay.write(map[string]string{"kustomization.yaml": "resources:\n- " + url + "//dist/app\nimages:\n- name: registry.example.com/app\n  newName: registry.example.com/missing\n"})
	i := s.reaches(fleet.RolledBack, "1.0.0", "1.0.0")
	if i.Reason == "" {
		t.Error("no reason")
	}
	if err := s.image("registry.example.com/app:1"); err != nil {
		t.Error(err)
	}
	s.overlay.write(plain)
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
}

func (s *stage) image(want string) error {
	got, err := s.cluster.Kubectl("-n", s.ns, "get", "deployment", "backend", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	if err == nil && got != want {
		err = fmt.Errorf("image %s, want %s", got, want)
	}
	return err
}

func TestSpokeYAMLIsReadAgain(t *testing.T) {
	s := newStage(t)
	path := filepath.Join(t.TempDir(), "spoke.yaml")
	write := func(versions string) config.Config {
		t.Helper()
		text := "version: 1\nsubscriptions:\n- distribution: shop\n  variant: app\n  namespace: " + s.ns + "\n" + versions
		if err := atOnce(path, text); err != nil {
			t.Fatal(err)
		}
		c, _ := config.Load(path)
		return c
	}
	settings := write("  versions: {range: \"1.x\"}\n")
	s.settings = &settings
	s.every.Config = 50 * time.Millisecond
	defer s.installed("1.1.0")()
	s.vendor.release(t, "1.0.0", app("1.0.0", good))
	s.vendor.release(t, "2.0.0", app("2.0.0", good))
	s.offer()
	write("  versions: {pin: \"1.0.0\", pinReason: audit}\n")
	i := s.reaches(fleet.Succeeded, "1.0.0", "1.0.0") // a pin may go down
	if p := i.Policy.Pin; p == nil || p.Reason != "audit" || p.Source != "spoke.yaml" {
		t.Errorf("pin: %+v", p)
	}
	write("  versoins: {}\n")
	i = s.reaches(fleet.AwaitingConfig, "1.0.0", "1.0.0")
	if !strings.Contains(i.Reason, "versoins") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.vendor.release(t, "2.1.0", app("2.1.0", good))
	s.offer() // nothing is begun while the file is in error
	write("  versions: {range: \">=2.0.0 <2.1.0\"}\n")
	s.reaches(fleet.Succeeded, "2.0.0", "2.0.0")
	s.mustBeWhole("2.0.0")
}

func TestWhatWouldBeAppliedCanBeSeen(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	s.vendor.away.Store(true)
	for _, version := range []string{"", "1.0.0"} {
		out, _, err := s.agent.Render(t.Context(), "shop", version)
		if err != nil || !strings.Contains(string(out), "kind: Deployment") {
			t.Errorf("render %q: %v\n%s", version, err, out)
		}
	}
	for _, c := range [][2]string{{"shop", "9.9.9"}, {"other", ""}} {
		if _, _, err := s.agent.Render(t.Context(), c[0], c[1]); err == nil {
			t.Errorf("render %v: want an error", c)
		}
	}
}

func TestTheHubComesBack(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	s.vendor.away.Store(true)
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	s.cluster.Eventually(t, "it waits for the bundle and says so", func() error {
		if i := s.now(); i.Phase != fleet.Fetching || !strings.Contains(i.Reason, "away") {
			return fmt.Errorf("%s (%s)", i.Phase, i.Reason)
		}
		return nil
	})
	s.vendor.away.Store(false)
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
}
