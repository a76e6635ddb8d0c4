//go:build unix

package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
)

// leaderOfRoot leads an election below a root of the test's own.
func leaderOfRoot(t *testing.T, servers, root, name, data string) *election.Session {
	t.Helper()
	s, err := election.Connect([]string{servers}, 10*time.Second, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	c, err := election.NewCandidate(s, name, &election.CandidateOptions{Root: root, Data: []byte(data)})
	require.NoError(t, err)
	campaign(t, c)
	return s
}

// TestTopOnce: those without a leader come first, and are told by the exit status.
func TestTopOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		root := fmt.Sprintf("/top-%d", time.Now().UnixNano())
		status, _, stderr := zkelect(t, servers, "top", "--once", "--root", root)
		assert.Equal(t, exitOK, status, "nothing there")
		assert.Contains(t, stderr, "no elections below "+root, "nothing there")
		leaderOfRoot(t, servers, root, "a", "host a")
		gone := leaderOfRoot(t, servers, root, "b", "host b")
		leaderOfRoot(t, servers, root, "c", "host-c")
		top := func() (int, string) {
			status, stdout, _ := zkelect(t, servers, "top", "--once", "--root", root)
			return status, stdout
		}
		status, stdout := top()
		assert.Equal(t, exitOK, status)
		assert.Regexp(t, `^ELECTION +SINCE +LINE +LAST CHANGE +LEADER
a +\d+s +1 +- +"host a"
b +\d+s +1 +- +"host b"
c +\d+s +1 +- +host-c
$`, stdout)
		private := root + "/d"
		_, err := gone.Conn().Create(private, nil, 0, zk.DigestACL(zk.PermAll, "who", "knows"))
		require.NoError(t, err)
		status, stdout, stderr = zkelect(t, servers, "top", "--once", "--root", root)
		assert.Equal(t, exitFailed, status)
		assert.Contains(t, stdout, "d ")
		assert.Contains(t, stderr, "whether d has a leader is not known")
		require.NoError(t, gone.Conn().Delete(private, -1))
		require.NoError(t, gone.Close())
		status, stdout = top()
		assert.Equal(t, exitNoLeader, status)
		assert.Regexp(t, `^ELECTION .*
b +- +0 +- +none
a .*
c .*
$`, stdout)
	})
}

// TestTopPlain: elsewhere than on a terminal the table is printed when something has changed, and only then.
func TestTopPlain(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		root := fmt.Sprintf("/top-%d", time.Now().UnixNano())
		leaderOfRoot(t, servers, root, "a", "host-a")
		p := start(t, servers, "top", "--interval", "20ms", "--root", root)
		p.says(&p.stdout, "host-a")
		s := leaderOfRoot(t, servers, root, "b", "host-b")
		p.says(&p.stdout, "host-b")
		p.says(&p.stdout, "new election, ")
		require.NoError(t, s.Close())
		p.says(&p.stdout, "lost host-b, ")
		leaderOfRoot(t, servers, root, "b", "host-c")
		until(t, "the next leader", func() bool {
			return regexp.MustCompile(`b +\d+s +1 +leads, \ds ago +host-c\n`).MatchString(p.stdout.String())
		})
		p.signal(syscall.SIGTERM)
		assert.Equal(t, exitOK, p.wait())
		text := p.stdout.String()
		assert.NotContains(t, text, "\x1b", "it speaks to a terminal")
		tables := strings.Split(strings.TrimSuffix(text, "\n\n"), "\n\n")
		for i, table := range tables {
			// The time, and what depends on it, apart, no table is as the one before.
			if i > 0 && withoutTimes(table) == withoutTimes(tables[i-1]) {
				t.Errorf("twice the same: %s", table)
			}
		}
	})
}

func withoutTimes(table string) string {
	_, table, _ = strings.Cut(table, "\n")
	return regexp.MustCompile(`\d+s\b`).ReplaceAllString(table, "")
}

// TestTopChanges: what is shown as the last change.
func TestTopChanges(t *testing.T) {
	now := time.Unix(1000, 0)
	leader := func(data string, zxid int64) *leaderJSON {
		return &leaderJSON{payload: payloadOf([]byte(data)), Zxid: zxid, Since: time.Unix(900, 0)}
	}
	r := &topRow{name: "e"}
	for _, step := range []struct {
		found  listJSON
		change string
		since  time.Time
	}{
		{listJSON{Candidates: 0}, "", time.Time{}},
		{listJSON{Candidates: 2}, "line +2", time.Time{}},
		{listJSON{Candidates: 2, Leader: leader("a", 1)}, "leads", time.Unix(900, 0)},
		{listJSON{Candidates: 1, Leader: leader("a", 1)}, "line -1", time.Unix(900, 0)},
		{listJSON{Candidates: 1, Leader: leader("b", 1)}, "new data", time.Unix(900, 0)},
		{listJSON{Candidates: 1, Leader: leader("b", 1)}, "new data", time.Unix(900, 0)},
		{listJSON{Candidates: 1, Leader: leader("c", 2)}, "was b", time.Unix(900, 0)},
		{listJSON{Error: "no"}, "unreadable", time.Unix(900, 0)},
		{listJSON{Error: "no"}, "unreadable", time.Unix(900, 0)},
		{listJSON{Candidates: 1, Leader: leader("c", 2)}, "readable", time.Unix(900, 0)},
		{listJSON{Candidates: 0}, "lost c", now},
	} {
		r.compare(step.found, now)
		assert.Equal(t, step.change, r.change, "%+v", step.found)
		assert.WithinDuration(t, step.since, r.since, 0, "%+v", step.found)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1500 * time.Millisecond: "1s", 61 * time.Second: "1m1s", 3*time.Hour + 5*time.Minute: "3h5m", 50 * time.Hour: "2d2h",
	} {
		assert.Equal(t, want, age(d), "%v", d)
	}
}

// TestTopServerAway: that nobody answers for a while is shown, and is no end.
func TestTopServerAway(t *testing.T) {
	t.Parallel()
	var out, errs lines
	e := &env{stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
	servers := inProcess(t)
	s, err := election.Connect([]string{servers}, 10*time.Second, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	x := &top{connection: &connection{env: e, root: "/x", wait: time.Second}, session: s, known: map[string]*topRow{}}
	ended := make(chan error, 1)
	go func() { ended <- x.live(ctx, 10*time.Millisecond) }()
	until(t, "a table", func() bool { return strings.Contains(out.String(), "ELECTION") })
	require.NoError(t, s.Close())
	until(t, "the trouble", func() bool { return strings.Contains(out.String(), "closed") })
	cancel(interrupted{syscall.SIGINT})
	assert.NoError(t, <-ended)
}
