package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// What was left after a fight is the next release's again, and is then said to be left no longer.
func TestAnotherReleaseEndsAFight(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	file := filepath.Join(t.TempDir(), "hostile.yaml")
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {release: hostile}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	value := func() string { return s.kubectl(t, "get", "configmap", "settings", "-o", "jsonpath={.data.release}") }
	for s.now().Drifted == 0 {
		s.kubectl(t, "apply", "--server-side", "--force-conflicts", "--field-manager=hostile", "-f", file)
		s.cluster.Eventually(t, "an answer to the change", func() error {
			if s.now().Drifted == 0 && value() != "1.0.0" {
				return fmt.Errorf("the value is %s", value())
			}
			return nil
		})
	}
	s.upgraded(t, "1.1.0")
	if got := value(); got != "1.1.0" {
		t.Errorf("the value is %s", got)
	}
	if i := s.now(); i.Drifted != 0 || i.DriftMessage != "" {
		t.Errorf("it still says %d: %s", i.Drifted, i.DriftMessage)
	}
}
