// Package plot draws how quantities grow: log-log panels side by side, as one SVG that is legible on light and on dark
// ground. It draws nothing else.
package plot

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Point is one measurement; both are above 0.
type Point struct{ X, Y float64 }

// Panel is one quantity over another.
type Panel struct {
	Title  string
	X, Y   string // what the axes are, with units
	Points []Point
}

// Exponent is that of the power law which fits the points best (least squares of logarithms): 1 is linear. It takes
// points of at least two different X; of others it is not a number.
func Exponent(points []Point) float64 {
	var n, sx, sy, sxx, sxy float64
	for _, p := range points {
		x, y := math.Log(p.X), math.Log(p.Y)
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	spread := n*sxx - sx*sx
	if spread <= 1e-9 {
		return math.NaN()
	}
	return (n*sxy - sx*sy) / spread
}

// Pixels of a panel, and of what surrounds its axes.
const (
	width, height       = 320, 270
	left, right         = 62, 16
	top, bottom         = 46, 48
	font                = `font-family="system-ui, sans-serif"`
	ink, faint, line    = "#767676", "#9a9a9a", "#3b82d0" // each has contrast on white and on black
	labelSize, tickSize = 12, 11
)

// Write draws the panels from left to right.
func Write(w io.Writer, panels ...Panel) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n", width*len(panels), height)
	for n, p := range panels {
		if err := p.check(); err != nil {
			return fmt.Errorf("plot %s: %w", p.Title, err)
		}
		fmt.Fprintf(&b, `<g transform="translate(%d 0)">`+"\n", n*width)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

func (p Panel) check() error {
	if len(p.Points) == 0 {
		return fmt.Errorf("no points")
	}
	for _, at := range p.Points {
		if !(at.X > 0) || !(at.Y > 0) || math.IsInf(at.X, 0) || math.IsInf(at.Y, 0) {
			return fmt.Errorf("%v is on no logarithmic axis", at)
		}
	}
	return nil
}

func (p Panel) draw(b *bytes.Buffer) {
	points := slices.SortedFunc(slices.Values(p.Points), func(a, b Point) int { return cmp.Compare(a.X, b.X) })
	x := axisOf(points, func(p Point) float64 { return p.X }, left, width-right)
	y := axisOf(points, func(p Point) float64 { return p.Y }, height-bottom, top)
	text(b, left, 20, "start", 14, p.Title, ` font-weight="600"`)
	if e := Exponent(points); !math.IsNaN(e) {
		text(b, width-right, 38, "end", labelSize, fmt.Sprintf("grows as n^%.2f", e), "")
	}
	for _, t := range x.ticks() {
		rule(b, x.at(t), top, x.at(t), height-bottom, faint, ` stroke-width="0.5"`)
		text(b, x.at(t), height-bottom+16, "middle", tickSize, short(t), "")
	}
	for _, t := range y.ticks() {
		rule(b, left, y.at(t), width-right, y.at(t), faint, ` stroke-width="0.5"`)
		text(b, left-6, y.at(t)+4, "end", tickSize, short(t), "")
	}
	text(b, (left+width-right)/2, height-10, "middle", labelSize, p.X, "")
	text(b, 0, 0, "middle", labelSize, p.Y, fmt.Sprintf(` transform="translate(14 %d) rotate(-90)"`, (top+height-bottom)/2))
	p.linear(b, points, x, y)
	var path strings.Builder
	for n, at := range points {
		fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[n == 0], x.at(at.X), y.at(at.Y))
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), line)
	for _, at := range points {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s: %s</title></circle>`+"\n", x.at(at.X), y.at(at.Y), line, short(at.X), short(at.Y))
	}
}

// linear is what the first point would grow to, dashed, as far as it is within the axes.
func (p Panel) linear(b *bytes.Buffer, points []Point, x, y axis) {
	from := points[0]
	to := points[len(points)-1].X
	if most := from.X * y.most / from.Y; most < to {
		to = most
	}
	if to <= from.X {
		return
	}
	rule(b, x.at(from.X), y.at(from.Y), x.at(to), y.at(from.Y*to/from.X), ink, ` stroke-width="1" stroke-dasharray="4 4"`)
	// On the side of it that the points are not on.
	at := from.X * math.Pow(to/from.X, 0.7)
	last := points[len(points)-1]
	if last.Y/last.X > from.Y/from.X {
		text(b, x.at(at)+6, y.at(from.Y*at/from.X)+12, "start", tickSize, "linear", ` font-style="italic"`)
		return
	}
	text(b, x.at(at)-6, y.at(from.Y*at/from.X)-4, "end", tickSize, "linear", ` font-style="italic"`)
}

// axis is logarithmic, from least at the pixel from to most at the pixel to.
type axis struct{ least, most, from, to float64 }

// axisOf has room for all values, with at least a decade.
func axisOf(points []Point, of func(Point) float64, from, to float64) axis {
	least, most := of(points[0]), of(points[0])
	for _, p := range points {
		least, most = min(least, of(p)), max(most, of(p))
	}
	least, most = floor(least), ceiling(most)
	if most < 10*least {
		most = ceiling(10 * least)
	}
	return axis{least, most, from, to}
}

func (a axis) at(v float64) float64 {
	return a.from + (a.to-a.from)*math.Log(v/a.least)/math.Log(a.most/a.least)
}

// ticks are 1, 2 and 5 of each power of ten, and only the powers where those are many.
func (a axis) ticks() (all []float64) {
	steps := []float64{1, 2, 5}
	if a.most/a.least > 200 {
		steps = steps[:1]
	}
	for power := math.Floor(math.Log10(a.least)); power <= math.Ceil(math.Log10(a.most)); power++ {
		for _, s := range steps {
			if v := s * math.Pow(10, power); v >= a.least*0.999 && v <= a.most*1.001 {
				all = append(all, v)
			}
		}
	}
	return all
}

// floor and ceiling round to 1, 2 or 5 times a power of ten.
func floor(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)*(1+1e-12)))
	for _, s := range []float64{5, 2} {
		if v >= s*power*0.999 {
			return s * power
		}
	}
	return power
}

func ceiling(v float64) float64 {
	f := floor(v)
	if v <= f*1.001 {
		return f
	}
	if lead := f / math.Pow(10, math.Floor(math.Log10(f*1.001))); lead > 1.5 && lead < 3 {
		return f * 2.5
	}
	return f * 2
}

// short writes 10000 as 10k and 0.05 as it is.
func short(v float64) string {
	suffix := ""
	switch {
	case v >= 1e6:
		v, suffix = v/1e6, "M"
	case v >= 1e3:
		v, suffix = v/1e3, "k"
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + suffix
}

func text(b *bytes.Buffer, x, y float64, anchor string, size int, s, more string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" %s fill="%s"%s>`, x, y, anchor, size, font, ink, more)
	_ = xml.EscapeText(b, []byte(s)) // a buffer takes all
	b.WriteString("</text>\n")
}

func rule(b *bytes.Buffer, x1, y1, x2, y2 float64, colour, more string) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"%s/>`+"\n", x1, y1, x2, y2, colour, more)
}
