package printer

import (
	"strings"
	"testing"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func TestEachFormatOfOneAnswer(t *testing.T) {
	a := Answer{
		Message: &fleetv1.ListDistributionsResponse{Distributions: []*fleetv1.Distribution{{Name: "shop"}}},
		Headers: []string{"NAME"}, WideHeaders: []string{"PATH"}, Rows: [][]string{{"shop"}}, WideRows: [][]string{{"dist"}},
		Names: []string{"shop"}, Empty: "no distributions",
	}
	eachFormat(t, a)
	filled := a
	filled.Rows, filled.WideRows, filled.Names = nil, nil, nil
	filled.Fill = func(f *Answer) { f.Rows, f.WideRows, f.Names = a.Rows, a.WideRows, a.Names }
	eachFormat(t, filled)
	if err := (Printer{Format: "xml"}).Check(); err == nil || !strings.Contains(err.Error(), "json") {
		t.Errorf("an unknown format: %v", err)
	}
}

func eachFormat(t *testing.T, a Answer) {
	t.Helper()
	for format, want := range map[string]string{
		"table": "NAME\nshop\n",
		"wide":  "NAME  PATH\nshop  dist\n",
		"name":  "shop\n",
	} {
		var b strings.Builder
		if err := (Printer{Out: &b, Format: format}).Print(a); err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v; want %q", format, b.String(), err, want)
		}
	}
	for _, format := range []string{"json", "yaml"} {
		var b, again strings.Builder
		if err := (Printer{Out: &b, Format: format}).Print(a); err != nil {
			t.Fatal(err)
		}
		_ = Printer{Out: &again, Format: format}.Print(a)
		if b.String() != again.String() || !strings.Contains(b.String(), "intervalSeconds") {
			t.Errorf("%s: want the same bytes twice, with unset fields present:\n%s", format, b.String())
		}
	}
}
