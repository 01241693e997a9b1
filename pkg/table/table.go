// Package table writes rows for people: aligned columns, two spaces apart, no trailing blanks, no
// colour. It measures in runes.
package table

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Write prints headers, unless noHeaders, and rows. A row may be shorter than the headers; an empty
// cell prints as "-".
func Write(w io.Writer, headers []string, rows [][]string, noHeaders bool) error {
	all := rows
	if !noHeaders {
		all = append([][]string{headers}, rows...)
	}
	widths := make([]int, len(headers))
	for _, row := range all {
		for i := range headers {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell(row, i)))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i := range headers {
			c := cell(row, i)
			b.WriteString(c)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2))
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

func cell(row []string, i int) string {
	if i >= len(row) || row[i] == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' ' // a terminal must not be steered by what others report
		}
		return r
	}, row[i])
}
