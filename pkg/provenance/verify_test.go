package provenance

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
)

// What git signs with each kind of key passes, and git itself agrees.
func TestLaw1WhatGitSigns(t *testing.T) {
	dir := repository(t)
	for i, args := range [][]string{{"-t", "ed25519"}, {"-t", "ecdsa", "-b", "384"}, {"-t", "rsa", "-b", "3072"}} {
		v, tag := sshVendor(t, "", args...), fmt.Sprintf("2.%d.0", i)
		allowed := filepath.Join(t.TempDir(), "allowed")
		if err := os.WriteFile(allowed, []byte(v.signers), 0o600); err != nil {
			t.Fatal(err)
		}
		git(t, dir, "-c", "gpg.format=ssh", "-c", "user.signingkey="+v.keyFile, "tag", "-s", "-m", "two", tag, "1.0.0^{commit}")
		git(t, dir, "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-tag", tag)
		wantSigned(t, dir, tag, v.set(t), signer.SSH, "release@example.com")
	}
	for i, kind := range []string{"ed25519", "rsa2048"} {
		if home, ok := gpgHome(t); ok {
			t.Setenv("GNUPGHOME", home)
			user, tag := "Release "+kind+" <release@example.com>", fmt.Sprintf("3.%d.0", i)
			gpg(t, "--quick-generate-key", user, kind, "sign", "1y")
			git(t, dir, "-c", "user.signingkey="+user, "tag", "-s", "-m", "three", tag, "1.0.0^{commit}")
			git(t, dir, "verify-tag", tag)
			wantSigned(t, dir, tag, keys(t, string(gpg(t, "--armor", "--export", user))), signer.OpenPGP, user)
			// gpg writes the key's own signature anew when its expiry is moved: the key is no younger for it.
			set := keys(t, string(gpg(t, "--armor", "--export", user)))
			gpg(t, "--faked-system-time", time.Now().Add(24*time.Hour).UTC().Format("20060102T150405"), "--quick-set-expire", set.Keys()[0].Fingerprint, "2y")
			wantSigned(t, dir, tag, keys(t, string(gpg(t, "--armor", "--export", user))), signer.OpenPGP, user)
		}
	}
}

// gpgHome is a short path, as gpg's agent listens below it.
func gpgHome(t *testing.T) (string, bool) {
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Log("gpg is absent: only OpenPGP keys of the library are tested")
		return "", false
	}
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run() // it may not run
		if err := os.RemoveAll(home); err != nil {
			t.Log(err)
		}
	})
	return home, true
}

func gpg(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("gpg", append([]string{"--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpg %v: %v\n%s", args, err, &stderr)
	}
	return out
}

func wantSigned(t *testing.T, dir, tag string, set signer.Set, kind signer.Kind, principal string) {
	t.Helper()
	p := proofOf(t, dir)
	p.Tag, p.TagName = git(t, dir, "cat-file", "tag", tag), tag
	s, err := Verify(p, sample, tag, Policy{Signers: set}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.By) != 1 || s.By[0].Kind != kind || s.By[0].Principal != principal || s.By[0].Fingerprint != set.Keys()[0].Fingerprint ||
		s.By[0].TagObject != line(t, dir, "rev-parse", tag) || s.Commit != line(t, dir, "rev-parse", tag+"^{commit}") {
		t.Errorf("%s: %+v", tag, s)
	}
	// A file more, a byte less, another version: the signature holds, the release does not.
	for name, try := range map[string]func() error{
		"a file more": func() error {
			_, err := Verify(p, append(sample[:len(sample):len(sample)], File{Path: "z"}), tag, Policy{Signers: set}, time.Now())
			return err
		},
		"another version": func() error { _, err := Verify(p, sample, "9.9.9", Policy{Signers: set}, time.Now()); return err },
		"another key": func() error {
			_, err := Verify(p, sample, tag, Policy{Signers: sshVendor(t, "").set(t)}, time.Now())
			return err
		},
		"nobody": func() error { _, err := Verify(p, sample, tag, Policy{}, time.Now()); return err },
		"too many": func() error {
			_, err := Verify(p, sample, tag, Policy{Signers: set, Threshold: 2}, time.Now())
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: %s passed", tag, name)
		}
	}
}

// Unsigned (1.0.0, 1.2.1), signed by a stranger (1.2.2) and lightweight (v1.2.3) tags of the real
// distribution, and all others, which its vendor signed.
func TestLaw1RealDistribution(t *testing.T) {
	dir, signers := distribution(t)
	policy := Policy{Signers: keys(t, string(signers))}
	refused := map[string]bool{"1.0.0": true, "1.2.1": true, "1.2.2": true, "v1.2.3": true}
	for _, tag := range strings.Fields(line(t, dir, "tag")) {
		p, files := ofTag(t, dir, tag)
		now := time.Unix(1_795_300_000, 0) // after the last of them
		if s, err := Verify(p, files, tag, policy, now); errors.Is(err, ErrUnsigned) != refused[tag] || (err == nil) == refused[tag] {
			t.Errorf("%s: %+v, %v", tag, s, err)
		}
	}
}

func TestUnsignedIsRefused(t *testing.T) {
	dir := repository(t)
	policy := Policy{Signers: sshVendor(t, "").set(t)}
	p := proofOf(t, dir)
	if _, err := Verify(p, sample, "1.0.0", policy, time.Now()); !errors.Is(err, ErrUnsigned) {
		t.Errorf("annotated: %v", err)
	}
	p.Tag, p.TagName = nil, "1.0.0"
	if _, err := Verify(p, sample, "1.0.0", policy, time.Now()); !errors.Is(err, ErrUnsigned) {
		t.Errorf("lightweight: %v", err)
	}
}

// verifyAt is what is said of a release 1.1.0 with these tag objects.
func verifyAt(t *testing.T, p Policy, now time.Time, tags ...[]byte) (Signed, error) {
	t.Helper()
	proof, _ := release(t)
	proof.TagName, proof.Tag, proof.Cosigned = "1.1.0", tags[0], tags[1:]
	return Verify(proof, sample, "1.1.0", p, now)
}

func TestThreshold(t *testing.T) {
	_, commit := release(t)
	payload := tagPayload(commit, "1.1.0", "the tag\n")
	all := vendors(t, tagged())
	a, b, c, stranger := all[0], all[1], all[3], all[4]
	two := Policy{Signers: keys(t, a.signers+b.signers, c.signers), Threshold: 2}
	byA, byB, byC := signed(t, a, payload), signed(t, b, payload), signed(t, c, payload)
	other := signed(t, b, tagPayload(commit, "1.1.1", "the tag\n"))
	lifted := append(bytes.Clone(byA), byB[len(payload):]...)
	for name, test := range map[string]struct {
		tags [][]byte
		want int // signers; 0: refused
	}{
		"one":                            {[][]byte{byA}, 0},
		"two":                            {[][]byte{byA, byB}, 2},
		"two, of two kinds":              {[][]byte{byC, byA}, 2},
		"all three":                      {[][]byte{byA, byB, byC}, 3},
		"one twice":                      {[][]byte{byA, byA}, 0},
		"one twice, with another text":   {[][]byte{byA, signed(t, a, tagPayload(commit, "1.1.0", "again\n"))}, 0},
		"one and a stranger":             {[][]byte{byA, signed(t, stranger, payload)}, 0},
		"two and a stranger":             {[][]byte{byA, byB, signed(t, stranger, payload)}, 2},
		"a stranger first":               {[][]byte{signed(t, stranger, payload), byA, byB}, 2},
		"one and an unsigned one":        {[][]byte{byA, payload}, 0},
		"two and one of another version": {[][]byte{byA, byC, other}, 0},
		"two in one object":              {[][]byte{lifted}, 0},
		"nonsense beside two":            {[][]byte{byA, byB, []byte("tag")}, 0},
	} {
		s, err := verifyAt(t, two, later(), test.tags...)
		if (test.want == 0) != (err != nil) || len(s.By) != test.want {
			t.Errorf("%s: %d signers, %v", name, len(s.By), err)
		}
	}
	if _, err := verifyAt(t, Policy{Signers: two.Signers, Threshold: 4}, later(), byA, byB, byC); err == nil || errors.Is(err, ErrUnsigned) {
		t.Errorf("a threshold that nobody can meet: %v", err)
	}
}

func TestTimes(t *testing.T) {
	_, commit := release(t)
	payload := tagPayload(commit, "1.1.0", "the tag\n")
	stamp := func(d time.Duration) string { return tagged().Add(d).Format("20060102150405Z") }
	at := func(options string) (Policy, []byte) {
		v := sshVendor(t, options, "-t", "ed25519")
		return Policy{Signers: v.set(t)}, signed(t, v, payload)
	}
	expiring := pgpConfig(packet.PubKeyAlgoEdDSA, tagged().Add(-time.Hour))
	expiring.KeyLifetimeSecs = 7200
	pgpAt := func(d time.Duration) (Policy, []byte) {
		v := pgpVendor(t, "expiring", expiring)
		sig := &packet.Signature{SigType: packet.SigTypeBinary, PubKeyAlgo: v.entity.PrimaryKey.PubKeyAlgo, Hash: crypto.SHA256,
			CreationTime: tagged().Add(d), IssuerKeyId: &v.entity.PrimaryKey.KeyId}
		return Policy{Signers: v.set(t)}, lowLevel(t, v, sig, payload)
	}
	year := 365 * 24 * time.Hour
	for name, test := range map[string]struct {
		key  func() (Policy, []byte)
		now  time.Duration
		pass bool
	}{
		"no limits":               {func() (Policy, []byte) { return at("") }, time.Hour, true},
		"valid then, expired now": {func() (Policy, []byte) { return at(`valid-before="` + stamp(time.Minute) + `"`) }, year, true},
		"expired then":            {func() (Policy, []byte) { return at(`valid-before="` + stamp(-time.Minute) + `"`) }, time.Hour, false},
		"not yet valid then":      {func() (Policy, []byte) { return at(`valid-after="` + stamp(time.Minute) + `"`) }, time.Hour, false},
		"within both": {func() (Policy, []byte) {
			return at(`namespaces="file,git",valid-after="` + stamp(-year) + `",valid-before="` + stamp(year) + `"`)
		}, 0, true},
		"for another namespace":            {func() (Policy, []byte) { return at(`namespaces="file"`) }, time.Hour, false},
		"our clock is a little behind":     {func() (Policy, []byte) { return at("") }, -Skew, true},
		"a tag that is yet to come":        {func() (Policy, []byte) { return at("") }, -Skew - time.Second, false},
		"OpenPGP":                          {func() (Policy, []byte) { return pgpAt(time.Minute) }, time.Hour, true},
		"OpenPGP, expired since":           {func() (Policy, []byte) { return pgpAt(time.Minute) }, year, true},
		"OpenPGP, our clock is behind":     {func() (Policy, []byte) { return pgpAt(time.Minute) }, 0, true},
		"OpenPGP, a signature yet to come": {func() (Policy, []byte) { return pgpAt(50 * time.Minute) }, 0, false},
		"OpenPGP, used after its expiry":   {func() (Policy, []byte) { return pgpAt(2 * time.Hour) }, year, false},
		"OpenPGP, a tagger before its making": {func() (Policy, []byte) {
			v := pgpVendor(t, "new", pgpConfig(packet.PubKeyAlgoEdDSA, later()))
			return Policy{Signers: v.set(t)}, signed(t, v, payload)
		}, year, false},
	} {
		if test.key == nil {
			continue
		}
		policy, tag := test.key()
		if _, err := verifyAt(t, policy, tagged().Add(test.now), tag); (err == nil) != test.pass {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWeakOpenPGPIsRefused(t *testing.T) {
	_, commit := release(t)
	payload := tagPayload(commit, "1.1.0", "the tag\n")
	v := pgpVendor(t, "v", pgpConfig(packet.PubKeyAlgoRSA, tagged()))
	policy := Policy{Signers: v.set(t)}
	by := func(change func(*packet.Signature)) []byte {
		sig := &packet.Signature{Version: 4, SigType: packet.SigTypeBinary, PubKeyAlgo: v.entity.PrimaryKey.PubKeyAlgo, Hash: crypto.SHA256,
			CreationTime: tagged(), IssuerKeyId: &v.entity.PrimaryKey.KeyId}
		change(sig)
		return lowLevel(t, v, sig, payload)
	}
	if _, err := verifyAt(t, policy, later(), by(func(*packet.Signature) {})); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	ten := uint32(10)
	for why, tag := range map[string][]byte{
		"uses SHA-1":       by(func(s *packet.Signature) { s.Hash = crypto.SHA1 }),
		"of type 0x1":      by(func(s *packet.Signature) { s.SigType = packet.SigTypeText }),
		"of type 0x10":     by(func(s *packet.Signature) { s.SigType = packet.SigTypeGenericCert }),
		"has expired":      by(func(s *packet.Signature) { s.SigLifetimeSecs = &ten }),
		"critical and not": by(func(s *packet.Signature) { s.Notations = []*packet.Notation{{Name: "n@example.com", IsCritical: true}} }),
	} {
		if s, err := verifyAt(t, policy, later(), tag); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %+v, %v", why, s, err)
		}
	}
	reason := packet.KeyRetired
	if err := v.entity.Revoke(reason, "gone", pgpConfig(packet.PubKeyAlgoRSA, later())); err != nil {
		t.Fatal(err)
	}
	tag := by(func(*packet.Signature) {})
	for name, texts := range map[string][]string{"revoked": {public(t, v.entity)}, "with a copy from before": {v.signers, public(t, v.entity)}} {
		var sources []signer.Source
		for _, text := range texts {
			sources = append(sources, signer.Source{Name: name, Text: []byte(text)})
		}
		set, err := signer.Read(signer.Git, sources...)
		if err != nil {
			continue // refused when it was read: as good
		}
		if _, err := verifyAt(t, Policy{Signers: set}, later(), tag); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
}

// lowLevel signs as no tool would.
func lowLevel(t *testing.T, v vendor, sig *packet.Signature, payload []byte) []byte {
	t.Helper()
	h := sig.Hash.New()
	h.Write(payload)
	if err := sig.Sign(h, v.entity.PrivateKey, &packet.Config{NonDeterministicSignaturesViaNotation: packet.BoolPointer(false)}); err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(payload), armoured(t, sig)...)
}

func TestSignatureIsCutAsGitDoes(t *testing.T) {
	_, commit := release(t)
	v := sshVendor(t, "", "-t", "ed25519")
	policy := Policy{Signers: v.set(t)}
	payload := tagPayload(commit, "1.1.0", "the tag\n")
	good := string(signed(t, v, payload))
	block := good[len(payload):]
	mail := append(bytes.Clone(payload), sshSign(t, v.keyFile, "file", payload)...)
	if _, err := verifyAt(t, policy, later(), []byte(good)); err != nil {
		t.Fatal(err)
	}
	inMessage := signed(t, v, tagPayload(commit, "1.1.0", "see -----BEGIN SSH SIGNATURE-----\n"))
	if _, err := verifyAt(t, policy, later(), inMessage); err != nil {
		t.Errorf("the words inside a line: %v", err)
	}
	for name, tag := range map[string]string{
		"text after":               good + "and more\n",
		"an empty line after":      good + "\n",
		"no line end":              strings.TrimSuffix(good, "\n"),
		"two blocks":               good + block,
		"a block in the message":   string(signed(t, v, tagPayload(commit, "1.1.0", "-----BEGIN PGP SIGNATURE-----\n"))),
		"X.509":                    string(payload) + "-----BEGIN SIGNED MESSAGE-----\nAAAA\n-----END SIGNED MESSAGE-----\n",
		"a PGP message":            string(payload) + "-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n",
		"text on the first line":   strings.Replace(good, "BEGIN SSH SIGNATURE-----", "BEGIN SSH SIGNATURE----- x", 1),
		"the wrong end":            strings.Replace(good, "END SSH", "END PGP", 1),
		"CR LF":                    strings.ReplaceAll(good, "\n", "\r\n"),
		"CR in the block":          strings.Replace(good, "SIGNATURE-----\n", "SIGNATURE-----\r\n", 1),
		"a byte of the message":    strings.Replace(good, "the tag", "the tab", 1),
		"the namespace of a file":  string(mail),
		"damaged":                  strings.Replace(good, "U1NIU0lH", "U1NIU0lI", 1),
		"a line before its tagger": strings.Replace(good, "tagger ", "encoding UTF-8\ntagger ", 1),
		"a line after its tagger":  strings.Replace(good, "+0000\n", "+0000\ngpgsig x\n", 1),
		"no empty line":            strings.Replace(good, "+0000\n\n", "+0000\n", 1),
	} {
		if s, err := verifyAt(t, policy, later(), []byte(tag)); err == nil {
			t.Errorf("%s: passed as %+v", name, s)
		}
	}
}

func TestAReleaseOfAnotherDistributionIsRefused(t *testing.T) {
	_, commit := release(t)
	v := sshVendor(t, "", "-t", "ed25519")
	named := Policy{Signers: v.set(t), Distribution: "shop"}
	for message, want := range map[string]string{ // of the error; empty: it is good
		"one\n": "",
		"one\n\nWheelwright-Distribution: shop\n":                                                 "",
		"Wheelwright-Distribution of it\n":                                                        "",
		"one\n\nWheelwright-Distribution: bank\n":                                                 "a release of the distribution bank, this is shop",
		"one\n\nWheelwright-Distribution: shop\nWheelwright-Distribution: bank\n":                 "two Wheelwright-Distribution trailers",
		"one\n\nwheelwright-distribution: shop\n":                                                 "want \"Wheelwright-Distribution: \"",
		"one\n\nWheelwright-Distribution: Shop\n":                                                 "a distribution's name",
		"one\n\nWheelwright-Distribution: shop \n":                                                "a distribution's name",
		"one\n\nWheelwright-Distribution: shop\n\ntext\n":                                         "last paragraph",
		"one\n\nWheelwright-Distribution: bank\nBundle-SHA256: " + strings.Repeat("0", 64) + "\n": "a release of the distribution bank",
	} {
		if _, err := verifyAt(t, named, later(), signed(t, v, tagPayload(commit, "1.1.0", message))); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", message, err, want)
		}
	}
	bank := signed(t, v, tagPayload(commit, "1.1.0", "one\n\nWheelwright-Distribution: bank\n"))
	if _, err := verifyAt(t, Policy{Signers: named.Signers}, later(), bank); err != nil {
		t.Errorf("where any distribution's will do: %v", err)
	}
}

func TestBundleSHA256(t *testing.T) {
	_, commit := release(t)
	v := sshVendor(t, "", "-t", "ed25519")
	policy := Policy{Signers: v.set(t)}
	sum, err := ContentSHA256(sample)
	if err != nil {
		t.Fatal(err)
	}
	zero := strings.Repeat("0", 64)
	for message, want := range map[string]string{ // empty: refused
		"one\n":                               "none",
		"one\n\nBundle-SHA256: " + sum + "\n": sum,
		"one\n\ntext\n\nReviewed-by: a\nBundle-SHA256: " + sum + "\nSee-also: b\n\n": sum,
		"Bundle-SHA256 is new\n":                                           "none",
		"one\n\nBundle-SHA256: " + zero + "\n":                             "",
		"one\n\nBundle-SHA256: " + strings.ToUpper(sum) + "\n":             "",
		"one\n\nBundle-SHA256: " + sum + " \n":                             "",
		"one\n\nBundle-SHA256:" + sum + "\n":                               "",
		"one\n\nbundle-sha256: " + sum + "\n":                              "",
		"one\n\n Bundle-SHA256: " + sum + "\n":                             "",
		"one\n\nBundle-SHA256: " + sum + "\nBundle-SHA256: " + sum + "\n":  "",
		"one\n\nBundle-SHA256: " + sum + "\nBundle-SHA256: " + zero + "\n": "",
		"one\n\nBundle-SHA256: " + sum + "\n more\n":                       "",
		"one\n\nBundle-SHA256: " + sum + "\n\ntext\n":                      "",
		"Bundle-SHA256: " + sum + "\n":                                     "",
		"one\n\nBundle-SHA256: sha256:" + sum + "\n":                       "",
	} {
		s, err := verifyAt(t, policy, later(), signed(t, v, tagPayload(commit, "1.1.0", message)))
		if (want == "") != (err != nil) || (err == nil && s.BundleSHA256 != strings.TrimPrefix(want, "none")) {
			t.Errorf("%q: %q, %v", message, s.BundleSHA256, err)
		}
	}
	other := bytes.Clone(sample[0].Data)
	other[0] ^= 1
	if err := CheckContent(sum, append([]File{{Path: sample[0].Path, Data: other}}, sample[1:]...)); err == nil {
		t.Error("a changed byte has the same digest")
	}
}

// What git, sha256sum and a shell say of a folder is what the trailer holds.
func TestContentSHA256ByHand(t *testing.T) {
	dir := repository(t)
	script := `git ls-tree -r -z 1.0.0:dist/app | LC_ALL=C sort -z -t "$(printf '\t')" -k 2 | while IFS= read -r -d '' l; do
		m=${l%% *}; p=${l#*$'\t'}; echo "$m $(git cat-file blob "1.0.0:dist/app/$p" | sha256sum | cut -c1-64) $p"; done | sha256sum | cut -c1-64`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ContentSHA256(sample); err != nil || got != strings.TrimSpace(string(out)) {
		t.Errorf("got %s, %v, by hand %s", got, err, out)
	}
}
