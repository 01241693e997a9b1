package agent

import (
	"regexp"
	"strings"
	"unicode"
)

const longest = 500 // characters of a message: room for the three or four things that a dry run says of an old release

var (
	credentials = regexp.MustCompile(`://[^/\s@"]+@`)
	quotedValue = regexp.MustCompile(`((?:Invalid|Unsupported|Duplicate) value: )("(?:[^"\\]|\\.)*"|[^:\s]+)`)
	inBraces    = regexp.MustCompile(`\{[^{}]{40,}\}|map\[[^\[\]]{40,}\]`)
)

// oneLine makes a text fit to leave the cluster (law 10): one line, bounded, without credentials in
// URLs and without values that error texts quote from manifests.
func oneLine(s string) string {
	s = credentials.ReplaceAllString(s, "://…@")
	s = quotedValue.ReplaceAllString(s, "$1…")
	s = inBraces.ReplaceAllString(s, "{…}")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if r := []rune(s); len(r) > longest {
		s = string(r[:longest-1]) + "…"
	}
	return s
}
