package table

import (
	"strings"
	"testing"
)

func TestColumnsAlignAndNothingSteersTheTerminal(t *testing.T) {
	var b strings.Builder
	err := Write(&b, []string{"NAME", "PHASE", "WHY"}, [][]string{{"acme/eu-1", "Succeeded", ""}, {"ö", "a\x1b[2Jb\nc"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := "NAME       PHASE      WHY\nacme/eu-1  Succeeded  -\nö          a [2Jb c   -\n"
	if b.String() != want {
		t.Errorf("got:\n%q\nwant:\n%q", b.String(), want)
	}
	b.Reset()
	if err := Write(&b, []string{"NAME"}, [][]string{{"x"}}, true); err != nil || b.String() != "x\n" {
		t.Errorf("without headers: %q, %v", b.String(), err)
	}
}
