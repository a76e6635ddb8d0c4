// Package docs_test keeps the documents true where a program can tell: the code
// that they show is compiled and run, the log lines, tests and files that they
// name exist, and what they must list is listed.
package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documents are the files that are checked, by their path from the root.
var documents = []string{
	"README.md", "CHANGELOG.md", "docs/protocol.md", "docs/operations.md", "docs/testing.md",
	"docs/testing-your-service.md", "docs/from-ruby.md", "SECURITY.md", "CONTRIBUTING.md",
	"docs/performance.md", "docs/chaos.md", "docs/chaos-3.9.md", "docs/mutations.md", "proof/README.md",
}

// forWhom is how a document's first paragraph ends or begins.
var forWhom = regexp.MustCompile(`(?s)^# [^\n]*\n\n(?:[^\n]+\n)*?[^\n]*\bFor (?:those|reviewers)\b`)

func TestForWhom(t *testing.T) {
	for _, name := range documents {
		if name != "README.md" && !forWhom.MatchString(read(t, name)) {
			t.Errorf("%s does not say at its top for whom it is", name)
		}
	}
	assert.NotRegexp(t, forWhom, "# Planted\n\nIt says something.\n\nFor those who read on.", "a document that says it late passes")
}

// TestGlossary keeps the words of docs/protocol.md few.
func TestGlossary(t *testing.T) {
	head, _, _ := strings.Cut(read(t, "docs/protocol.md"), "\n## ")
	words := regexp.MustCompile(`(?m)^\| \*\*(.*?)\*\* \|`).FindAllStringSubmatch(head, -1)
	assert.GreaterOrEqual(t, len(words), 10)
	assert.LessOrEqual(t, len(words), 15)
}

// TestWorkflow keeps what others run with every change to what .ci/run is, on
// the oldest Go that go.mod names and newer.
func TestWorkflow(t *testing.T) {
	workflow := read(t, ".github/workflows/ci.yml")
	oldest := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))[1]
	for _, needed := range []string{"- run: .ci/run\n", `"` + oldest + `"`, "windows-latest", "macos-latest"} {
		assert.True(t, strings.Contains(workflow, needed), "the workflow has no %q", needed)
	}
	for _, script := range regexp.MustCompile(`(?m)^ +- run: (\S*/\S+)$`).FindAllStringSubmatch(workflow, -1) {
		info, err := os.Stat(filepath.Join("..", script[1]))
		require.NoError(t, err)
		assert.NotZero(t, info.Mode()&0o111, "%s cannot be run", script[1])
	}
}

func read(t *testing.T, patterns ...string) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join("..", pattern))
		require.NoError(t, err, "no file %s", pattern)
		require.NotEmpty(t, paths, "no file %s", pattern)
		for _, path := range paths {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			all.Write(content)
		}
	}
	return all.String()
}

// report fails the test for what a check found; the check must also have found
// what is planted for it.
func report(t *testing.T, found, control []string) {
	t.Helper()
	for _, fault := range found {
		t.Error(fault)
	}
	assert.NotEmpty(t, control, "the check sees nothing: what was planted for it went unseen")
}

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// codeNotIn returns the blocks of Go in a document that do not stand in source.
func codeNotIn(name, document, source string) (missing []string) {
	for _, block := range goBlock.FindAllStringSubmatch(document, -1) {
		if !strings.Contains(source, strings.TrimSpace(block[1])+"\n") {
			missing = append(missing, fmt.Sprintf("%s shows what no test compiles:\n%s", name, block[1]))
		}
	}
	return missing
}

func TestCode(t *testing.T) {
	source := read(t, "docs/*_test.go")
	var missing []string
	blocks := 0
	for _, name := range documents {
		document := read(t, name)
		blocks += len(goBlock.FindAllString(document, -1))
		missing = append(missing, codeNotIn(name, document, source)...)
	}
	assert.GreaterOrEqual(t, blocks, 6, "blocks of Go found")
	report(t, missing, codeNotIn("control", "```go\nfunc "+"serve(mistake int) {\n```", source))
}

var logCall = regexp.MustCompile(`(?s)\.(Info|Warn|Error)\("((?:election|guard): [^"]*)"`)

// logLinesNotIn returns the log lines of source that a document does not list
// with their level.
func logLinesNotIn(document, source string) (missing []string) {
	for _, call := range logCall.FindAllStringSubmatch(source, -1) {
		if !strings.Contains(document, fmt.Sprintf("| %s | `%s` |", call[1], call[2])) {
			missing = append(missing, fmt.Sprintf("operations.md does not list %s %q", call[1], call[2]))
		}
	}
	return missing
}

var logRow = regexp.MustCompile("\\| (Info|Warn|Error) \\| `((?:election|guard): [^`]*)` \\|")

func TestLogLines(t *testing.T) {
	paths, err := filepath.Glob("../*.go")
	require.NoError(t, err)
	guards, err := filepath.Glob("../guard/*.go")
	require.NoError(t, err)
	paths = append(paths, guards...)
	var source strings.Builder
	for _, path := range paths {
		if !strings.HasSuffix(path, "_test.go") {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			source.Write(content)
		}
	}
	document := read(t, "docs/operations.md")
	found := logLinesNotIn(document, source.String())
	rows := logRow.FindAllStringSubmatch(document, -1)
	for _, row := range rows {
		if !strings.Contains(source.String(), fmt.Sprintf(".%s(%q", row[1], row[2])) {
			found = append(found, fmt.Sprintf("operations.md lists %s %q, which is not logged", row[1], row[2]))
		}
	}
	assert.GreaterOrEqual(t, len(rows), 20, "rows found")
	report(t, found, logLinesNotIn(document, `.Warn("election: planted", "key", value)`))
}

var (
	testName  = regexp.MustCompile("`(Test[A-Z]\\w*)")
	lessonRow = regexp.MustCompile(`(?m)^\| (\d+) \|.*\|(.*)\|$`)
	quoted    = regexp.MustCompile("`([^`]*)`")
)

// noTests is what the table of lessons quotes besides tests.
var noTests = []string{"_c_short", "goleak", "make test", "-count=1"}

// testsNotIn returns the tests that a document names and source does not have, and
// what its table of lessons names that is no test.
func testsNotIn(document, source string) (missing []string) {
	for _, m := range testName.FindAllStringSubmatch(document, -1) {
		if !strings.Contains(source, "func "+m[1]+"(") {
			missing = append(missing, "there is no test "+m[1])
		}
	}
	for _, row := range lessonRow.FindAllStringSubmatch(document, -1) {
		for _, m := range quoted.FindAllStringSubmatch(row[2], -1) {
			if !strings.HasPrefix(m[1], "Test") && !slices.Contains(noTests, m[1]) {
				missing = append(missing, fmt.Sprintf("lesson %s: %s is no test", row[1], m[1]))
			}
		}
	}
	return missing
}

func TestTests(t *testing.T) {
	source := read(t, "*_test.go", "*/*_test.go", "internal/*/*_test.go", "proof/*/*_test.go")
	var missing []string
	for _, name := range documents {
		missing = append(missing, testsNotIn(read(t, name), source)...)
	}
	lessons := lessonRow.FindAllStringSubmatch(read(t, "docs/testing.md"), -1)
	for i, lesson := range lessons {
		assert.Equal(t, fmt.Sprint(i+1), lesson[1], "the lessons' numbers")
	}
	assert.Equal(t, 44, len(lessons), "lessons")
	for _, planted := range []string{"`TestOfNothing`", "| 45 | planted | `lesson/planted` |"} {
		report(t, nil, testsNotIn(planted, source))
	}
	for _, fault := range missing {
		t.Error(fault)
	}
}

var (
	sourceFile = regexp.MustCompile("`([\\w/]+(?:\\.go)?|\\.ci/run)`")
	makeTarget = regexp.MustCompile("`make ([\\w-]+)`")
)

// placesNotThere returns the files, directories and targets of make that a
// document sends its readers to, and that are not there.
func placesNotThere(document, makefile string) (missing []string) {
	for _, row := range strings.Split(document, "\n") {
		if !strings.HasPrefix(row, "| ") {
			continue
		}
		for _, m := range sourceFile.FindAllStringSubmatch(row, -1) {
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil && m[1] != "session_" {
				missing = append(missing, "there is no "+m[1])
			}
		}
		for _, m := range makeTarget.FindAllStringSubmatch(row, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				missing = append(missing, "there is no make "+m[1])
			}
		}
	}
	return missing
}

func TestPlaces(t *testing.T) {
	document, makefile := read(t, "CONTRIBUTING.md"), read(t, "Makefile")
	assert.GreaterOrEqual(t, len(sourceFile.FindAllString(document, -1)), 25, "the files that are named")
	report(t, placesNotThere(document, makefile), placesNotThere("| x | `planted.go` |", makefile))
	report(t, nil, placesNotThere("| `make planted` |", makefile))
}
