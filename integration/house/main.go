// Command house prints what `make house` shows: the longest functions, files and packages, the
// widest interfaces and structs, init functions and mutable package variables. Sizes are signals, not
// rules: a mark says that a room asks to be looked at, and the answer may be that it is fine.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/table"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	h, err := survey(os.DirFS(root))
	if err == nil {
		err = h.print(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "house:", err)
		os.Exit(1)
	}
}

// finding is one measured thing and where it stands.
type finding struct {
	size  int
	name  string
	place string
}

// house is everything measured, tests and generated files left out.
type house struct {
	functions, files, packages, interfaces, structs []finding
	inits, variables                                []finding
}

func survey(tree fs.FS) (*house, error) {
	h := &house{}
	packages := map[string]int{}
	err := fs.WalkDir(tree, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, nested := fs.Stat(tree, path.Join(file, "go.mod"))
			if file != "." && (nested == nil || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		lines, err := h.file(tree, file)
		if packages[path.Dir(file)] += lines; packages[path.Dir(file)] == 0 {
			delete(packages, path.Dir(file)) // generated files only
		}
		return err
	})
	for dir, lines := range packages {
		h.packages = append(h.packages, finding{lines, dir, ""})
	}
	return h, err
}

// file measures one file and returns its lines, none for a generated one.
func (h *house) file(tree fs.FS, file string) (int, error) {
	text, err := fs.ReadFile(tree, file)
	if err != nil {
		return 0, err
	}
	positions := token.NewFileSet()
	parsed, err := parser.ParseFile(positions, file, text, parser.ParseComments)
	if err != nil || ast.IsGenerated(parsed) {
		return 0, err
	}
	lines := positions.Position(parsed.FileEnd).Line
	h.files = append(h.files, finding{lines, file, ""})
	place := func(n ast.Node) string {
		return fmt.Sprintf("%s:%d", file, positions.Position(n.Pos()).Line)
	}
	for _, declaration := range parsed.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			size := positions.Position(d.End()).Line - positions.Position(d.Pos()).Line + 1
			h.functions = append(h.functions, finding{size, functionName(d), place(d)})
			if d.Name.Name == "init" && d.Recv == nil {
				h.inits = append(h.inits, finding{size, "init", place(d)})
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				h.spec(spec, place(spec))
			}
		}
	}
	return lines, nil
}

func (h *house) spec(spec ast.Spec, place string) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		switch t := s.Type.(type) {
		case *ast.InterfaceType:
			h.interfaces = append(h.interfaces, finding{t.Methods.NumFields(), s.Name.Name, place})
		case *ast.StructType:
			h.structs = append(h.structs, finding{t.Fields.NumFields(), s.Name.Name, place})
		}
	case *ast.ValueSpec:
		for i, name := range s.Names {
			if name.Name != "_" && name.Obj != nil && name.Obj.Kind == ast.Var && !fixed(s, i) {
				h.variables = append(h.variables, finding{0, name.Name, place})
			}
		}
	}
}

// fixed tells whether a package variable is one only because Go has no such constant: an error, a
// compiled pattern, a key in bytes, a literal that is a table.
func fixed(s *ast.ValueSpec, i int) bool {
	if i >= len(s.Values) {
		return false
	}
	switch v := s.Values[i].(type) {
	case *ast.CallExpr:
		switch callee := v.Fun.(type) {
		case *ast.SelectorExpr:
			return slices.Contains([]string{"New", "MustCompile", "MustParse", "Errorf"}, callee.Sel.Name)
		case *ast.ArrayType:
			return true
		}
	case *ast.CompositeLit:
		return true
	}
	return false
}

func functionName(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	receiver := d.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	name, _ := receiver.(*ast.Ident)
	if name == nil {
		return d.Name.Name
	}
	return name.Name + "." + d.Name.Name
}

func (h *house) print(out io.Writer) error {
	const longest = 10
	for _, section := range []struct {
		title    string
		unit     string
		signal   int // above it, a mark
		findings []finding
		limit    int
	}{
		{"longest functions", "lines", 80, h.functions, longest},
		{"longest files", "lines", 400, h.files, longest},
		{"longest packages", "lines", 800, h.packages, longest},
		{"widest interfaces", "methods", 4, h.interfaces, longest},
		{"widest structs", "fields", 14, h.structs, longest},
		{"init functions", "lines", 0, h.inits, -1},
		{"mutable package variables", "", 0, h.variables, -1},
	} {
		found := section.findings
		slices.SortFunc(found, func(a, b finding) int {
			if a.size != b.size {
				return b.size - a.size
			}
			return strings.Compare(a.place+a.name, b.place+b.name)
		})
		if section.limit >= 0 && len(found) > section.limit {
			found = found[:section.limit]
		}
		fmt.Fprintf(out, "\n%s (%d in all)\n", section.title, len(section.findings))
		if len(found) == 0 {
			continue
		}
		headers, rows := columns(section.unit, section.signal, found)
		if err := table.Write(out, headers, rows, false); err != nil {
			return err
		}
	}
	return nil
}

// columns leaves out those that would be empty throughout.
func columns(unit string, signal int, found []finding) (headers []string, rows [][]string) {
	placed := found[0].place != ""
	for _, f := range found {
		var row []string
		if unit != "" {
			row = append(row, fmt.Sprint(f.size))
		}
		row = append(row, f.name)
		if placed {
			row = append(row, f.place)
		}
		if signal > 0 && f.size > signal {
			row = append(row, fmt.Sprintf("over %d", signal))
		} else if signal > 0 {
			row = append(row, "")
		}
		rows = append(rows, row)
	}
	if unit != "" {
		headers = append(headers, strings.ToUpper(unit))
	}
	headers = append(headers, "NAME")
	if placed {
		headers = append(headers, "PLACE")
	}
	if signal > 0 {
		headers = append(headers, "LOOK")
	}
	return headers, rows
}
