// Package printer writes what a command answers in the format that was asked for: a table for people,
// JSON or YAML for programs, names for shells. It asks nobody anything.
package printer

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/table"
)

// formats are the values of --output.
var formats = []string{"table", "wide", "json", "yaml", "name"}

// Printer is one command's output settings.
type Printer struct {
	Out       io.Writer
	Format    string // table, wide, json, yaml, name
	NoHeaders bool
}

// Answer is one answer in all its forms.
type Answer struct {
	Message     proto.Message // for json and yaml
	Headers     []string
	WideHeaders []string // further columns of wide; may be empty
	Rows        [][]string
	WideRows    [][]string // further cells, row by row
	Names       []string
	Empty       string // what a table says instead of nothing
	// Fill, where it is not nil, makes Rows, WideRows and Names. JSON and YAML have none of them, which is felt with a
	// fleet of ten thousand clusters.
	Fill func(*Answer)
}

// Check refuses a format that there is not.
func (p Printer) Check() error {
	if !slices.Contains(formats, p.Format) {
		return exitcode.With(exitcode.Usage, fmt.Errorf("output format %q: want one of %s", p.Format, strings.Join(formats, ", ")))
	}
	return nil
}

// Human: the output is for people to read.
func (p Printer) Human() bool { return p.Format == "table" || p.Format == "wide" }

// Print writes the answer.
func (p Printer) Print(a Answer) error {
	switch p.Format {
	case "json":
		return writeJSON(p.Out, a.Message)
	case "yaml":
		b, err := JSON(a.Message)
		if err != nil {
			return err
		}
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("writing yaml: %w", err)
		}
		_, err = p.Out.Write(b)
		return err
	}
	if a.Fill != nil {
		a.Fill(&a)
	}
	if p.Format == "name" {
		for _, n := range a.Names {
			if _, err := fmt.Fprintln(p.Out, n); err != nil {
				return err
			}
		}
		return nil
	}
	if len(a.Rows) == 0 && a.Empty != "" {
		_, err := fmt.Fprintln(p.Out, a.Empty)
		return err
	}
	headers, rows := a.Headers, a.Rows
	if p.Format == "wide" {
		headers = append(slices.Clone(headers), a.WideHeaders...)
		rows = make([][]string, len(a.Rows))
		for i, r := range a.Rows {
			rows[i] = append(slices.Clone(r), a.WideRows[i]...)
		}
	}
	return table.Write(p.Out, headers, rows, p.NoHeaders)
}
