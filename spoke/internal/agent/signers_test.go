package agent_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// tag is the tag object of a release, signed as git does it.
func (v *vendor) tag(t *testing.T, version string, commit []byte) []byte {
	t.Helper()
	if v.key == nil {
		return nil
	}
	text := fmt.Appendf(nil, "object %s\ntype commit\ntag %s\ntagger V <v@example.com> 1700000000 +0000\n\n%s\n", objectID(t, "commit", commit), version, version)
	sig, err := sshsig.Sign(bytes.NewReader(text), v.key, sshsig.HashSHA512, "git")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, sshsig.Armor(sig)...)
}

// sshKey is a key, and its line of a file of allowed signers.
func sshKey(t *testing.T, principal string) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key, principal + ` namespaces="git,channel@wheelwright.dev" ` + string(ssh.MarshalAuthorizedKey(key.PublicKey()))
}

func TestOnlyWhatTheVendorSignedIsTaken(t *testing.T) {
	s := newStage(t)
	key, line := sshKey(t, "release@vendor.example")
	thief, thiefLine := sshKey(t, "release@vendor.example")
	file := filepath.Join(s.dir, "vendor.allowed_signers")
	keys := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys(line)
	s.sub.Signers = verify.Signers{Files: []string{file}}
	s.vendor.key = key
	defer s.installed("1.0.0", "old")()
	if told := strings.Join(s.events(fleet.EventAgent), "\n"); !strings.Contains(told, "1.0.0 is signed by release@vendor.example (ssh SHA256:") {
		t.Errorf("who signed it is not told:\n%s", told)
	}

	for version, signer := range map[string]ssh.Signer{"1.1.0": nil, "1.1.1": thief} {
		s.vendor.key = signer
		s.vendor.release(t, version, app(version, good, "forged"))
		s.offer()
		i := s.reaches(fleet.Refused, version, "1.0.0")
		if !strings.Contains(i.Reason, "not signed as this place requires") {
			t.Errorf("%s: %s", version, i.Reason)
		}
		s.mustBeWhole("1.0.0", "old")
	}

	// What was refused for its signer is tried again when its provider lists that signer: keys are replaced.
	s.vendor.key = thief
	s.vendor.release(t, "1.1.2", app("1.1.2", good, "theirs"))
	s.offer()
	s.reaches(fleet.Refused, "1.1.2", "1.0.0")
	keys(line + thiefLine)
	s.reaches(fleet.Succeeded, "1.1.2", "1.1.2")
	keys(line)

	// A file of keys that cannot be read says nothing about a release: it waits until its provider mended it.
	s.vendor.key = key
	keys("no key at all\n")
	s.vendor.release(t, "1.2.0", app("1.2.0", good, "new"))
	s.offer()
	s.waitsFor(fleet.Verifying, file)
	keys(line)
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")
	s.mustBeWhole("1.2.0", "new")
}
