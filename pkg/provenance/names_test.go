package provenance

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// Law 1: the name that is signed is the version, whoever calls it what. Each trick is a tag object signed
// by the vendor's own key, over the release's own commit, and what a hub says of it.
func TestLaw1NamesAreWhatWasSigned(t *testing.T) {
	base, commit := release(t)
	type offer struct{ inside, ref, version string }
	tricks := []struct {
		name   string
		offers []offer // none may pass
	}{
		{"an old signed tag under a new ref", []offer{{"1.0.0", "1.1.0", "1.1.0"}, {"1.0.0", "1.0.0", "1.1.0"}, {"1.0.0", "1.1.0", "1.0.0"}}},
		{"case", []offer{{"1.1.0-RC.1", "1.1.0-rc.1", "1.1.0-rc.1"}, {"1.1.0-rc.1", "1.1.0-rc.1", "1.1.0-RC.1"}}},
		{"a letter that looks alike", []offer{{"1.1.0-b\u0435ta", "1.1.0-beta", "1.1.0-beta"}, {"1.1.0-b\u0435ta", "1.1.0-b\u0435ta", "1.1.0-b\u0435ta"}, {"\uff11.1.0", "1.1.0", "1.1.0"}}},
		{"a letter that does not show", []offer{{"1.1.0\u200b", "1.1.0", "1.1.0"}, {"1.1.0\u200b", "1.1.0\u200b", "1.1.0\u200b"}, {"1.1.0", "1.1.0", "1.1.0\u200b"}}},
		{"refs/", []offer{{"refs/tags/1.1.0", "1.1.0", "1.1.0"}, {"refs/tags/1.1.0", "refs/tags/1.1.0", "refs/tags/1.1.0"}, {"tags/1.1.0", "tags/1.1.0", "tags/1.1.0"}, {"1.1.0", "refs/tags/1.1.0", "1.1.0"}}},
		{"a nested tag", []offer{{"1.1.0", "1.1.0", "1.1.0"}}}, // of a tag object, see below
		{"a trailing dot", []offer{{"1.1.0.", "1.1.0", "1.1.0"}, {"1.1.0.", "1.1.0.", "1.1.0."}, {"1.1.0", "1.1.0", "1.1.0."}}},
		{"a blank at the end", []offer{{"1.1.0 ", "1.1.0", "1.1.0"}, {"1.1.0 ", "1.1.0 ", "1.1.0 "}, {"1.1.0\t", "1.1.0", "1.1.0"}, {"1.1.0\r", "1.1.0", "1.1.0"}}},
		{"a zero byte", []offer{{"1.1.0\x00-evil", "1.1.0", "1.1.0"}, {"1.1.0\x00-evil", "1.1.0\x00-evil", "1.1.0\x00-evil"}}},
		{"a second tag line", []offer{{"1.0.0\ntag 1.1.0", "1.1.0", "1.1.0"}, {"1.0.0\ntag 1.1.0", "1.0.0", "1.0.0"}, {"1.0.0\ntag 1.1.0", "1.0.0\ntag 1.1.0", "1.0.0\ntag 1.1.0"}}},
		{"a letter v", []offer{{"v1.1.0", "1.1.0", "1.1.0"}, {"1.1.0", "v1.1.0", "v1.1.0"}, {"v1.1.0", "v1.1.0", "1.1.0"}}},
		{"the same version to semver", []offer{{"1.1.0+evil", "1.1.0", "1.1.0"}, {"1.1.0", "1.1.0", "1.1.0+evil"}, {"01.1.0", "1.1.0", "1.1.0"}}},
	}
	refused, all := 0, 0
	for _, v := range vendors(t, tagged()) {
		policy := Policy{Signers: v.set(t)}
		inner := signed(t, v, tagPayload(commit, "1.1.0", "the tag\n"))
		honest := base
		honest.Tag, honest.TagName = inner, "1.1.0"
		if _, err := Verify(honest, sample, "1.1.0", policy, later()); err != nil {
			t.Fatalf("%s: the honest tag: %v", v.name, err)
		}
		id, err := ObjectID("tag", inner)
		if err != nil {
			t.Fatal(err)
		}
		for _, trick := range tricks {
			all++
			passed := 0
			for _, o := range trick.offers {
				payload := tagPayload(commit, o.inside, "the tag\n")
				if strings.HasPrefix(trick.name, "a nested") {
					payload = []byte(strings.NewReplacer("object "+commit, fmt.Sprintf("object %x", id), "type commit", "type tag").Replace(string(payload)))
				}
				p := base
				p.Tag, p.TagName = signed(t, v, payload), o.ref
				if s, err := Verify(p, sample, o.version, policy, later()); err == nil {
					passed++
					t.Errorf("%s, %s: %q at %q as %q passed: %+v", v.name, trick.name, o.inside, o.ref, o.version, s)
				}
			}
			if passed == 0 {
				refused++
			}
		}
	}
	fmt.Printf("FIGURE names.refused %d of %d\n", refused, all)
	if all != 60 || refused != all {
		t.Errorf("refused %d of %d, want 60 of 60", refused, all)
	}
}

// What is passed over as plain would have been accepted by a closer look.
func TestPlainPathsAreAccepted(t *testing.T) {
	r, plainly := rand.New(rand.NewPCG(7, 7)), 0
	parts := []string{"g", "G", "i", "I", "t", "T", "~1", ".", "..", "/", "\\", ":", " ", "a", "yaml", "\x00", "\x7f", "é", "\u200c", "\xff", ".git", "git~1", "GIT~1", "a/", "b"}
	for range 300_000 {
		var path string
		for range r.IntN(7) {
			path += parts[r.IntN(len(parts))]
		}
		if plain(path) {
			plainly++
			if err := checkClosely(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if plainly < 1000 {
		t.Errorf("%d plain paths were tried", plainly)
	}
}
