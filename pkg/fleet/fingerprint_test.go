package fleet

import (
	"strings"
	"testing"
)

func TestAFingerprintIsReadWholeOrNotAtAll(t *testing.T) {
	f := FingerprintOf([]byte("a key"))
	if !strings.HasPrefix(f.String(), "SHA256:") || len(f.String()) != 50 || (Fingerprint{}).String() != "" {
		t.Errorf("got %q", f)
	}
	hexadecimal := "dbc19f5c3e84b2f4a8d0c35e1c3ff0cbd3c2b8a1de0ac8a4a3fe0e8a1c0a9d3e"
	for text, good := range map[string]bool{
		f.String(): true, " " + f.String() + "\n": true, f.String()[7:]: true, f.String() + "=": true, hexadecimal: true,
		"": false, "SHA256:": false, f.String()[:49]: false, f.String() + "A": false, strings.ToLower(f.String()): false, hexadecimal[:62]: false,
		"MD5:" + f.String()[7:]: false, "SHA256:" + strings.Repeat("A", 43): false, strings.Repeat("0", 64): false,
	} {
		got, err := ParseFingerprint(text)
		if (err == nil) != good {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if good && strings.Contains(text, "SHA256:") && !got.Equal(f) {
			t.Errorf("%q is read as %s", text, got)
		}
	}
	if f.Equal(FingerprintOf([]byte("another"))) {
		t.Error("two keys are the same")
	}
}
