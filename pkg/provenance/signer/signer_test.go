package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

func key(t *testing.T, private any) (ssh.Signer, string) {
	t.Helper()
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

func edKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key(t, private)
}

func read(texts ...string) (Set, error) {
	var sources []Source
	for _, text := range texts {
		sources = append(sources, Source{"signers", []byte(text)})
	}
	return Read(Git, sources...)
}

func TestAllowedSigners(t *testing.T) {
	_, a := edKey(t)
	_, b := edKey(t)
	for name, test := range map[string]struct {
		text string
		want int // different keys
	}{
		"nothing":                   {"", 0},
		"comments":                  {"# one\n\n  # two\n", 0},
		"a key":                     {"a@example.com " + a, 1},
		"a key with a comment":      {"a@example.com " + a + " of a b\n", 1},
		"tabs and CR LF":            {"a@example.com\t" + a + "\r\n", 1},
		"several principals":        {"a@example.com,b@example.com " + a, 1},
		"principals between quotes": {`"a b" ` + a, 1},
		"two keys":                  {"a " + a + "\nb " + b, 2},
		"a key twice":               {"a " + a + "\nb " + a, 1},
		"for git":                   {`a namespaces="git" ` + a, 1},
		"for git among others":      {`a namespaces="file,g*" ` + a, 1},
		"for all":                   {`a NAMESPACES=* ` + a, 1},
		"for others":                {`a namespaces="file,gi" ` + a, 0},
		"for all but git":           {`a namespaces="*,!git" ` + a, 0},
		"with times":                {`a valid-after=20260101Z,valid-before="20270101120000Z",namespaces="git" ` + a, 1},
	} {
		s, err := read(test.text)
		if err != nil || s.Len() != test.want {
			t.Errorf("%s: %d keys, %v; want %d", name, s.Len(), err, test.want)
		}
	}
}

func TestAllowedSignersRefused(t *testing.T) {
	_, a := edKey(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, weakKey := key(t, weak)
	kind, blob, _ := strings.Cut(a, " ")
	for why, text := range map[string]string{
		"certificates are not taken":               "*@example.com cert-authority " + a,
		"certificates are not taken, as":           "*@example.com cert-authority,namespaces=\"git\" " + a,
		`option "verify-required": not`:            "a verify-required " + a,
		"is there twice":                           `a namespaces="git",namespaces="*" ` + a,
		"no value":                                 "a namespaces= " + a,
		"is no time":                               "a valid-after=2026 " + a,
		`"20261301" is no time`:                    "a valid-before=20261301 " + a,
		"never valid":                              "a valid-after=20270101,valid-before=20260101 " + a,
		"want principals":                          "a " + kind,
		"option \"ssh\": not":                      "a ssh " + blob,
		"says it is a ssh-rsa and is a":            "a ssh-rsa " + blob,
		"want principals, options if any":          "a " + kind + " !" + blob,
		"too weak":                                 "a " + weakKey,
		"line 2: key of b":                         "a " + a + "\nb " + weakKey,
		"option \"" + strings.ToLower(blob) + "\"": a, // no principals
	} {
		if s, err := read(text); err == nil || !strings.Contains(err.Error(), why) || s.Len() != 0 {
			t.Errorf("%s: %v", why, err)
		}
	}
	// All that is wrong is said at once.
	if _, err := read("a "+weakKey+"\nb "+weakKey, "x"); strings.Count(err.Error(), "read signers of") != 3 {
		t.Errorf("got %v", err)
	}
}

func at() time.Time { return time.Unix(1_790_000_000, 0) }

func sshBlock(t *testing.T, by ssh.Signer, payload, namespace string) []byte {
	t.Helper()
	sig, err := sshsig.Sign(strings.NewReader(payload), by, sshsig.HashSHA512, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return sshsig.Armor(sig)
}

func TestSSHSignatures(t *testing.T) {
	by, line := edKey(t)
	other, otherLine := edKey(t)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecSigner, ecLine := key(t, curve)
	set, err := read("a " + line + "\nc " + ecLine + "\nd namespaces=\"file\" " + otherLine)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []ssh.Signer{by, ecSigner} {
		who, err := set.Verify([]byte("payload"), sshBlock(t, s, "payload", "git"), at(), at())
		if err != nil || who.Kind != SSH || who.Fingerprint != ssh.FingerprintSHA256(s.PublicKey()) || who.Algorithm != s.PublicKey().Type() {
			t.Errorf("%+v, %v", who, err)
		}
	}
	// The signature says it is of the listed key, and is of another.
	claims, err := sshsig.Sign(strings.NewReader("payload"), other, sshsig.HashSHA256, "git")
	if err != nil {
		t.Fatal(err)
	}
	claims.PublicKey = by.PublicKey()
	// A certificate that a listed key signed for itself.
	certificate := &ssh.Certificate{Key: other.PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity, ValidPrincipals: []string{"a"}}
	if err := certificate.SignCert(rand.Reader, by); err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(certificate, other)
	if err != nil {
		t.Fatal(err)
	}
	good := sshBlock(t, by, "payload", "git")
	for why, block := range map[string][]byte{
		"what is signed is not what is here":   sshBlock(t, by, "another", "git"),
		"what is signed is not what is":        sshsig.Armor(claims),
		`namespace "file"`:                     sshBlock(t, by, "payload", "file"),
		`namespace "git@example.com"`:          sshBlock(t, by, "payload", "git@example.com"),
		"listed for other namespaces":          sshBlock(t, other, "payload", "git"),
		"not among the signers":                sshBlock(t, certified, "payload", "git"),
		"want SSH or OpenPGP":                  bytes.TrimPrefix(good, []byte("-")),
		"armour is damaged":                    bytes.Replace(good, []byte("U1NI"), []byte("U1N"), 1),
		"want SSH or OpenPGP, got what is not": nil,
	} {
		why, _, _ = strings.Cut(why, ", got")
		if who, err := set.Verify([]byte("payload"), block, at(), at()); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %+v, %v", why, who, err)
		}
	}
	if _, err := (Set{}).Verify([]byte("payload"), good, at(), at()); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("nobody: %v", err)
	}
}

func ring(t *testing.T, kind string, write ...func(w *bytes.Buffer) error) string {
	t.Helper()
	var all, raw bytes.Buffer
	for _, f := range write {
		if err := f(&raw); err != nil {
			t.Fatal(err)
		}
	}
	w, err := armor.Encode(&all, kind, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return all.String() + "\n"
}

func entity(t *testing.T, cfg *packet.Config) *openpgp.Entity {
	t.Helper()
	cfg.Time = at
	e, err := openpgp.NewEntity("v", "", "v@example.com", cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestKeyrings(t *testing.T) {
	a := entity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	b := entity(t, &packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP384})
	six := entity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true})
	weak := entity(t, &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 1024})
	obscure := entity(t, &packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveSecP256k1})
	public := func(e *openpgp.Entity) func(w *bytes.Buffer) error {
		return func(w *bytes.Buffer) error { return e.Serialize(w) }
	}
	one := ring(t, openpgp.PublicKeyType, public(a))
	for name, test := range map[string]struct {
		texts []string
		want  int
	}{
		"one":                   {[]string{one}, 1},
		"after an empty line":   {[]string{"\n" + one}, 1},
		"CR LF":                 {[]string{strings.ReplaceAll(one, "\n", "\r\n")}, 1},
		"two in one block":      {[]string{ring(t, openpgp.PublicKeyType, public(a), public(b))}, 2},
		"two blocks":            {[]string{one + ring(t, openpgp.PublicKeyType, public(six))}, 2},
		"two files":             {[]string{one, ring(t, openpgp.PublicKeyType, public(b))}, 2},
		"a key twice":           {[]string{one + one}, 1},
		"weak":                  {[]string{one + ring(t, openpgp.PublicKeyType, public(weak))}, -1},
		"an obscure curve":      {[]string{ring(t, openpgp.PublicKeyType, public(obscure))}, -1},
		"a private key":         {[]string{ring(t, openpgp.PrivateKeyType, func(w *bytes.Buffer) error { return a.SerializePrivate(w, nil) })}, -1},
		"a private key inside":  {[]string{ring(t, openpgp.PublicKeyType, func(w *bytes.Buffer) error { return a.SerializePrivate(w, nil) })}, -1},
		"text after the block":  {[]string{one + "text\n"}, -1},
		"an empty block":        {[]string{ring(t, openpgp.PublicKeyType)}, -1},
		"no end":                {[]string{one[:len(one)-10]}, -1},
		"cut inside the base64": {[]string{one[:200] + "\n-----END PGP PUBLIC KEY BLOCK-----\n"}, -1},
	} {
		s, err := read(test.texts...)
		if (test.want < 0) != (err != nil) || s.Len() != max(0, test.want) {
			t.Errorf("%s: %d keys, %v", name, s.Len(), err)
		}
	}
}

// A set is shared by deliveries that run at the same time.
func TestVerifyConcurrently(t *testing.T) {
	e := entity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	set, err := read(ring(t, openpgp.PublicKeyType, func(w *bytes.Buffer) error { return e.Serialize(w) }))
	if err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&block, []*openpgp.Entity{e}, strings.NewReader("payload"), &openpgp.SignParams{Config: &packet.Config{Time: at}}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for range 8 {
		go func() {
			_, err := set.Verify([]byte("payload"), block.Bytes(), at(), at())
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A key counts in the namespace that the set is for, and what it signed in another is nothing there.
func TestANamespaceOfOnesOwn(t *testing.T) {
	const own = "order@wheelwright.dev"
	s, line := edKey(t)
	for text, counts := range map[string]bool{
		"a " + line:                                true,
		`a namespaces="` + own + `" ` + line:       true,
		`a namespaces="git,order@*" ` + line:       true,
		`a namespaces="git" ` + line:               false,
		`a namespaces="*,!order@*" ` + line:        false,
		`a namespaces="order@wheelwright" ` + line: false,
	} {
		set, err := Read(own, Source{Name: "f", Text: []byte(text)})
		if err != nil || (set.Len() == 1) != counts || (len(set.Principals()) == 1) != counts {
			t.Errorf("%s: %d keys, principals %v, %v", text, set.Len(), set.Principals(), err)
		}
		sig, err := SignSSH([]byte("payload"), s, own)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.Verify([]byte("payload"), sig, at(), at()); (err == nil) != counts {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := set.Verify([]byte("payload"), sshBlock(t, s, "payload", Git), at(), at()); err == nil || !strings.Contains(err.Error(), `namespace "git", want "`+own+`"`) {
			t.Errorf("%s: a signature for git: %v", text, err)
		}
	}
	sig, err := SignSSH([]byte("payload"), s, own)
	if err != nil {
		t.Fatal(err)
	}
	if by, err := ClaimedBy([]byte("payload"), sig, own); err != nil || by != ssh.FingerprintSHA256(s.PublicKey()) {
		t.Errorf("%s, %v", by, err)
	}
	for what, err := range map[string]error{
		"damaged":       second(ClaimedBy([]byte("another"), sig, own)),
		`want "git"`:    second(ClaimedBy([]byte("payload"), sig, Git)),
		"the SSH signa": second(ClaimedBy([]byte("payload"), append(sig, sig...), own)),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q: %v", what, err)
		}
	}
	if _, err := Read(own, Source{Name: "f", Text: []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")}); err == nil || !strings.Contains(err.Error(), "want allowed signers of SSH") {
		t.Errorf("OpenPGP keys: %v", err)
	}
	set, err := Read(own, Source{Name: "f", Text: []byte("a " + line)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Verify([]byte("payload"), []byte("-----BEGIN PGP SIGNATURE-----\n"), at(), at()); err == nil || !strings.Contains(err.Error(), "does not say what it is for") {
		t.Errorf("an OpenPGP signature: %v", err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err == nil {
		k, _ := key(t, weak)
		if _, err := SignSSH(nil, k, own); err == nil || !strings.Contains(err.Error(), "too weak") {
			t.Errorf("a weak key: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
