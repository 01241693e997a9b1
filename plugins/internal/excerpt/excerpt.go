// Package excerpt makes what other programs wrote fit to be shown: one line, a bounded end of a long
// text, and without the secrets that are known. It does not look for what might be a secret.
package excerpt

import (
	"cmp"
	"encoding/base64"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
)

// OneLine is the beginning of a text, fit for a message: no control characters, at most so many
// characters.
func OneLine(text string, most int) string {
	s := strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))), " ")
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return s
}

// Tail reads to the end and keeps the last so many bytes.
func Tail(from io.Reader, most int) (string, error) {
	kept := make([]byte, 0, 2*most)
	block := make([]byte, 32<<10)
	for {
		n, err := from.Read(block)
		kept = append(kept, block[:n]...)
		if len(kept) > 2*most {
			kept = kept[:copy(kept, kept[len(kept)-most-1:])] // one more than are wanted: End sees that it was cut
		}
		if errors.Is(err, io.EOF) {
			return End(string(kept), most), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// End is the last so many bytes of a text, from the beginning of a line where it has several.
func End(text string, most int) string {
	if len(text) <= most {
		return strings.ToValidUTF8(text, "?")
	}
	text = text[len(text)-most:]
	if _, rest, ok := strings.Cut(text, "\n"); ok && rest != "" {
		text = rest
	}
	return strings.TrimLeft(strings.ToValidUTF8(text, ""), "\r\n")
}

// shortest is how long a secret is at least: what is shorter is in every text by chance.
const shortest = 5

// Redactor takes secrets out of texts.
type Redactor struct{ replace *strings.Replacer }

// NewRedactor knows each of the values as it is, line by line, in base64 and as it is in a URL.
func NewRedactor(values ...string) Redactor {
	seen := map[string]bool{}
	add := func(s string) {
		if len(s) >= shortest {
			seen[s] = true
		}
	}
	for _, v := range values {
		v = strings.TrimSpace(v)
		if len(v) < shortest {
			continue
		}
		add(v)
		add(base64.StdEncoding.EncodeToString([]byte(v)))
		add(base64.RawURLEncoding.EncodeToString([]byte(v)))
		add(url.QueryEscape(v))
		add(url.PathEscape(v))
		if strings.Contains(v, "\n") {
			for line := range strings.Lines(v) {
				if line = strings.TrimSpace(line); len(line) > 2*shortest { // a key's, not the words around it
					add(line)
				}
			}
		}
	}
	all := make([]string, 0, len(seen))
	for s := range seen {
		all = append(all, s)
	}
	// The longest first: of two at one place the whole goes.
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	pairs := make([]string, 0, 2*len(all))
	for _, s := range all {
		pairs = append(pairs, s, "***")
	}
	return Redactor{strings.NewReplacer(pairs...)}
}

// Redact is the text without them. The zero Redactor knows none.
func (r Redactor) Redact(text string) string {
	if r.replace == nil {
		return text
	}
	return r.replace.Replace(text)
}

// Line is OneLine of the text without secrets: they go first, so that none is cut in half and stays.
func (r Redactor) Line(text string, most int) string { return OneLine(r.Redact(text), most) }
