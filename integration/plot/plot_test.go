package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestExponent(t *testing.T) {
	for _, test := range []struct {
		name   string
		points []Point
		want   float64
	}{
		{"linear", []Point{{1000, 3}, {3000, 9}, {10000, 30}}, 1},
		{"quadratic", []Point{{10, 100}, {1, 1}, {100, 10000}}, 2},
		{"constant", []Point{{1, 7}, {10, 7}, {100, 7}}, 0},
		{"one point", []Point{{10, 7}}, math.NaN()},
		{"one place", []Point{{10, 7}, {10, 9}}, math.NaN()},
		{"nothing", nil, math.NaN()},
	} {
		if got := Exponent(test.points); math.Abs(got-test.want) > 1e-9 || math.IsNaN(got) != math.IsNaN(test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestAxesHoldWhatTheyShow(t *testing.T) {
	for _, points := range [][]Point{{{1000, 0.04}, {3000, 0.11}, {10000, 0.43}}, {{1, 900}, {10, 910}, {100, 990}}, {{5, 2e7}}, {{1, 1e-4}, {1e6, 1e6}}} {
		a := axisOf(points, func(p Point) float64 { return p.Y }, 200, 20)
		for _, p := range points {
			if at := a.at(p.Y); at > 200.5 || at < 19.5 {
				t.Errorf("%v is drawn at %.1f, outside of 200 to 20 (%v)", p, at, a)
			}
		}
		if n := len(a.ticks()); n < 2 || n > 12 {
			t.Errorf("%v has %d ticks: %v", a, n, a.ticks())
		}
	}
}

func TestWriteIsWellFormed(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, Panel{Title: "a < b & c", X: "spokes", Y: "MB", Points: []Point{{10000, 400}, {1000, 50}}}, Panel{Title: "one", Points: []Point{{1, 1}}}); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
	}
	for _, want := range []string{"a &lt; b &amp; c", "grows as n^0.90", ">10k<", "linear"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	for _, p := range []Point{{0, 1}, {1, 0}, {-1, 1}, {math.NaN(), 1}, {1, math.Inf(1)}} {
		if err := Write(io.Discard, Panel{Points: []Point{p}}); err == nil {
			t.Errorf("%v is drawn", p)
		}
	}
	if err := Write(io.Discard, Panel{}); err == nil {
		t.Error("nothing is drawn")
	}
}
