package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// longEnough for a value to be worth looking for inside of encodings of something larger; a longer one than
// tooLong is looked for by its lines and words, encoded too.
const (
	longEnough = 9
	tooLong    = 4 << 10
)

// forms are the ways in which programs write a value.
func forms(v string) []string {
	all := []string{v}
	add := func(f string) {
		if len(f) >= Least && f != v {
			all = append(all, f)
		}
	}
	if len(v) > tooLong {
		return all
	}
	once := escaped(v)
	add(once)
	add(escaped(once))
	q := strconv.Quote(v)
	add(q[1 : len(q)-1])
	add(strings.ReplaceAll(v, "'", "''"))
	add(url.QueryEscape(v))
	add(url.PathEscape(v))
	if len(v) < longEnough {
		add(base64.StdEncoding.EncodeToString([]byte(v)))
		return all
	}
	add(hex.EncodeToString([]byte(v)))
	add(strings.ToUpper(hex.EncodeToString([]byte(v))))
	for offset, first := range []int{0, 2, 3} { // characters that depend on what stands before
		raw := append(make([]byte, offset, offset+len(v)), v...)
		last := len(raw) * 8 / 6
		std := base64.RawStdEncoding.EncodeToString(raw)[first:last]
		add(std)
		if web := base64.RawURLEncoding.EncodeToString(raw)[first:last]; web != std {
			add(web)
		}
	}
	return all
}

func escaped(v string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return v
	}
	text := strings.TrimSuffix(b.String(), "\n")
	return text[1 : len(text)-1]
}

// index finds any of many strings in one pass: by their first Least bytes.
type index struct {
	by      map[uint64][]string
	seen    [1 << 10]uint64 // a bit for what may be in by, which is asked first
	sorted  []string
	longest int
}

func newIndex(all []string) *index {
	x := &index{by: map[uint64][]string{}}
	slices.Sort(all)
	x.sorted = slices.Compact(all)
	for _, s := range x.sorted {
		var k uint64
		for n := range Least {
			k = k<<8 | uint64(s[n])
		}
		x.by[k] = append(x.by[k], s)
		b := bit(k)
		x.seen[b>>6] |= 1 << (b & 63)
		x.longest = max(x.longest, len(s))
	}
	return x
}

func bit(k uint64) uint64 { return k * 0x9E3779B97F4A7C15 >> 48 }

// each tells every place where one of the strings stands.
func (x *index) each(text string, found func(from, to int, s string)) {
	const window = 1<<(8*Least) - 1
	var k uint64
	for n := range len(text) {
		k = (k<<8 | uint64(text[n])) & window
		if n < Least-1 {
			continue
		}
		if b := bit(k); x.seen[b>>6]&(1<<(b&63)) == 0 {
			continue
		}
		from := n - Least + 1
		for _, s := range x.by[k] {
			if strings.HasPrefix(text[from:], s) {
				found(from, from+len(s), s)
			}
		}
	}
}

// without takes the strings out, those that overlap in one, and what is left of one where the text was cut.
func (x *index) without(text string) string {
	if x == nil || len(x.sorted) == 0 {
		return text
	}
	var b strings.Builder
	from, to, done := -1, -1, 0
	flush := func() {
		if from >= 0 {
			b.WriteString(text[done:from])
			b.WriteString(mark)
			done = to
		}
	}
	x.each(text, func(f, t int, _ string) {
		if f > to || from < 0 {
			flush()
			from, to = f, t
		}
		to = max(to, t)
	})
	flush()
	b.WriteString(text[done:])
	return x.untrimmed(b.String())
}

// Least of the beginning of a value that counts as one: where an ellipsis says that something was cut, and where
// the text just ends.
const (
	leastCut = 4
	leastEnd = 8
)

// untrimmed takes out the beginning of a string where the text was cut within it.
func (x *index) untrimmed(text string) string {
	var b strings.Builder
	for rest := text; ; {
		at, width := ellipsis(rest)
		if at < 0 {
			head := rest[:len(rest)-x.begun(rest, leastEnd)]
			b.WriteString(head)
			if len(head) < len(rest) {
				b.WriteString(mark)
			}
			return b.String()
		}
		b.WriteString(rest[:at-x.begun(rest[:at], leastCut)])
		b.WriteString(rest[at : at+width])
		rest = rest[at+width:]
	}
}

func ellipsis(s string) (at, width int) {
	at, width = strings.Index(s, mark), len(mark)
	if dots := strings.Index(s, "..."); dots >= 0 && (at < 0 || dots < at) {
		at, width = dots, 3
	}
	return at, width
}

// begun is how much of the end of the text is the beginning of a string, if that is at least least.
func (x *index) begun(text string, least int) int {
	for n := min(len(text), x.longest, 1<<10); n >= least; n-- {
		tail := text[len(text)-n:]
		if i, _ := slices.BinarySearch(x.sorted, tail); i < len(x.sorted) && strings.HasPrefix(x.sorted[i], tail) {
			return n
		}
	}
	return 0
}
