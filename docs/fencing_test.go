package docs_test

import (
	"bufio"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// errFenced is what a leader of the past is told by the store.
var errFenced = errors.New("a newer leader has been here")

// fenced runs a transaction of a leader, unless a newer leader has been here.
func fenced(ctx context.Context, db *sql.DB, token int64, work func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	done, err := tx.ExecContext(ctx, `UPDATE leader_token SET token = $1
		WHERE election = 'database_election' AND token <= $1`, token)
	if err != nil {
		return err
	}
	if rows, err := done.RowsAffected(); err != nil || rows == 0 {
		return errors.Join(errFenced, err)
	}
	if err := work(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// block returns the first block of a language in operations.md.
func block(t *testing.T, language string) string {
	t.Helper()
	m := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindStringSubmatch(read(t, "docs/operations.md"))
	require.NotNil(t, m, "operations.md has no block of %s", language)
	return m[1]
}

// sqlite executes the statements of operations.md as two leaders would.
const sqlite = `
import sqlite3, sys
text = sys.argv[1].split(";")
create, insert, update = [s.strip() for s in text if s.strip()]
path = sys.argv[2]
db = sqlite3.connect(path, isolation_level=None)
db.execute(create)
db.execute(insert)
def write(token):
    c = sqlite3.connect(path, isolation_level=None)
    c.execute("BEGIN")
    rows = c.execute(update, {"token": token}).rowcount
    c.execute("COMMIT" if rows else "ROLLBACK")
    return rows
print(write(5), write(5), write(9), write(5), write(9), write(12), write(11))
`

// TestFencingInSQL has a database say what operations.md says of it.
func TestFencingInSQL(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv("ELECTION_REQUIRE_CHECKERS") != "1" {
		t.Skip("no python3, whose library has a database")
	}
	require.NoError(t, err)
	statements := block(t, "sql")
	run := func(statements string) string {
		out, err := exec.CommandContext(t.Context(), python, "-c", sqlite, statements, filepath.Join(t.TempDir(), "db")).CombinedOutput()
		require.NoError(t, err, string(out))
		return strings.TrimSpace(string(out))
	}
	assert.Equal(t, "1 1 1 0 1 1 0", run(statements))
	// The control: without the comparison the past writes, too.
	assert.Equal(t, "1 1 1 1 1 1 1", run(strings.ReplaceAll(statements, "AND token <= :token", "")))

	// What the Go code sends is that statement.
	source := read(t, "docs/fencing_test.go")
	sent := regexp.MustCompile("(?s)ExecContext\\(ctx, `(.*?)`").FindStringSubmatch(source)[1]
	words := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	assert.Contains(t, words(statements), words(strings.ReplaceAll(sent, "$1", ":token")))
}

// ledger is a database/sql driver that knows the one statement of fenced.
type ledger struct {
	token     int64
	pending   int64
	committed int
}

func (l *ledger) Open(string) (driver.Conn, error)    { return l, nil }
func (l *ledger) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (l *ledger) Close() error                        { return nil }
func (l *ledger) Begin() (driver.Tx, error)           { l.pending = l.token; return l, nil }

func (l *ledger) Commit() error                                { l.token = l.pending; l.committed++; return nil }
func (l *ledger) Rollback() error                              { return nil }
func (l *ledger) Driver() driver.Driver                        { return l }
func (l *ledger) Connect(context.Context) (driver.Conn, error) { return l, nil }

func (l *ledger) ExecContext(_ context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	token := args[0].Value.(int64)
	if !strings.HasPrefix(query, "UPDATE leader_token") || token < l.token {
		return driver.RowsAffected(0), nil
	}
	l.pending = token
	return driver.RowsAffected(1), nil
}

func TestFenced(t *testing.T) {
	store := &ledger{}
	db := sql.OpenDB(store)
	defer db.Close()
	worked := 0
	work := func(*sql.Tx) error { worked++; return nil }
	require.NoError(t, fenced(t.Context(), db, 5, work))
	require.NoError(t, fenced(t.Context(), db, 9, work))
	require.ErrorIs(t, fenced(t.Context(), db, 5, work), errFenced)
	assert.Equal(t, 2, worked)
	// A transaction that fails leaves no token behind.
	failed := errors.New("the work has failed")
	require.ErrorIs(t, fenced(t.Context(), db, 12, func(*sql.Tx) error { return failed }), failed)
	require.NoError(t, fenced(t.Context(), db, 9, work))
	assert.Equal(t, 3, store.committed)
}

// redis starts a Redis on a socket of its own, and returns a function that
// sends it a command.
func redis(t *testing.T) func(args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "redis-server")
	if cmd.Err != nil { // not in the PATH
		program, err := filepath.Abs("../.cache/checkers/redis-server")
		require.NoError(t, err)
		if _, err := os.Stat(program); errors.Is(err, os.ErrNotExist) && os.Getenv("ELECTION_REQUIRE_CHECKERS") != "1" {
			t.Skip("there is no Redis; scripts/install-checkers fetches it")
		}
		cmd = exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(filepath.Dir(program), "lib"))
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	cmd.Args = append(cmd.Args, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", dir)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })

	var conn net.Conn
	require.Eventually(t, func() bool {
		var err error
		conn, err = net.Dial("unix", socket)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	t.Cleanup(func() { _ = conn.Close() })
	answers := bufio.NewReader(conn)
	return func(args ...string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "*%d\r\n", len(args))
		for _, arg := range args {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
		}
		_, err := io.WriteString(conn, b.String())
		require.NoError(t, err)
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		if strings.HasPrefix(line, "$") && !strings.HasPrefix(line, "$-1") {
			line, err = answers.ReadString('\n')
			require.NoError(t, err)
		}
		return strings.TrimSpace(line)
	}
}

// redisToken is how a token is written for the script: all of one length, so
// that strings compare as the numbers do.
func redisToken(token int64) string { return fmt.Sprintf("%019d", token) }

// TestFencingInRedis has a Redis say what operations.md says of it.
func TestFencingInRedis(t *testing.T) {
	ask, script := redis(t), block(t, "lua")
	write := func(script string, token int64, value string) string {
		return ask("EVAL", script, "2", "{database}token", "{database}master", redisToken(token), value)
	}
	// Tokens are 64-bit numbers, of which a script's numbers keep 53 bits.
	const old, next = 1<<62 + 5, 1<<62 + 6
	assert.Equal(t, "+OK", write(script, 9, "a"))
	assert.Equal(t, "+OK", write(script, old, "a"))
	assert.Equal(t, "+OK", write(script, next, "b"))
	assert.Contains(t, write(script, old, "a, too late"), "-FENCED")
	assert.Contains(t, write(script, 10, "a, too late"), "-FENCED")
	assert.Equal(t, "b", ask("GET", "{database}master"))
	assert.Equal(t, "+OK", write(script, next, "b again"))
	assert.Equal(t, redisToken(next), ask("GET", "{database}token"))
	// The control.
	assert.Equal(t, "+OK", write(strings.Replace(script, "seen > ARGV[1]", "false", 1), old, "too late"))
	assert.Equal(t, "too late", ask("GET", "{database}master"))
}
