package strictlines

import (
	"maps"
	"strings"
	"testing"
)

func TestWhatIsWrittenIsReadAndNothingElse(t *testing.T) {
	f := Form{Header: "a wish, version 1", Fields: []string{"who", "what"}, Max: 100}
	text := string(f.Write("maria", "tea: hot"))
	if want := "a wish, version 1\nwho: maria\nwhat: tea: hot\n"; text != want {
		t.Fatalf("wrote %q, want %q", text, want)
	}
	if got, err := f.Read([]byte(text)); err != nil || !maps.Equal(got, map[string]string{"who": "maria", "what": "tea: hot"}) {
		t.Errorf("read %v, %v", got, err)
	}
	for other, want := range map[string]string{
		"":                                     `want the line "a wish, version 1", then who, what`,
		strings.TrimSuffix(text, "\n"):         "each on a line",
		text + "\n":                            "each on a line",
		text + "why: no\n":                     "each on a line",
		"\n" + text:                            "each on a line",
		strings.Replace(text, "1", "2", 1):     "each on a line",
		strings.Replace(text, "who", "Who", 1): `line 2 is not "who:"`,
		strings.Replace(text, "what: ", "what:", 1):        `line 3 is not "what:"`,
		"a wish, version 1\nwhat: tea\nwho: maria\n":       `line 2 is not "who:"`,
		string(f.Write("maria", strings.Repeat("x", 100))): "more than 100",
	} {
		if got, err := f.Read([]byte(other)); err == nil || got != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", other, got, err, want)
		}
	}
}
