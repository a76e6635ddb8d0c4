package docs_test

import (
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPackageComment keeps what a reader of pkg.go.dev sees first: a block of
// code near the top, and short paragraphs.
func TestPackageComment(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../doc.go", nil, parser.ParseComments)
	require.NoError(t, err)
	page := new(comment.Parser).Parse(file.Doc.Text())
	code := slices.IndexFunc(page.Content, func(b comment.Block) bool { _, ok := b.(*comment.Code); return ok })
	assert.LessOrEqual(t, code, 3)
	require.GreaterOrEqual(t, code, 0)
	text := page.Content[code].(*comment.Code).Text
	// It is code: with what the reader has to put around it.
	_, err = parser.ParseFile(token.NewFileSet(), "", "package p\nfunc f() error {\n"+text+"\n}", 0)
	require.NoError(t, err)
	for _, name := range []string{"election.Connect(", "election.NewCandidate(", ".Run("} {
		assert.Contains(t, text, name)
	}
	printer := comment.Printer{TextWidth: -1}
	for _, block := range page.Content {
		if p, ok := block.(*comment.Paragraph); ok {
			paragraph := string(printer.Text(&comment.Doc{Content: []comment.Block{p}}))
			assert.LessOrEqual(t, len(strings.Fields(paragraph)), 110, paragraph)
		}
	}
}

// hidden returns what the examples of a file use that is declared elsewhere in
// it: pkg.go.dev shows each example without that.
func hidden(file *ast.File) (names []string) {
	declared := map[string]bool{}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				declared[d.Name.Name] = true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok {
					for _, name := range v.Names {
						declared[name.Name] = true
					}
				}
			}
		}
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "Example") {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok {
				ast.Inspect(selector.X, func(n ast.Node) bool {
					if name, ok := n.(*ast.Ident); ok && declared[name.Name] && name.Obj == nil {
						names = append(names, name.Name)
					}
					return true
				})
				return false
			}
			if name, ok := n.(*ast.Ident); ok && declared[name.Name] {
				names = append(names, name.Name)
			}
			return true
		})
	}
	return names
}

// TestExamplesStandAlone wants no example of the library to use a helper that
// the page does not show.
func TestExamplesStandAlone(t *testing.T) {
	parse := func(source any) *ast.File {
		file, err := parser.ParseFile(token.NewFileSet(), "../example_test.go", source, parser.SkipObjectResolution)
		require.NoError(t, err)
		return file
	}
	file := parse(nil)
	assert.Empty(t, hidden(file))
	assert.Equal(t, []string{"check"}, hidden(parse("package p\nfunc check() {}\nfunc Example() { check() }")))

	_, first, found := strings.Cut(read(t, "example_test.go"), "\nfunc Example() {")
	require.True(t, found)
	first, _, _ = strings.Cut(first, "\n}\n")
	for _, name := range []string{"Connect(", "NewCandidate(", "OnWin(", "OnLose(", "OnStepDown(", "Vote("} {
		assert.Contains(t, first, name)
	}
}
