package channel_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
)

func noon() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

func statement(n uint64, latest string, previous fleet.Digest) channel.Statement {
	return channel.Statement{Distribution: "shop", Sequence: n, Latest: latest, Issued: noon(), Expires: noon().Add(7 * 24 * time.Hour), Previous: previous}
}

type key struct {
	signer ssh.Signer
	listed string
}

func newKey(t *testing.T, namespaces string) key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key{s, fmt.Sprintf("release@vendor.example namespaces=%q %s", namespaces, ssh.MarshalAuthorizedKey(s.PublicKey()))}
}

func (k key) in(namespace string) func([]byte) ([]byte, error) {
	return func(text []byte) ([]byte, error) {
		sig, err := sshsig.Sign(bytes.NewReader(text), k.signer, sshsig.HashSHA512, namespace)
		if err != nil {
			return nil, err
		}
		return sshsig.Armor(sig), nil
	}
}

func policy(t *testing.T, threshold int, keys ...key) provenance.Policy {
	t.Helper()
	var sources []signer.Source
	for _, k := range keys {
		sources = append(sources, signer.Source{Name: "keys", Text: []byte(k.listed)})
	}
	set, err := signer.Read(signer.Channel, sources...)
	if err != nil {
		t.Fatal(err)
	}
	return provenance.Policy{Signers: set, Threshold: threshold}
}

func made(t *testing.T, s channel.Statement, keys ...key) channel.Signed {
	t.Helper()
	signed, err := channel.New(s)
	for _, k := range keys {
		if err == nil {
			signed, err = signed.Sign(k.in("channel@wheelwright.dev"))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestAStatementIsWrittenAndReadOneWay(t *testing.T) {
	k := newKey(t, "channel@wheelwright.dev")
	s := statement(3, "1.4.0", fleet.Digest("sha256:"+strings.Repeat("ab", 32)))
	s.Recalled = []string{"1.2.0", "1.3.0"}
	signed := made(t, s, k)
	want := "wheelwright channel statement 1\ndistribution shop\nsequence 3\nlatest 1.4.0\nrecalled 1.2.0\nrecalled 1.3.0\n" +
		"issued 2026-11-21T12:00:00Z\nexpires 2026-11-28T12:00:00Z\nprevious sha256:" + strings.Repeat("ab", 32) + "\n\n-----BEGIN SSH SIGNATURE-----\n"
	raw := string(signed.Bytes())
	if !strings.HasPrefix(raw, want) {
		t.Fatalf("got %s", raw)
	}
	again, err := channel.Parse([]byte(raw))
	if err != nil || string(again.Bytes()) != raw || again.Digest() != signed.Digest() {
		t.Fatalf("read again: %v", err)
	}
	for what, bad := range map[string]string{
		"no empty line":         strings.Replace(raw, "\n\n", "\n", 1),
		"want \"wheelwright":    strings.Replace(raw, "statement 1", "statement 2", 1),
		"one form; make it":     strings.Replace(raw, "sequence 3", "sequence 03", 1),
		"one form":              strings.Replace(raw, "issued 2026-11-21T12:00:00Z", "issued 2026-11-21T13:00:00+01:00", 1),
		"one form; make":        strings.Replace(raw, "latest 1.4.0\n", "latest 1.4.0\nlatest 1.4.0\n", 1),
		"no line of a":          strings.Replace(raw, "latest", "newest", 1),
		"does not ascend":       strings.Replace(raw, "recalled 1.2.0\nrecalled 1.3.0", "recalled 1.3.0\nrecalled 1.2.0", 1),
		"is called back too":    strings.Replace(raw, "recalled 1.3.0", "recalled 1.4.0", 1),
		"and no other":          strings.Replace(raw, "sequence 3", "sequence 1", 1),
		"which is not after":    strings.Replace(raw, "expires 2026-11-28", "expires 2026-11-20", 1),
		"want at most 400":      strings.Replace(raw, "expires 2026", "expires 2036", 1),
		"digest":                strings.Replace(raw, "previous sha256:ab", "previous sha256:AB", 1),
		"follows, want a":       raw + "more\n",
		"does not end":          strings.TrimSuffix(raw, "-----END SSH SIGNATURE-----\n"),
		"one form; make it wit": strings.Replace(raw, "distribution shop\n", "distribution shop\n\n", 1),
	} {
		if bad == raw {
			t.Fatalf("%s: nothing was changed", what)
		}
		if got, err := channel.Parse([]byte(bad)); err == nil {
			t.Errorf("%s: read as %+v", what, got.Statement)
		}
	}
}

func TestWhoSignedAStatement(t *testing.T) {
	anna, bert := newKey(t, "git,channel@wheelwright.dev"), newKey(t, "channel@*")
	gitOnly, thief := newKey(t, "git"), newKey(t, "*")
	one := statement(1, "1.0.0", "")
	if by, err := made(t, one, anna, bert).Verify("shop", policy(t, 2, anna, bert), noon()); err != nil || len(by) != 2 {
		t.Errorf("both: %v, %v", by, err)
	}
	tag, err := channel.New(one)
	if err == nil {
		tag, err = tag.Sign(anna.in("git"))
	}
	if err != nil {
		t.Fatal(err)
	}
	ahead := one
	ahead.Issued = noon().Add(time.Hour)
	for what, c := range map[string]struct {
		s      channel.Signed
		policy provenance.Policy
		name   string
	}{
		"1 of the 2 keys":      {made(t, one, anna, anna), policy(t, 2, anna, bert), "shop"},
		"not among":            {made(t, one, thief), policy(t, 1, anna), "shop"},
		"no signers":           {made(t, one, gitOnly), policy(t, 1, gitOnly), "shop"},
		"for the namespace":    {tag, policy(t, 1, anna), "shop"},
		"another distribution": {made(t, one, anna), policy(t, 1, anna), "web"},
		"yet to come":          {made(t, ahead, anna), policy(t, 1, anna), "shop"},
	} {
		if by, err := c.s.Verify(c.name, c.policy, noon()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v, %v", what, by, err)
		}
	}
	if _, err := made(t, one, thief).Verify("shop", policy(t, 1, anna), noon()); !errors.Is(err, provenance.ErrUnsigned) {
		t.Errorf("got %v", err)
	}
}

func TestForksAreFound(t *testing.T) {
	k := newKey(t, "*")
	one := made(t, statement(1, "1.0.0", ""), k)
	two := made(t, statement(2, "1.1.0", one.Digest()), k)
	three := made(t, statement(3, "1.2.0", two.Digest()), k)
	otherTwo := made(t, statement(2, "1.0.1", one.Digest()), k)
	log := func(all ...channel.Signed) (l channel.Log) {
		for n, s := range all {
			var fresh bool
			if l, fresh = l.Add(s, noon().Add(time.Duration(n)*time.Minute)); !fresh {
				t.Error("a new statement is none")
			}
		}
		return l
	}
	whole := log(one, two, three)
	if f := channel.Forks(whole); len(f) != 0 {
		t.Errorf("one chain: %v", f)
	}
	if f := channel.Forks(whole, log(one, three)); len(f) != 0 {
		t.Errorf("a chain with a gap: %v", f)
	}
	if l, fresh := whole.Add(two, noon()); fresh || len(l) != 3 {
		t.Error("what is there is added again")
	}
	for name, logs := range map[string][2]channel.Log{
		"of two spokes":         {whole, log(one, otherTwo)},
		"the other way around":  {log(one, otherTwo), whole},
		"without what is alike": {log(three), log(otherTwo)},
		"within one":            {log(one, two, otherTwo), log(one, two, otherTwo)},
	} {
		if f := channel.Forks(logs[0], logs[1]); len(f) == 0 || !strings.Contains(fmt.Sprint(f[0]), "2") {
			t.Errorf("%s: %v", name, f)
		}
	}
	if last, ok := log(three, one).Last(); !ok || last.Sequence != 3 {
		t.Errorf("the last is %d", last.Sequence)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("wheelwright channel statement 1\ndistribution shop\nsequence 1\nlatest 1.0.0\nissued 2026-11-21T12:00:00Z\nexpires 2026-11-28T12:00:00Z\nprevious none\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := channel.Parse(raw); err == nil && !bytes.Equal(s.Bytes(), raw) {
			t.Errorf("%q is read, and written as %q", raw, s.Bytes())
		}
	})
}
