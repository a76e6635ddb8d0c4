package election_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// What this package returns names it once in each line, at the beginning, however
// many of its own errors are wrapped in one another; errors.Is finds them all.
func TestErrorsNameThePackageOnce(t *testing.T) {
	once := func(t *testing.T, err error, causes ...error) {
		t.Helper()
		require.Error(t, err)
		for line := range strings.Lines(err.Error()) {
			assert.Equal(t, 1, strings.Count(line, "election: "), line)
			assert.True(t, strings.HasPrefix(line, "election: "), line)
		}
		for _, cause := range causes {
			require.ErrorIs(t, err, cause)
		}
	}
	virtually(t, func(t *testing.T, w *world) {
		_, err := election.Connect([]string{""}, time.Second, nil)
		once(t, err)
		_, err = election.NewSession(nil, time.Second, nil)
		once(t, err)
		n := w.session()
		_, err = election.NewCandidate(n.Session, "", nil)
		once(t, err, election.ErrInvalidName)
		_, err = election.NewCandidate(nil, "x", nil)
		once(t, err)
		_, err = election.NewCandidate(n.Session, "x", &election.CandidateOptions{Follow: 7})
		once(t, err)

		// Refused by this package, behind requests.
		a := w.member("a", &journal{}).lead()
		closed := w.member("closed", &journal{}, func(o *election.CandidateOptions) {
			o.ACL = zk.DigestACL(zk.PermAll, "user", "password")
		})
		once(t, closed.Vote(w.context()), election.ErrOpenElection)

		// A takeover that failed, by a panic and by an error of ours.
		for _, fail := range []func() error{
			func() error { panic(errors.New("broken")) },
			func() error { return election.ErrClosed },
		} {
			b := w.member("b", &journal{}, func(o *election.CandidateOptions) { o.Root, o.Retry = "/failing", -1 })
			b.OnWin(func(context.Context, election.Term) error { return fail() })
			_, err := b.Campaign(w.context())
			once(t, err, election.ErrTakeoverFailed)
		}

		// A wait whose cause is ours, with a last answer.
		signalled, end := context.WithCancelCause(context.Background())
		end(election.ErrResigned)
		once(t, a.node.AwaitConnected(signalled), context.Canceled, election.ErrResigned)
		_, err = a.Leader(signalled)
		once(t, err, context.Canceled, election.ErrResigned)
		cut := w.memberOn(w.unchecked(), "cut", &journal{}, func(o *election.CandidateOptions) { o.Root = "/cut" }).lead()
		cut.node.link.setDown(true) // or all may be done before the context is looked at
		once(t, cut.node.Shutdown(signalled), context.Canceled)

		// A refusal at the end.
		d := w.memberOn(w.unchecked(), "d", &journal{}, func(o *election.CandidateOptions) { o.Root = "/closing" }).lead()
		stop := w.srv.Control(testutil.OpMulti, func(*testutil.Request) testutil.Action { return testutil.Fail(zk.ErrNoAuth) })
		once(t, d.Close(), zk.ErrNoAuth)
		stop()

		// The owner of the connection closes it.
		conn := w.client()
		s, err := election.NewSession(conn, w.timeout(), &election.SessionOptions{Logger: w.logger()})
		require.NoError(t, err)
		require.NoError(t, s.AwaitConnected(w.context()))
		c, err := election.NewCandidate(s, "x", nil)
		require.NoError(t, err)
		conn.Close()
		time.Sleep(w.timeout())
		once(t, s.AwaitConnected(w.context()), zk.ErrClosing)
		once(t, c.Vote(w.context()), zk.ErrClosing)
		once(t, s.Close(), zk.ErrClosing)
	})
}

// An error that names the package itself is made by errorf, which keeps the name
// out of what it wraps.
func TestErrorsAreMadeInOnePlace(t *testing.T) {
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	calls := 0
	for _, file := range files {
		if name := file.Name(); !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file.Name(), nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if fn, ok := call.Fun.(*ast.SelectorExpr); ok && fn.Sel.Name == "Errorf" && len(call.Args) > 0 {
				calls++
				if format, ok := call.Args[0].(*ast.BasicLit); ok {
					assert.NotContains(t, format.Value, "election: ", "%v: use errorf", set.Position(call.Pos()))
				}
			}
			return true
		})
	}
	assert.Greater(t, calls, 20)
}

// Whoever adds a cause of a step-down is told of each place that lists them. The comments in errors.go say which errors are
// one.
func TestCausesAreTold(t *testing.T) {
	var causes []string
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, parser.ParseComments)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.Contains(strings.Join(strings.Fields(v.Doc.Text()), " "), "the cause of a step-down") {
			causes = append(causes, v.Names[0].Name)
		}
		return true
	})
	assert.Len(t, causes, 7)
	label := func(name string) string {
		return strings.TrimPrefix(regexp.MustCompile(`[A-Z]`).ReplaceAllStringFunc(strings.TrimPrefix(name, "Err"), func(c string) string {
			return "_" + strings.ToLower(c)
		}), "_")
	}
	missing := func(causes []string) (all []string) {
		for place, asWritten := range map[string]func(name string) string{
			"candidate.go":                          func(name string) string { return name },
			"contrib/prometheus/prometheus.go":      func(name string) string { return fmt.Sprintf("{election.%s, %q}", name, label(name)) },
			"contrib/prometheus/prometheus_test.go": func(name string) string { return "election." + name },
			"docs/operations.md":                    func(name string) string { return "`" + label(name) + "`" },
			"example_test.go":                       func(name string) string { return "election." + name + ")" },
			"logging_test.go":                       func(name string) string { return "\t\t" + name + ":" }, // TestLevelOfStepDown
			"proof_actors_test.go":                  func(name string) string { return name },
			"proof_simulate_situations_test.go":     func(name string) string { return `": ` + name + "," }, // noticeStepDown
			"world_test.go":                         func(name string) string { return "election." + name + ": " },
		} {
			text, err := os.ReadFile(place)
			require.NoError(t, err)
			if from := map[string]string{
				"candidate.go": "// OnStepDown registers", "proof_actors_test.go": "\nfunc knownCause(", "example_test.go": "\nfunc Example_causes(",
			}[place]; from != "" { // the comment of that, and that alone
				_, after, _ := strings.Cut(string(text), from)
				before, _, _ := strings.Cut(after, "\nfunc ")
				text = []byte(before)
			}
			for _, cause := range causes {
				if !strings.Contains(string(text), asWritten(cause)) {
					all = append(all, place+": "+cause)
				}
			}
		}
		return all
	}
	assert.Empty(t, missing(causes))
	assert.Len(t, missing([]string{"ErrMoonIsFull"}), 9)
}
