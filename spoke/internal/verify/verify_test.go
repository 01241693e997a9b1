package verify_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

func key(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s, `release@vendor.example namespaces="git" ` + string(ssh.MarshalAuthorizedKey(s.PublicKey()))
}

func id(t *testing.T, kind string, raw []byte) string {
	t.Helper()
	sum, err := provenance.ObjectID(kind, raw)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum[:])
}

// release is a bundle of one file, tagged and signed; a nil key leaves the tag lightweight.
func release(t *testing.T, version string, signer ssh.Signer) []byte {
	t.Helper()
	files := []provenance.File{{Path: "kustomization.yaml", Data: []byte("resources: []\n")}}
	blob, err := hex.DecodeString(id(t, "blob", files[0].Data))
	if err != nil {
		t.Fatal(err)
	}
	root := append([]byte("100644 kustomization.yaml\x00"), blob...)
	commit := fmt.Appendf(nil, "tree %s\nauthor V <v@example.com> 1700000000 +0000\ncommitter V <v@example.com> 1700000000 +0000\n\n%s\n", id(t, "tree", root), version)
	p := provenance.Proof{Commit: commit, Trees: [][]byte{root}, Path: ".", TagName: version}
	if signer != nil {
		text := fmt.Appendf(nil, "object %s\ntype commit\ntag %s\ntagger V <v@example.com> 1700000000 +0000\n\n%s\n", id(t, "commit", commit), version, version)
		sig, err := sshsig.Sign(bytes.NewReader(text), signer, sshsig.HashSHA512, "git")
		if err != nil {
			t.Fatal(err)
		}
		p.Tag = append(text, sshsig.Armor(sig)...)
	}
	tar, err := bundle.Pack(files, p)
	if err != nil {
		t.Fatal(err)
	}
	return tar
}

func TestBundle(t *testing.T) {
	vendor, line := key(t)
	thief, _ := key(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keys := verify.Signers{Files: []string{write("keys", line)}}
	for _, tc := range []struct {
		name     string
		tar      []byte
		version  string
		signers  verify.Signers
		err      string // empty: none
		unproven bool
	}{
		{"signed by the vendor", release(t, "1.0.0", vendor), "1.0.0", keys, "", false},
		{"nobody's signature is asked for", release(t, "1.0.0", nil), "1.0.0", verify.Signers{}, "", false},
		{"signed by somebody else", release(t, "1.0.0", thief), "1.0.0", keys, "the key is not among the signers listed here", true},
		{"not signed", release(t, "1.0.0", nil), "1.0.0", keys, "make it with git tag -s 1.0.0", true},
		{"an old release under a new version", release(t, "1.0.0", vendor), "2.0.0", keys, `its tag is "1.0.0"`, true},
		{"the same, nobody's signature asked for", release(t, "1.0.0", vendor), "2.0.0", verify.Signers{}, "it is the content of tag 1.0.0, offered as 2.0.0", true},
		{"another byte", bytes.Replace(release(t, "1.0.0", vendor), []byte("resources: []"), []byte("resources: {}"), 1), "1.0.0", keys, "", true},
		{"no tar", []byte("text"), "1.0.0", keys, "", true},
		{"two keys of one", release(t, "1.0.0", vendor), "1.0.0", verify.Signers{Files: keys.Files, Threshold: 2}, "a threshold of 2 with 1 keys", false},
		{"keys that are none", release(t, "1.0.0", vendor), "1.0.0", verify.Signers{Files: []string{write("bad", "hello\n")}}, filepath.Join(dir, "bad"), false},
		{"no file", release(t, "1.0.0", vendor), "1.0.0", verify.Signers{Files: []string{filepath.Join(dir, "gone")}}, "no such file", false},
		{"a folder", release(t, "1.0.0", vendor), "1.0.0", verify.Signers{Files: []string{dir}}, "is no file", false},
	} {
		b, signed, err := verify.Bundle(tc.tar, "shop", tc.version, tc.signers, time.Now())
		if errors.Is(err, verify.ErrUnproven) != tc.unproven || err != nil && !strings.Contains(err.Error(), tc.err) || err == nil && (tc.err != "" || tc.unproven) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if err != nil {
			continue
		}
		if b == nil || signed.TagName != tc.version || !tc.signers.None() && (len(signed.By) != 1 || signed.By[0].Principal != "release@vendor.example") {
			t.Errorf("%s: %+v", tc.name, signed)
		}
	}
}
