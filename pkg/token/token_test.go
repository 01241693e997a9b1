package token

import (
	"strings"
	"testing"
)

func TestATokenSurvivesItsLine(t *testing.T) {
	want := New(strings.Repeat("ab", 32))
	got, err := Parse(" " + want.String() + "\n")
	if err != nil || got != want {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	if New(want.Pin).Secret == want.Secret {
		t.Error("two tokens share a secret")
	}
}

func TestADamagedTokenIsNamedWithoutItsSecret(t *testing.T) {
	good := New(strings.Repeat("ab", 32))
	for _, s := range []string{"", "ww1", good.String()[:len(good.String())-1], "ww2" + good.String()[3:], good.String() + ".x",
		strings.Replace(good.String(), good.Secret, "short", 1), strings.Replace(good.String(), good.ID, "zz", 1)} {
		_, err := Parse(s)
		if err == nil {
			t.Errorf("%q: want an error", s)
			continue
		}
		if strings.Contains(err.Error(), good.Secret) || !strings.Contains(err.Error(), "hub cluster invite") {
			t.Errorf("error %q: want no secret, and the next command", err)
		}
	}
}
