package examples_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEverythingNamed wants every exported name of package election, fields
// and methods included, to occur in its testable examples.
func TestEverythingNamed(t *testing.T) {
	files := token.NewFileSet()
	paths, err := filepath.Glob("../*.go")
	require.NoError(t, err)
	var all []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		require.NoError(t, err)
		all = append(all, exported(file)...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	examples, err := parser.ParseFile(files, "../example_test.go", nil, 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 80, "the exported names that are found: %v", all)
	require.Contains(t, all, "Guard")
	assert.Empty(t, unnamed(all, examples), "what example_test.go has no word of")
	// The negative control.
	assert.Equal(t, []string{"NoSuchName"}, unnamed(append(all, "NoSuchName"), examples))
}

func exported(file *ast.File) []string {
	var names []string
	add := func(idents ...*ast.Ident) {
		for _, i := range idents {
			if i.IsExported() {
				names = append(names, i.Name)
			}
		}
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d)) {
				add(d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					add(s.Names...)
				case *ast.TypeSpec:
					if !s.Name.IsExported() {
						continue
					}
					add(s.Name)
					ast.Inspect(s.Type, func(n ast.Node) bool {
						if f, ok := n.(*ast.Field); ok {
							add(f.Names...)
						}
						return true
					})
				}
			}
		}
	}
	return names
}

func receiver(d *ast.FuncDecl) string {
	name := ""
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if i, ok := n.(*ast.Ident); ok && name == "" {
			name = i.Name
		}
		return true
	})
	return name
}

func unnamed(names []string, file *ast.File) []string {
	said := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if i, ok := n.(*ast.Ident); ok {
			said[i.Name] = true
		}
		return true
	})
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return said[name] })
}
