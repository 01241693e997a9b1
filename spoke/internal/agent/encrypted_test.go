package agent_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/sops"
)

// What testdata/sops/db.sops.yaml and db.sops.env hold; the tool itself encrypted them.
var hidden = []string{"pa55-of-the-database", "t0ken-of-the-gateway"}

func encrypted(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/sops", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// identity puts an identity where the subscription looks for it.
func (s *stage) identity(path, from string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(encrypted(s.t, from)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// onDisk are the values that are in a file of the data folder, as they are.
func (s *stage) onDisk() {
	s.t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, v := range hidden {
			for offset := range 3 {
				if b := core(v, offset); bytes.Contains(data, []byte(v)) || bytes.Contains(data, []byte(b)) {
					s.t.Errorf("%s holds %s", path, v)
				}
			}
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) secret(version string) error {
	out, err := s.cluster.Kubectl("-n", s.ns, "get", "secrets", "-o", `jsonpath={range .items[*]}{.metadata.name} {.data}{"\n"}{end}`)
	if err != nil {
		return err
	}
	for _, v := range hidden {
		if !strings.Contains(out, core(v, 0)) {
			return fmt.Errorf("%s: no Secret has %s:\n%s", version, v, out)
		}
	}
	return nil
}

const encryptedOverlay = "resources: ['" + url + "//dist/app?ref=%s', db.sops.yaml]\nsecretGenerator: [{name: gateway, envs: [db.sops.env]}]\n"

// Files that SOPS encrypted are decrypted for the cluster, and for nobody else: no file of the spoke's holds what was in
// them, over an upgrade, a restart and the return to the release before. To return needs the identity; without it
// the spoke says so, touches nothing, and goes on when it is there.
func TestEncryptedOverlay(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	key := filepath.Join(t.TempDir(), "key.txt")
	s.sub.Decryption = sops.Keys{Age: []string{key}}
	s.sub.Overlay.Path = "provider"
	overlay := func(version string) {
		s.overlay.write(map[string]string{"kustomization.yaml": fmt.Sprintf(encryptedOverlay, version), "db.sops.yaml": encrypted(t, "db.sops.yaml"), "db.sops.env": encrypted(t, "db.sops.env")})
	}
	overlay("1.0.0")
	for _, v := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		s.vendor.release(t, v, app(v, good))
	}
	stop := s.start(nil)
	s.offer()
	waits := func(parts ...string) {
		t.Helper()
		s.cluster.Eventually(t, "the provider to be told", func() error {
			i := s.now()
			for _, p := range append(parts, "db.sops.") {
				if i.Phase != fleet.AwaitingConfig || !strings.Contains(i.Reason, p) {
					return fmt.Errorf("it is %s: %s; want %q", i.Phase, i.Reason, p)
				}
			}
			return nil
		})
	}
	waits("age-keygen -o " + key)
	s.identity(key, "other.txt")
	waits("it is encrypted for age1", "sops updatekeys")
	s.identity(key, "key.txt")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	waits("chmod 600")
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.onDisk()
	overlay("1.1.0")
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	if err := s.secret("1.1.0"); err != nil {
		t.Error(err)
	}
	if _, err := s.cluster.Kubectl("-n", s.ns, "delete", "secrets", "-l", "wheelwright.dev/distribution=shop"); err != nil {
		t.Fatal(err)
	}
	s.cluster.Eventually(t, "the Secrets are put back", func() error { return s.secret("1.1.0") })
	stop()
	s.onDisk()

	// Without the identity it cannot go back, and says so; the cluster stays as it is.
	remove(t, key)
	stop = s.start(nil)
	s.offer()
	s.cluster.Eventually(t, "the spoke to be up", func() error {
		if _, _, err := s.agent.RollBack(t.Context(), "shop", "", "", false); err == nil || !strings.Contains(err.Error(), key) {
			return fmt.Errorf("without its identity: %v", err)
		}
		return nil
	})
	s.mustBeWhole("1.1.0")
	s.identity(key, "key.txt")
	s.cluster.Eventually(t, "the rollback is taken", func() error {
		_, _, err := s.agent.RollBack(t.Context(), "shop", "", "", false)
		return err
	})
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	if err := s.secret("1.0.0"); err != nil {
		t.Error(err)
	}
	s.mustBeWhole("1.0.0")

	// A file that was changed stops the next delivery, not what runs.
	s.overlay.write(map[string]string{"kustomization.yaml": fmt.Sprintf(encryptedOverlay, "1.2.0"), "db.sops.env": encrypted(t, "db.sops.env"),
		"db.sops.yaml": strings.Replace(encrypted(t, "db.sops.yaml"), "kind: Secret", "kind: Secret\ntype: other", 1)})
	waits("db.sops.yaml", "changed after it was encrypted", "sops edit")
	s.mustBeWhole("1.0.0")
	stop()
	s.onDisk()
	for _, v := range hidden {
		if strings.Contains(s.log.String(), v) {
			t.Errorf("%s is in the log", v)
		}
	}
}

// core is what a text becomes in base64 behind offset other bytes, but for the characters that those share.
func core(text string, offset int) string {
	raw := append(make([]byte, offset), text...)
	return base64.RawStdEncoding.EncodeToString(raw)[[]int{0, 2, 3}[offset] : len(raw)*8/6]
}
