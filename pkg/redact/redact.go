// Package redact is the one place through which texts go before they leave the spoke or reach a log (law 10).
// A Sink knows the values that are in confidence at the moment (those of Secrets, of what was decrypted, of a
// provider's overlay) and takes them out of a text in whatever form a program would write them: as they are,
// quoted, escaped for JSON or a URL, in base64 at any alignment, in hex, cut off at the end. On top of that go
// rules about shapes: credentials in URLs, values that API servers quote, objects printed whole.
//
// It does not decide what is in confidence: who reads the values says so. A value shorter than Least is a word,
// and left in.
package redact

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
)

// Least is how many bytes a value has to have to be looked for.
const Least = 6

// mark takes the place of what is taken out.
const mark = "…"

// keep is how many sets of values are known at once; the one that nobody has named for longest goes first.
const keep = 24

// Sink is safe for concurrent use. A nil Sink knows no values.
type Sink struct {
	mu    sync.Mutex
	sets  map[string][]string // every form of every value
	order []string
	index atomic.Pointer[index]
}

// New knows nothing yet.
func New() *Sink { return &Sink{sets: map[string][]string{}} }

// Of knows these values.
func Of(values []string) *Sink {
	s := New()
	s.Know("", values)
	return s
}

// Knows reports that a set of that key was told, and is not forgotten.
func (s *Sink) Knows(key string) bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.sets[key]
	if ok { // it is of use to somebody still
		s.order = append(slices.DeleteFunc(s.order, func(k string) bool { return k == key }), key)
	}
	return ok
}

// Know replaces a set of values. What stands in the public texts is not in confidence: the names of objects, and
// what the vendor wrote itself.
func (s *Sink) Know(key string, values []string, public ...string) {
	if s == nil {
		return
	}
	pieces := piecesOf(values)
	known := newIndex(pieces)
	open := map[string]bool{}
	for _, text := range public {
		known.each(text, func(_, _ int, piece string) { open[piece] = true })
	}
	var all []string
	for _, p := range pieces {
		if !open[p] {
			all = append(all, forms(p)...)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.sets[key]; !there {
		s.order = append(s.order, key)
	}
	s.sets[key] = all
	for len(s.order) > keep {
		delete(s.sets, s.order[0])
		s.order = s.order[1:]
	}
	var every []string
	for _, set := range s.sets {
		every = append(every, set...)
	}
	s.index.Store(newIndex(every))
}

// Text is a text that may leave. Its lines stay.
func (s *Sink) Text(text string) string {
	if text == "" {
		return text
	}
	if s != nil {
		text = s.index.Load().without(text)
	}
	return shaped(text)
}

// Line is Text on one line of at most limit characters.
func (s *Sink) Line(text string, limit int) string { return cut(s.Text(text), limit) }

// Line is a text by the rules about shapes alone, on one line of at most limit characters.
func Line(text string, limit int) string { return cut(shaped(text), limit) }

func cut(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit-1]) + mark
	}
	return s
}

// What needs no value to be known by: credentials, what API servers quote, and objects printed whole.
var (
	userinfo   = regexp.MustCompile(`://[^/\s@"]+@`)
	credential = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}|\b(password|passwd|token|secret|apikey|api_key|access_key|signature|sig)=[^\s&"…]+`)
	quoted     = regexp.MustCompile(`((?:Invalid|Unsupported|Duplicate) value: )(?:"(?:[^"\\]|\\.)*"|[^:\s]+(: |$))`)
	whole      = regexp.MustCompile(`\{[^{}]{40,}\}|map\[[^\[\]]{40,}\]`)
	identity   = regexp.MustCompile(`AGE-SECRET-KEY-[0-9A-Z-]+`)
	pem        = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)`)
)

func shaped(s string) string {
	if strings.Contains(s, "KEY-") {
		s = identity.ReplaceAllString(pem.ReplaceAllString(s, mark), mark)
	}
	if strings.Contains(s, "://") {
		s = userinfo.ReplaceAllString(s, "://"+mark+"@")
	}
	if strings.Contains(s, "=") || strings.Contains(s, "earer ") || strings.Contains(s, "asic ") || strings.Contains(s, "EARER ") || strings.Contains(s, "ASIC ") {
		s = credential.ReplaceAllString(s, mark)
	}
	if strings.Contains(s, " value: ") {
		s = quoted.ReplaceAllString(s, "${1}"+mark+"${2}")
	}
	if strings.Contains(s, "{") || strings.Contains(s, "map[") {
		s = whole.ReplaceAllString(s, "{"+mark+"}")
	}
	return s
}

// piecesOf are the parts of values that are looked for: each whole, with its white space made one, its lines,
// and those of its words that look like nothing that somebody would write in a sentence.
func piecesOf(values []string) []string {
	var all []string
	add := func(p string) {
		if p = strings.TrimSpace(p); len(p) >= Least {
			all = append(all, p)
		}
	}
	for _, v := range values {
		add(v)
		if strings.ContainsAny(v, " \t\r\n") {
			add(strings.Join(strings.Fields(v), " "))
			for line := range strings.Lines(v) {
				add(line)
			}
		}
		for _, w := range strings.FieldsFunc(v, between) {
			if random(w) {
				add(w)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func between(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("\"'`{}[]()<>,;:&?|=@/\\", r)
}

// random: letters and digits among each other, or very long.
func random(w string) bool {
	digits, letters := 0, 0
	for _, r := range w {
		switch {
		case unicode.IsDigit(r):
			digits++
		case unicode.IsLetter(r):
			letters++
		}
	}
	return len(w) >= 10 && digits >= 2 && letters >= 2 || len(w) >= 32
}
