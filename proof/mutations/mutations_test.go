// Package mutations un-learns what was learnt, one lesson at a time, and sees
// that something notices: make mutations.
//
// Each file NAME.txt is one small change to the library's files: which lesson or
// section it un-learns, which of the proofs catches it (the sweep, the
// simulation, or a test by name), and lines to take out (-), to put in (+) and
// around them (blank). A change must fit exactly one place.
package mutations

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// root is the library's directory, which the files of a mutation are named from.
const root = "../.."

// document holds the table of who catches what.
var document = filepath.Join(root, "docs", "mutations.md")

var (
	mutate         = flag.String("mutations", "", "run these mutations in TestMutations: all, ci, new for those without a line in docs/mutations.md, or some by their names, with commas")
	allProofs      = flag.Bool("mutations.proofs", false, "try the sweep and the simulation on each, also on those that a test of their own catches")
	mutationsTable = flag.String("mutations.table", "", "write who catches what to the table in this file")
)

type mutation struct {
	name, title, unlearns string
	dir                   string // of the package, "." for the root
	by                    string // sweep, simulation, a test's name, or nobody
	ci                    bool
	changes               []change
}

type change struct{ file, before, after string }

func readMutations(t *testing.T) []*mutation {
	files, err := filepath.Glob("*.txt")
	require.NoError(t, err, "mutations")
	require.GreaterOrEqual(t, len(files), 25, "mutations")
	var all []*mutation
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		m, err := parseMutation(strings.TrimSuffix(filepath.Base(file), ".txt"), string(text))
		require.NoError(t, err, file)
		all = append(all, m)
	}
	return all
}

func parseMutation(name, text string) (*mutation, error) {
	m := &mutation{name: name, dir: "."}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if file, ok := strings.CutPrefix(line, "== "); ok {
			m.changes = append(m.changes, change{file: file})
			continue
		}
		if len(m.changes) == 0 {
			key, value, _ := strings.Cut(line, ": ")
			switch strings.TrimSuffix(key, ":") {
			case "title":
				m.title = value
			case "unlearns":
				m.unlearns = value
			case "package":
				m.dir = value
			case "caught by":
				m.by = value
			case "ci":
				m.ci = value == "yes"
			case "":
			default:
				return nil, fmt.Errorf("what is %q?", line)
			}
			continue
		}
		c := &m.changes[len(m.changes)-1]
		switch {
		case line == "":
		case line[0] == ' ':
			c.before += line[1:] + "\n"
			c.after += line[1:] + "\n"
		case line[0] == '-':
			c.before += line[1:] + "\n"
		case line[0] == '+':
			c.after += line[1:] + "\n"
		default:
			return nil, fmt.Errorf("what is %q?", line)
		}
	}
	if m.title == "" || m.by == "" || len(m.changes) == 0 {
		return nil, errors.New("title, catcher or changes are missing")
	}
	return m, nil
}

// apply returns the mutated files by name.
func (m *mutation) apply() (map[string]string, error) {
	files := make(map[string]string)
	for _, c := range m.changes {
		text, ok := files[c.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if n := strings.Count(text, c.before); n != 1 || c.before == c.after {
			return nil, fmt.Errorf("fits %d places of %s:\n%s", n, c.file, c.before)
		}
		files[c.file] = strings.Replace(text, c.before, c.after, 1)
	}
	return files, nil
}

// TestMutationsApply keeps the mutations from rotting.
func TestMutationsApply(t *testing.T) {
	for _, m := range readMutations(t) {
		_, err := m.apply()
		assert.NoError(t, err, m.name)
	}
}

// catchers are the proofs that may catch any mutation of the root.
var catchers = []string{"sweep", "simulation"}

// arguments are what the mutated test binary is run with.
func (m *mutation) arguments(catcher string) []string {
	args := []string{"-test.timeout=10m"}
	if m.dir == "." {
		args = append(args, "-proof.failures=1", "-proof.patience=40s")
	}
	switch catcher {
	case "sweep":
		return append(args, "-test.run=^TestSweep$", "-sweep.pairs=100")
	case "simulation":
		return append(args, "-test.run=^TestSimulate$", "-simulate.n=1500", "-simulate.for=45s")
	}
	return append(args, "-test.run=^"+strings.ReplaceAll(catcher, "/", "$/^")+"$")
}

func TestMutations(t *testing.T) {
	if *mutate == "" {
		t.Skip("run by make mutations; here with -mutations=all, ci or names")
	}
	var picked []*mutation
	all, table := readMutations(t), readTable(t, document)
	for _, m := range all {
		switch {
		case *mutate == "all", *mutate == "ci" && m.ci, *mutate == "new" && !m.hasRow(table), slices.Contains(strings.Split(*mutate, ","), m.name):
			picked = append(picked, m)
		}
	}
	require.NotEmpty(t, picked, "no mutation %q", *mutate)
	start := time.Now()
	var mu sync.Mutex // of the file: each line is written at once, so that a run that is interrupted has said what it saw
	var workers sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, m := range picked {
		workers.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found, ok := m.tryOn(t, m.tried(*allProofs))
			if *mutationsTable == "" || !ok {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			table := readTable(t, *mutationsTable)
			table[m.name] = m.row(found)
			assert.NoError(t, os.WriteFile(*mutationsTable, writeTable(all, table), 0o644)) //nolint:gosec // a document
		})
	}
	workers.Wait()
	t.Logf("%d mutations in %v", len(picked), time.Since(start).Round(time.Second))
}

// tried are those who are to catch it: who is said to, and if asked for, the proofs besides.
// One that nobody is to catch is tried on those in any case.
func (m *mutation) tried(proofs bool) []string {
	var tried []string
	if m.by != "nobody" {
		tried = append(tried, m.by)
	}
	if m.dir != "." || m.by != "nobody" && !proofs { // the proofs are of the root
		return tried
	}
	for _, proof := range catchers {
		if proof != m.by {
			tried = append(tried, proof)
		}
	}
	return tried
}

// tryOn builds the mutated tests, runs catchers on them, and returns what each
// has found, and whether that is what the mutation says.
func (m *mutation) tryOn(t *testing.T, tried []string) (found map[string]string, ok bool) {
	found = make(map[string]string)
	start := time.Now()
	binary, err := m.build(t)
	if err != nil {
		t.Errorf("%s: %v", m.name, err)
		return found, false
	}
	for _, catcher := range tried {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
		cmd := exec.CommandContext(ctx, binary, m.arguments(catcher)...) //nolint:gosec // what was built above
		cmd.Dir = filepath.Join(root, m.dir)
		output, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			found[catcher] = complaint(output)
		}
	}
	switch {
	case m.by == "nobody" && len(found) > 0:
		t.Errorf("%s changes nothing, and is caught: %v", m.name, found)
	case m.by != "nobody" && found[m.by] == "":
		t.Errorf("%s is not caught by %s (but by %v): %s", m.name, m.by, found, m.title)
	default:
		t.Logf("%s: %s: %v (%v)", m.name, m.title, found, time.Since(start).Round(time.Second))
		return found, true
	}
	return found, false
}

// build compiles the package's tests with the mutated files in place of ours.
func (m *mutation) build(t *testing.T) (binary string, err error) {
	files, err := m.apply()
	if err != nil {
		return "", err
	}
	dir := t.TempDir()
	library, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for name, text := range files {
		replaced := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(replaced), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(replaced, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(library, name)] = replaced
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), b, 0o600); err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "mutated.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./"+m.dir) //nolint:gosec // our own files
	cmd.Dir = library
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not compile: %w\n%s", err, output)
	}
	return binary, nil
}

var (
	violationLine = regexp.MustCompile(`VIOLATION: ([^:]+):`)
	failureLine   = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	panicLine     = regexp.MustCompile(`(?m)^panic: (.*)$`)
)

// complaint is what a failed run complained of, in a few words.
func complaint(output []byte) string {
	if found := violationLine.FindSubmatch(output); found != nil {
		return string(found[1])
	}
	if found := panicLine.FindSubmatch(output); found != nil {
		return "panic: " + strings.SplitN(string(found[1]), ": go test", 2)[0]
	}
	if found := failureLine.FindAllSubmatch(output, -1); found != nil {
		return string(found[len(found)-1][1])
	}
	return "fails"
}

const tableHead = `# Mutations: who catches what

For reviewers: whether the tests would notice. Made by ` + "`make mutations`" + `; a run of some of them, ` + "`MUTATIONS=NAME,NAME`" + `, or of those without a
line, ` + "`MUTATIONS=new`" + `, replaces their lines. Each line is a change to the library that un-learns one thing (proof/mutations/NAME.txt), and what catches
it: a test of its own, the fault sweep (TestSweep) or the simulation (TestSimulate), and what that said. The numbers of the lessons are those of the tests
that teach them; sections are those of docs/protocol.md. ` + "`-`" + `: changes nothing, and is caught by nothing.

| mutation | it un-learns | caught by |
|---|---|---|
`

// label is how a mutation's line of the table begins.
func (m *mutation) label() string {
	return fmt.Sprintf("| %s: %s | %s | ", m.name, m.title, m.unlearns)
}

// hasRow reports whether a table has its line, which says that it was caught by what is to catch it.
func (m *mutation) hasRow(table map[string]string) bool {
	said, ok := strings.CutPrefix(table[m.name], m.label())
	return ok && (m.by == "nobody" || strings.Contains(said, m.by))
}

// row is a mutation's line of the table.
func (m *mutation) row(found map[string]string) string {
	var said []string
	for _, catcher := range m.tried(true) {
		switch complaint := found[catcher]; complaint {
		case "":
		case catcher:
			said = append(said, catcher)
		default:
			said = append(said, catcher+": "+complaint)
		}
	}
	return m.label() + orDash(strings.Join(said, "; ")) + " |\n"
}

// readTable is the lines of a table, by the mutations' names.
func readTable(t *testing.T, file string) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return rows
	}
	assert.NoError(t, err)
	_, table, _ := strings.Cut(string(text), "|---|---|---|\n")
	for line := range strings.Lines(table) {
		name, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), ":")
		assert.True(t, ok, line)
		rows[name] = line
	}
	return rows
}

// writeTable is the table of those mutations that have a line.
func writeTable(all []*mutation, rows map[string]string) []byte {
	b := bytes.NewBufferString(tableHead)
	for _, m := range all {
		b.WriteString(rows[m.name])
	}
	return b.Bytes()
}

// TestTableIsOfTheseMutations: the document has a line for each, of what it does now, and none for what is gone.
func TestTableIsOfTheseMutations(t *testing.T) {
	rows := readTable(t, document)
	for _, m := range readMutations(t) {
		assert.True(t, m.hasRow(rows), "%s has none that is true: make mutations MUTATIONS=new", m.name)
		delete(rows, m.name)
	}
	assert.Empty(t, rows)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return strings.ReplaceAll(s, "|", "/")
}
