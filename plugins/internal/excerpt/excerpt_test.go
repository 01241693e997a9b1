package excerpt_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
)

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"a\r\n  b\x1b[31m\tc": "a b [31m c", "": "", "\xff": "?", "0123456789abc": "012345678…", "äöüäöüäöüä": "äöüäöüäöüä",
	} {
		if got := excerpt.OneLine(in, 10); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestTail(t *testing.T) {
	long := strings.Repeat("line\n", 100_000) + "the end\n"
	got, err := excerpt.Tail(strings.NewReader(long), 1000)
	if err != nil || len(got) > 1000 || !strings.HasPrefix(got, "line\n") || !strings.HasSuffix(got, "line\nthe end\n") {
		t.Errorf("%v, %d bytes: %.20q", err, len(got), got)
	}
	if got, _ := excerpt.Tail(strings.NewReader("short"), 1000); got != "short" {
		t.Errorf("got %q", got)
	}
	if got := excerpt.End(strings.Repeat("ä", 100), 101); len(got) > 101 || strings.Trim(got, "ä") != "" {
		t.Errorf("a cut through a letter: %q", got)
	}
}

func TestRedactor(t *testing.T) {
	key := "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END KEY-----\n"
	r := excerpt.NewRedactor("correct-horse", "correct-horse-battery", "p@ss word/1", "abc", " \n", key)
	for in, want := range map[string]string{
		"it is correct-horse-battery, not correct-horse":                      "it is ***, not ***",
		"Basic " + base64.StdEncoding.EncodeToString([]byte("correct-horse")): "Basic ***",
		"?q=p%40ss+word%2F1&abc":                                              "?q=***&abc",
		"read MIIEvQIBADANBgkqhkiG9w0BAQEFAASC of file":                       "read *** of file",
		"nothing": "nothing",
	} {
		if got := r.Redact(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	var none excerpt.Redactor
	if none.Redact("x") != "x" || excerpt.NewRedactor().Redact("x") != "x" {
		t.Error("who knows no secret changes nothing")
	}
}
