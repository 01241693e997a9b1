package publish_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/publish"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
)

// person has an SSH key, and a file that lists it.
type person struct{ key, listed string }

func newPerson(t *testing.T, name string) person {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is absent")
	}
	p := person{key: filepath.Join(t.TempDir(), name)}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", p.key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(p.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	p.listed = name + "@vendor.example " + string(public)
	return p
}

// signs tags what is in the work tree's last commit.
func (p person) signs(t *testing.T, dir, tag string) {
	t.Helper()
	git(t, dir, "-c", "gpg.format=ssh", "-c", "user.signingkey="+p.key, "tag", "-f", "-s", "-m", tag, tag)
}

func listed(threshold int, all ...person) fleet.Signers {
	s := fleet.Signers{Threshold: threshold}
	for _, p := range all {
		s.Files = append(s.Files, fleet.SignerFile{Name: filepath.Base(p.key), Text: p.listed})
	}
	return s
}

func now() time.Time { return time.Now() }

func TestWhatItsSignersDidNotSignIsRejected(t *testing.T) {
	v, anna, mallory := newVendor(t), newPerson(t, "anna"), newPerson(t, "mallory")
	d := fleet.Distribution{Name: "shop", URL: v.dir, Path: "dist", Signers: listed(0, anna)}
	p := newPublisher(t, publish.Config{Now: now})
	v.tag("1.0.0", good())
	for what, makeTag := range map[string]func(){
		"carries no signature":  func() { git(t, v.dir, "tag", "-f", "-a", "-m", "1.0.0", "1.0.0") },
		"is lightweight":        func() { git(t, v.dir, "tag", "-f", "1.0.0") },
		"not among the signers": func() { mallory.signs(t, v.dir, "1.0.0") },
	} {
		makeTag()
		r, tar, err := p.Build(t.Context(), d, see(t, v.dir, "1.0.0", "dist"))
		if err != nil || r.Phase != fleet.Rejected || tar != nil || !strings.Contains(strings.Join(r.Reasons, "\n"), what) || len(r.SignedBy) > 0 {
			t.Errorf("%s: %v, %+v", what, err, r)
		}
	}
	anna.signs(t, v.dir, "1.0.0")
	r, _, err := p.Build(t.Context(), d, see(t, v.dir, "1.0.0", "dist"))
	if err != nil || r.Phase != fleet.Available || len(r.SignedBy) != 1 || !strings.HasPrefix(r.SignedBy[0], "anna@vendor.example (ssh SHA256:") {
		t.Errorf("signed by anna: %v, %+v", err, r)
	}
}

// Two people's signatures are two tag objects, of which the second comes later: the tag waits for it, and the
// bundle carries both to whoever checks them again.
func TestATagWaitsForItsSecondSigner(t *testing.T) {
	v, anna, bert := newVendor(t), newPerson(t, "anna"), newPerson(t, "bert")
	d := fleet.Distribution{Name: "shop", URL: v.dir, Path: "dist", Signers: listed(2, anna, bert)}
	p := newPublisher(t, publish.Config{Now: now})
	v.tag("1.0.0", good())
	anna.signs(t, v.dir, "1.0.0")
	_, _, err := p.Build(t.Context(), d, see(t, v.dir, "1.0.0", "dist"))
	if err == nil || !strings.Contains(err.Error(), "1 of 2 signatures") || !strings.Contains(err.Error(), "refs/signatures/1.0.0/") {
		t.Fatalf("one of two: %v", err)
	}
	// Bert signs in a clone of his own, and pushes beside the tag; somebody pushes nonsense there too.
	clone := filepath.Join(t.TempDir(), "bert")
	git(t, v.dir, "clone", "-q", v.dir, clone)
	git(t, clone, "checkout", "-q", "1.0.0")
	bert.signs(t, clone, "1.0.0")
	git(t, clone, "push", "-q", "origin", "refs/tags/1.0.0:refs/signatures/1.0.0/bert", "HEAD:refs/signatures/1.0.0/commit")
	bert.signs(t, clone, "1.0.1")
	git(t, clone, "push", "-q", "origin", "refs/tags/1.0.1:refs/signatures/1.0.0/other")
	r, tar, err := p.Build(t.Context(), d, see(t, v.dir, "1.0.0", "dist"))
	if err != nil || r.Phase != fleet.Available || len(r.SignedBy) != 2 {
		t.Fatalf("two of two: %v, %+v", err, r)
	}
	b, err := bundle.Open(tar)
	if err != nil || len(b.Proof().Cosigned) != 1 {
		t.Fatalf("%v, %d further tag objects, want 1", err, len(b.Proof().Cosigned))
	}
	policy, err := publish.Policy(d.Signers)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := provenance.Verify(b.Proof(), b.Files(), "1.0.0", policy, now())
	if err != nil || len(signed.By) != 2 || !slices.ContainsFunc(signed.By, func(s provenance.Signature) bool { return s.Kind == signer.SSH }) {
		t.Errorf("checked again from the bundle: %v, %+v", err, signed)
	}
}

// A sum in the tag's message that is not that of the files is a tag of something else.
func TestTheContentIsWhatTheTagsMessageSays(t *testing.T) {
	v, anna := newVendor(t), newPerson(t, "anna")
	d := fleet.Distribution{Name: "shop", URL: v.dir, Path: "dist", Signers: listed(1, anna)}
	p := newPublisher(t, publish.Config{Now: now})
	v.tag("1.0.0", good())
	sum, err := provenance.ContentSHA256(see(t, v.dir, "1.0.0", "dist").Snapshot.Files)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]fleet.ReleasePhase{sum: fleet.Available, strings.Repeat("0", 64): fleet.Rejected} {
		git(t, v.dir, "-c", "gpg.format=ssh", "-c", "user.signingkey="+anna.key, "tag", "-f", "-s", "-m", "release\n\nBundle-SHA256: "+text, "1.0.0")
		r, _, err := p.Build(t.Context(), d, see(t, v.dir, "1.0.0", "dist"))
		if err != nil || r.Phase != want {
			t.Errorf("%s: %v, %+v", text, err, r)
		}
	}
}

func TestKeysThatAreNoneAreSaid(t *testing.T) {
	for what, s := range map[string]fleet.Signers{
		"a.keys: line 1":      {Files: []fleet.SignerFile{{Name: "a.keys", Text: "nonsense\n"}}},
		"no signers":          {Files: []fleet.SignerFile{{Name: "a.keys", Text: "# nobody\n"}}},
		"no release can meet": listed(2, newPerson(t, "anna")),
	} {
		if _, err := publish.Policy(s); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
