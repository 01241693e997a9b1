package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
)

func (a *app) age(t *timestamppb.Timestamp) string { return fleet.Age(a.now(), wire.FromTime(t)) }

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

func labelText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

// plain is s without what steers a terminal: much of what is shown was reported by others.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, s)
}

// shorten keeps a text to one line of at most n runes.
func shorten(s string, n int) string {
	r := []rune(strings.Join(strings.Fields(plain(s)), " "))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:max(n-1, 0)]) + "…"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// thousands writes 12345 as 12,345.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span is a duration as short as it stays exact enough: 45s, 12m, 1h30m, 3d.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour && int(d.Minutes())%60 != 0:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// pad fills s up to n runes.
func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(n-utf8.RuneCountInString(s), 0))
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// columnsOf is how wide a line is, its colours left out.
func columnsOf(line string) int { return utf8.RuneCountInString(colours.ReplaceAllString(line, "")) }

// clip cuts a line, colours and all, after width columns; 0: not at all.
func clip(line string, width int) string {
	if width <= 0 || columnsOf(line) <= width {
		return line
	}
	var b strings.Builder
	painted := false
	for seen := 0; seen < width-1; {
		if at := colours.FindStringIndex(line); at != nil && at[0] == 0 {
			b.WriteString(line[:at[1]])
			painted = line[:at[1]] != plainAgain
			line = line[at[1]:]
			continue
		}
		_, size := utf8.DecodeRuneInString(line)
		b.WriteString(line[:size])
		line = line[size:]
		seen++
	}
	b.WriteString("…")
	if painted {
		b.WriteString(plainAgain)
	}
	return b.String()
}

const plainAgain = "\x1b[0m"

// columns writes rows one by one, each column as wide as its widest cell so far.
type columns struct {
	out    io.Writer
	widths []int
}

func (c *columns) fit(cells []string) {
	for i, cell := range cells {
		if i == len(c.widths) {
			c.widths = append(c.widths, 0)
		}
		c.widths[i] = max(c.widths[i], utf8.RuneCountInString(plain(cell)))
	}
}

func (c *columns) write(cells []string) error {
	c.fit(cells)
	var b strings.Builder
	for i, cell := range cells {
		b.WriteString(pad(plain(cmp.Or(cell, "-")), c.widths[i]+2))
	}
	_, err := fmt.Fprintln(c.out, strings.TrimRight(b.String(), " "))
	return err
}
