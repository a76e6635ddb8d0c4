package election_test

import (
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// Members of the first version, built from its sources, in one election with those of
// this one.

// firstVersionTree is what git calls the sources of v0.1.0.
const firstVersionTree = "9fc262b4ee9fbfe0f8ca84dc6dda95a64a628d5e"

// buildFirstVersion builds testdata/firstversion against the sources of v0.1.0. They are in this repository's history,
// which an archive of the sources and a shallow clone do not have: then the test is skipped, unless
// ELECTION_REQUIRE_HISTORY is 1.
func buildFirstVersion(t *testing.T) string {
	t.Helper()
	git := func(args ...string) error {
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-c", "safe.directory=*"}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("git %q: %w: %s", args, err, out)
		}
		return nil
	}
	if err := git("cat-file", "-e", firstVersionTree); err != nil {
		require.NotEqual(t, "1", os.Getenv("ELECTION_REQUIRE_HISTORY"), "no sources of v0.1.0: %v", err)
		t.Skip("the sources of v0.1.0 are not in the history that is here: ", err)
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "sources.zip")
	require.NoError(t, git("archive", "--format=zip", "--output="+archive, firstVersionTree))
	sources, err := zip.OpenReader(archive)
	require.NoError(t, err)
	defer sources.Close()
	root := filepath.Join(dir, "sources")
	require.NoError(t, os.CopyFS(root, sources))
	require.NoError(t, os.CopyFS(filepath.Join(root, "firstversion"), os.DirFS(filepath.Join("testdata", "firstversion"))))
	binary := filepath.Join(dir, "firstversion")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./firstversion")
	build.Dir = root
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// oldMember is a process of the first version. What it prints goes to a journal, with
// its name in front, as a member's events do.
type oldMember struct {
	w     *world
	id    string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}
	path  atomic.Value // of its ballot
}

func (w *world) oldMember(binary, id string, j *journal, counter string) *oldMember {
	w.t.Helper()
	m := &oldMember{w: w, id: id, ended: make(chan struct{})}
	m.path.Store("")
	m.cmd = exec.CommandContext(w.t.Context(), binary, strings.Join(w.servers, ","), w.timeout().String(), w.name(), id, counter)
	m.cmd.Stderr = os.Stderr
	var err error
	m.stdin, err = m.cmd.StdinPipe()
	require.NoError(w.t, err)
	stdout, err := m.cmd.StdoutPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, m.cmd.Start())
	go func() {
		defer close(m.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			event, rest, _ := strings.Cut(lines.Text(), " ")
			switch event {
			case "voted":
				m.path.Store(rest)
				j.add("%s voted", id)
			case "won":
				j.add("%s won", id)
			default:
				j.add("%s %s", id, lines.Text())
			}
		}
		_ = m.cmd.Wait()
	}()
	w.t.Cleanup(m.kill)
	return m
}

func (m *oldMember) tell(command string) {
	m.w.t.Helper()
	_, err := fmt.Fprintln(m.stdin, command)
	require.NoError(m.w.t, err)
}

func (m *oldMember) kill() {
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// ballot is the name of its ballot.
func (m *oldMember) ballot() string {
	path, _ := m.path.Load().(string)
	return path[strings.LastIndex(path, "/")+1:]
}

// counts has a member of this version count while it leads, as those of the first do.
func (m *member) counts(path string, counting *sync.WaitGroup) *member {
	m.OnWin(func(ctx context.Context, term election.Term) error {
		conn := m.node.Conn()
		data, stat, err := conn.Get(path)
		if err != nil {
			return err
		}
		if former, err := strconv.ParseInt(string(data), 10, 64); err != nil || former > term.Token {
			m.journal.add("%s TWO LEAD: token %d after %s (%v)", m.id, term.Token, data, err)
		}
		counting.Go(func() {
			for version := stat.Version; ctx.Err() == nil; version++ {
				_, err := conn.Multi(term.Guard(), &zk.SetDataRequest{Path: path, Data: strconv.AppendInt(nil, term.Token, 10), Version: version})
				if errors.Is(err, zk.ErrBadVersion) {
					m.journal.add("%s TWO LEAD: somebody has written beside %d", m.id, term.Token)
				}
				if err != nil {
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
		return nil
	})
	return m
}

func TestMembersOfTheFirstVersion(t *testing.T) {
	binary := buildFirstVersion(t)
	t.Run("the counter tells", func(t *testing.T) {
		t.Parallel()
		srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond})
		require.NoError(t, err)
		t.Cleanup(srv.Close)
		theCounterTells(t, &world{t: t, servers: srv.Servers(), dial: net.DialTimeout}, binary)
	})
	for name, act := range map[string]func(t *testing.T, w *world, binary string){
		"transfers": transfersAmongOldMembers, "at random": oldMembersAtRandom,
	} {
		t.Run(name+"/in-process", func(t *testing.T) {
			t.Parallel()
			srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond})
			require.NoError(t, err)
			t.Cleanup(srv.Close)
			act(t, &world{t: t, servers: srv.Servers(), dial: net.DialTimeout}, binary)
		})
		t.Run(name+"/ZooKeeper", func(t *testing.T) {
			t.Parallel()
			ensemble := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{})
			act(t, &world{t: t, servers: ensemble.Servers(), dial: net.DialTimeout}, binary)
		})
	}
}

// counted makes the counter, and returns what checks it at the end.
func (w *world) counted(j *journal) (path string, counting *sync.WaitGroup) {
	conn := w.client()
	path = "/counter-" + w.name()
	_, err := conn.Create(path, []byte("0"), 0, zk.WorldACL(zk.PermAll))
	require.NoError(w.t, err)
	counting = &sync.WaitGroup{}
	w.t.Cleanup(func() {
		counting.Wait()
		for _, event := range j.all() {
			assert.NotContains(w.t, event, "TWO LEAD")
			assert.NotContains(w.t, event, "error")
		}
		_, stat, err := conn.Get(path)
		require.NoError(w.t, err)
		assert.Positive(w.t, stat.Version, "nobody has counted")
		w.t.Logf("counted to %d; %q", stat.Version, j.all())
	})
	return path, counting
}

// theCounterTells is the negative control: somebody writes beside the leader.
func theCounterTells(t *testing.T, w *world, binary string) {
	conn := w.client()
	const counter = "/counter"
	_, err := conn.Create(counter, []byte("0"), 0, zk.WorldACL(zk.PermAll))
	require.NoError(t, err)
	told := func(j *journal, id string) bool {
		return slices.ContainsFunc(j.all(), func(event string) bool { return strings.HasPrefix(event, id+" TWO LEAD") })
	}
	var counting sync.WaitGroup
	defer counting.Wait()
	j := &journal{}
	old := w.oldMember(binary, "old", j, counter)
	w.await(j, "old won")
	w.until("old to count", func() bool { // what is written before its first read it takes for a former leader's
		_, stat, err := conn.Get(counter)
		return err == nil && stat.Version > 0
	})
	assert.False(t, told(j, "old"))
	_, err = conn.Set(counter, []byte("1"), -1)
	require.NoError(t, err)
	w.until("old to see the other's write", func() bool { return told(j, "old") })
	_, err = conn.Set(counter, []byte("999999999"), -1)
	require.NoError(t, err)
	old.tell("resign")
	w.await(j, "old resigned")
	b := w.member("b", j).counts(counter, &counting).lead()
	w.until("b to see the higher token", func() bool { return told(j, "b") })
	old.tell("vote")
	w.await(j, "old lost to b")
	require.NoError(t, b.Close())
	w.until("old to see it, too", func() bool { return j.count("old won") == 2 })
}

func transfersAmongOldMembers(t *testing.T, w *world, binary string) {
	j := &journal{}
	counter, counting := w.counted(j)
	old := w.oldMember(binary, "old", j, counter)
	w.await(j, "old won")
	b, c := w.member("b", j, followLeader).counts(counter, counting), w.member("c", j, followLeader).counts(counter, counting)
	b.vote()
	w.await(j, "b lost to old")
	c.vote()
	w.await(j, "c lost to old")
	waits := w.oldMember(binary, "waits", j, counter)
	w.await(j, "waits voted")
	w.await(j, "waits lost to old")

	// The leader is of the first version, and hears of no request.
	blockedBy(t, b.Transfer(w.context2T(), c.ballotOf()), old.ballot(), `"old"`, "leads, and has not stepped down", `"ready"`)
	line := w.line(w.client(), b.RootVotePath())
	assert.Equal(t, []string{"old", "c", "waits", "b"}, line, "nothing is lost but places")
	assert.False(t, j.has("old stepped down"))
	w.noRequest(b.RootVotePath())

	// One of the first version is no target.
	ballots, err := b.Ballots(w.context())
	require.NoError(t, err)
	blockedBy(t, b.Transfer(w.context(), ballots[2]), waits.ballot(), "earlier version")

	// One stands between, and does not move.
	old.tell("resign")
	w.await(j, "c won")
	w.await(j, "waits lost to c")
	w.await(j, "b lost to c")
	blockedBy(t, b.Transfer(w.context2T(), b.ballotOf()), waits.ballot(), `"waits"`, "has not moved", `"asked"`)
	assert.True(t, c.IsLeader())
	assert.Equal(t, []string{"c", "waits", "b"}, w.line(w.client(), b.RootVotePath()))
	w.noRequest(b.RootVotePath())

	// Once it stands behind, leadership is passed before its eyes, and it knows the new leader.
	waits.tell("resign")
	w.await(j, "waits resigned")
	waits.tell("vote")
	old.tell("vote")
	w.until("both to stand again", func() bool { return j.count("waits voted") == 2 && j.count("old voted") == 2 })
	require.NoError(t, c.Transfer(w.context(), b.ballotOf()))
	assert.True(t, b.IsLeader())
	w.await(j, "waits lost to b")
	w.await(j, "old lost to b")
	line = w.line(w.client(), b.RootVotePath())
	assert.Equal(t, "b", line[0])
	assert.Equal(t, "c", line[3])

	// They lead when it is their turn, and those of this version after one that was killed.
	next, last := waits, old
	if line[1] == "old" {
		next, last = old, waits
	}
	require.NoError(t, b.Close())
	w.until(next.id+" to win", func() bool { return j.has(next.id + " won") })
	w.await(j, "c lost to "+next.id)
	last.tell("resign")
	w.await(j, last.id+" resigned")
	next.kill()
	w.until("c to win again", func() bool { return j.count("c won") == 2 })
	require.NoError(t, c.Close())
}

// oldMembersAtRandom: whatever the order, there are never two leaders, and in the end
// there is one.
func oldMembersAtRandom(t *testing.T, w *world, binary string) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	j := &journal{}
	counter, counting := w.counted(j)
	var line []*member
	var olds []*oldMember
	for i := range 3 {
		olds = append(olds, w.oldMember(binary, fmt.Sprint("old", i), j, counter))
		w.await(j, olds[i].id+" voted")
		line = append(line, w.member(fmt.Sprint("new", i), j).counts(counter, counting).vote())
	}
	asked := map[string]int{}
	for range 40 {
		m, target, o := line[rng.IntN(len(line))], line[rng.IntN(len(line))], olds[rng.IntN(len(olds))]
		switch rng.IntN(4) {
		case 0:
			before := j.count(o.id + " voted")
			o.tell("resign")
			o.tell("vote")
			w.until(o.id+" to stand again", func() bool { return j.count(o.id+" voted") > before })
		case 1:
			m.resign()
			m.vote()
		default:
			ctx, cancel := context.WithTimeout(w.context(), 500*time.Millisecond)
			err := m.Transfer(ctx, target.ballotOf())
			cancel()
			switch {
			case err == nil:
				asked["done"]++
				w.until("the target to be the first", func() bool { // it may have resigned since, but nobody does here
					return slices.Index(w.line(m.node.Conn(), m.RootVotePath()), target.id) == 0
				})
			case errors.Is(err, election.ErrTransferBlocked):
				asked["blocked"]++
			case errors.Is(err, election.ErrTransferUnderWay):
				asked["under way"]++ // the one before may still happen
			default:
				require.ErrorIs(t, err, election.ErrTransferTargetGone)
				asked["gone"]++
			}
		}
	}
	t.Logf("transfers: %v", asked)
	assert.Positive(t, asked["blocked"]+asked["done"])
	for _, o := range olds {
		o.tell("resign")
	}
	w.until("one to lead", func() bool { return slices.ContainsFunc(line, (*member).IsLeader) })
	for _, m := range line {
		require.NoError(t, m.Close())
	}
}
