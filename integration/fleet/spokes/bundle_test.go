package spokes

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// A spoke counts as having a bundle only where each byte of it came, whatever others were sent before.
func TestPieces(t *testing.T) {
	known := []byte("what was verified before")
	for _, test := range []struct {
		name  string
		known []byte
		sent  []string
		whole bool
	}{
		{"the same", known, []string{string(known)}, true},
		{"the same in pieces", known, []string{"what was ", "verified", " before"}, true},
		{"less", known, []string{"what was ", "verified"}, false},
		{"nothing", known, nil, false},
		{"more", known, []string{string(known), "!"}, false},
		{"another beginning", known, []string{"That was ", "verified before"}, false},
		{"another end", known, []string{"what was ", "verified behind"}, false},
		{"the first of all", nil, []string{"what", "ever"}, false},
	} {
		p := pieces{known: test.known}
		for _, s := range test.sent {
			p.add([]byte(s))
		}
		if got, want := p.bytes(), strings.Join(test.sent, ""); p.whole() != test.whole || string(got) != want || p.n != int64(len(want)) {
			t.Errorf("%s: whole %v, %d bytes: %q, want whole %v: %q", test.name, p.whole(), p.n, got, test.whole, want)
		}
	}
}

func TestWhatIsNotTheBundleIsNotKept(t *testing.T) {
	l := newLibrary()
	base, tar := bytes.Repeat([]byte("of before "), 1000), bytes.Repeat([]byte("a canonical tar "), 1000)
	offer := &syncv1.Offer{Version: "1.1.0", Digest: string(bundle.DigestOf(tar)), Size: uint64(len(tar))}
	of := coding{bundle.DigestOf(tar), ""}
	if err := l.verify(offer, "", bundle.Compress(base)); err == nil || l.verified(of) != nil {
		t.Errorf("another bundle passes: %v", err)
	}
	if err := l.verify(offer, "", []byte("no zstd")); err == nil || l.verified(of) != nil {
		t.Errorf("nonsense passes: %v", err)
	}
	if err := l.verify(offer, bundle.DigestOf(base), bundle.Compress(tar)); err == nil {
		t.Error("a delta on what is not here passes")
	}
	if err := l.verify(offer, "", bundle.Compress(tar)); err != nil || !bytes.Equal(l.verified(of), bundle.Compress(tar)) {
		t.Errorf("the bundle does not pass: %v", err)
	}
}
