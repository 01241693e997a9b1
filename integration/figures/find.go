package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// source is one place that prints a figure.
type source struct {
	dir      string
	function string // the Test… or Benchmark… it stands in; empty: a helper, so any of the package
	name     string // the figure's; empty: known at run time only
}

const figureName = `[a-z0-9]+(?:-[a-z0-9]+)*\.[a-z0-9]+(?:[-.][a-z0-9]+)*`

var (
	figureLiteral = regexp.MustCompile(`^FIGURE (` + figureName + `) `)
	wholeName     = regexp.MustCompile(`^` + figureName + `$`)
)

// find reads every test file of the module.
func find(tree fs.FS) ([]source, error) {
	var out []source
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
		if !strings.HasSuffix(file, "_test.go") || path.Dir(file) == "integration/figures" {
			return nil
		}
		text, err := fs.ReadFile(tree, file)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range parsed.Decls {
			out = append(out, inDeclaration(path.Dir(file), declaration)...)
		}
		return nil
	})
	return out, err
}

func inDeclaration(dir string, declaration ast.Decl) (out []source) {
	function := ""
	if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil && runnable(f.Name.Name) {
		function = f.Name.Name
	}
	add := func(name string) {
		s := source{dir: dir, function: function, name: name}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	ast.Inspect(declaration, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			text := literal(n)
			if match := figureLiteral.FindStringSubmatch(text); match != nil {
				add(match[1])
			} else if strings.HasPrefix(text, "FIGURE ") {
				add("")
			}
		case *ast.CallExpr:
			if name, ok := figureCall(n); ok {
				add(name)
			}
		}
		return true
	})
	return out
}

// figureCall recognises Figure(t, "area.what", …), in whatever package it is.
func figureCall(call *ast.CallExpr) (name string, ok bool) {
	callee, _ := call.Fun.(*ast.Ident)
	if selector, isSelector := call.Fun.(*ast.SelectorExpr); isSelector {
		callee = selector.Sel
	}
	if callee == nil || !strings.EqualFold(callee.Name, "figure") {
		return "", false
	}
	for _, argument := range call.Args {
		if text := literal(argument); wholeName.MatchString(text) {
			return text, true
		}
	}
	return "", true
}

func literal(e ast.Expr) string {
	basic, ok := e.(*ast.BasicLit)
	if !ok || basic.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(basic.Value)
	return text
}

func runnable(name string) bool {
	return strings.HasPrefix(name, "Test") && name != "TestMain" || strings.HasPrefix(name, "Benchmark")
}

// names lists the figures that are known by name.
func names(sources []source) (out []string) {
	for _, s := range sources {
		if s.name != "" {
			out = append(out, s.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
