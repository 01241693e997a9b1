// Package strictlines reads and writes texts that people sign: a first line that says what it is, then named values,
// each on a line, in one order and one form, so that no two texts mean the same. What the values may be is for those
// who have such a text.
package strictlines

import (
	"bytes"
	"fmt"
	"strings"
)

// Form is one kind of text.
type Form struct {
	Header string   // the first line
	Fields []string // the names of the lines after it, in their order
	Max    int      // bytes that are read
}

// Write has a value for each field, in their order.
func (f Form) Write(values ...string) []byte {
	var b bytes.Buffer
	b.WriteString(f.Header + "\n")
	for i, name := range f.Fields {
		b.WriteString(name + ": " + values[i] + "\n")
	}
	return b.Bytes()
}

// Read takes the values of a text by name. Whether the text is what Write makes of their meaning is for the caller
// to compare: a value may be written in two ways.
func (f Form) Read(text []byte) (map[string]string, error) {
	if len(text) > f.Max {
		return nil, fmt.Errorf("%d bytes, more than %d", len(text), f.Max)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != len(f.Fields)+2 || lines[0] != f.Header || lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("want the line %q, then %s, each on a line", f.Header, strings.Join(f.Fields, ", "))
	}
	values := map[string]string{}
	for i, name := range f.Fields {
		value, ok := strings.CutPrefix(lines[i+1], name+": ")
		if !ok {
			return nil, fmt.Errorf("line %d is not %q and its value", i+2, name+":")
		}
		values[name] = value
	}
	return values, nil
}
