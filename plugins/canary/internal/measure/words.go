package measure

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// number writes a value with four digits that count, or all of them before the point.
func number(f float64) string { return digits(f, 4) }

func digits(f float64, n int) string {
	if !finite(f) {
		return strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+")
	}
	if math.Abs(f) >= math.Pow10(n) {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', n, 64), 64)
	if err != nil {
		rounded = f
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}

// apart writes two values with as many digits as it takes to see that they differ: "99 % < 99 %" would
// be no reason.
func apart(a, b float64) (string, string) {
	for n := 4; n < 17; n++ {
		if x, y := digits(a, n), digits(b, n); x != y {
			return x, y
		}
	}
	return number(a), number(b)
}

// group writes 4120 as 4,120.
func group(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// span writes a duration as PromQL and people do: "1m", "1h30m". What is longer than a second is
// rounded to one.
func span(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// oneLine makes foreign text fit for a reason: one line, printable, at most 300 bytes.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}
