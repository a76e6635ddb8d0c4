package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
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

// member stands in the test's election, in this process.
func member(t *testing.T, servers, data string) (*election.Session, *election.Candidate) {
	t.Helper()
	s, err := election.Connect([]string{servers}, 10*time.Second, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	c, err := election.NewCandidate(s, electionOf(t), &election.CandidateOptions{Data: []byte(data)})
	require.NoError(t, err)
	return s, c
}

func campaign(t *testing.T, c *election.Candidate) election.Term {
	t.Helper()
	term, err := c.Campaign(t.Context())
	require.NoError(t, err)
	return term
}

func TestWatch(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		text := start(t, servers, "watch", "--election", electionOf(t))
		stream := start(t, servers, "watch", "--json", "--election", electionOf(t))
		for _, p := range []*process{text, stream} {
			p.says(&p.stdout, "death")
		}
		s, c := member(t, servers, "one\x00\xff")
		campaign(t, c)
		until(t, "the leader", func() bool {
			return strings.Contains(stream.stdout.String(), `"event":"leader"`) && strings.Contains(text.stdout.String(), "  leader  ")
		})
		require.NoError(t, c.Proclaim(t.Context(), []byte("two words <&>")))
		for _, p := range []*process{text, stream} {
			p.says(&p.stdout, "two words <&>")
		}
		id := s.ID()
		require.NoError(t, s.Close())
		for _, p := range []*process{text, stream} {
			until(t, "the death", func() bool { return strings.Count(p.stdout.String(), "death") == 2 })
			p.signal(syscall.SIGTERM)
			assert.Zero(t, p.wait())
		}

		const at = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\S+`
		session := fmt.Sprintf("session 0x%x  since %s", uint64(id), at)
		want := regexp.MustCompile("^" + at + `  death   no leader
` + at + `  leader  "one\\x00\\xff"  ` + session + `
` + at + `  data    "two words <&>"  ` + session + `
` + at + `  death   "two words <&>"  ` + session + "\n$")
		assert.Regexp(t, want, text.stdout.String(), "the text")

		var told []string
		for line := range strings.Lines(stream.stdout.String()) {
			var event struct {
				Time   time.Time
				Event  string
				Leader *struct {
					Data       *string
					DataBase64 []byte
					Session    string
					Zxid       int64
					Since      time.Time
				}
			}
			require.NoError(t, json.Unmarshal([]byte(line), &event), "%q", line)
			assert.False(t, event.Time.IsZero(), "no time: %s", line)
			entry := event.Event
			if l := event.Leader; l != nil {
				if l.Data != nil {
					entry += " " + *l.Data
				}
				entry += " " + string(l.DataBase64)
				assert.Equal(t, fmt.Sprintf("0x%x", uint64(id)), l.Session, "incomplete: %s", line)
				assert.NotZero(t, l.Zxid, "incomplete: %s", line)
				assert.False(t, l.Since.IsZero(), "incomplete: %s", line)
			}
			told = append(told, entry)
		}
		assert.Equal(t, []string{"death", "leader one\x00\xff", "data two words <&> ", "death two words <&> "}, told, "the stream")
	})
}

// TestWatchClosedPipe: a reader that goes ends the watch.
func TestWatchClosedPipe(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	_, c := member(t, servers, "x")
	campaign(t, c)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `"$0" watch --json --election "$1" | head -n 1`, os.Args[0], electionOf(t))
	cmd.Env = append(os.Environ(), asZkelect+"=1", "ZK_SERVERS="+servers)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		out, err := cmd.Output()
		assert.NoError(t, err, "%q", out)
		assert.Contains(t, string(out), `"event":"leader"`)
	}()
	for { // until it finds that nobody reads
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
		require.NoError(t, c.Proclaim(t.Context(), fmt.Append(nil, time.Now())))
	}
}

func TestStatus(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		args := []string{"status", "--election", electionOf(t)}
		_, gone := member(t, servers, "gone")
		campaign(t, gone)
		require.NoError(t, gone.Resign(t.Context()))
		status, stdout, _ := zkelect(t, servers, args...)
		assert.Equal(t, exitNoLeader, status, "nobody")
		assert.Contains(t, stdout, "none has acknowledged", "nobody")
		assert.Contains(t, stdout, "candidates  none", "nobody")
		status, stdout, _ = zkelect(t, servers, append(args, "--json")...)
		assert.Equal(t, exitNoLeader, status, "nobody")
		assert.Contains(t, stdout, `"leader":null,"candidates":[]}`, "nobody")

		one, first := member(t, servers, "host one")
		term := campaign(t, first)
		two, second := member(t, servers, "host2")
		require.NoError(t, second.Vote(t.Context()))
		status, stdout, _ = zkelect(t, servers, args...)
		assert.Equal(t, exitOK, status)
		want := regexp.MustCompile(fmt.Sprintf(`^election +%s
path +/_zkelection/%s
leader +"host one"
session +0x%x
since +\d{4}-.*
token +%d
candidates +2

 +STATE +SESSION +TOKEN +SEQUENCE +DATA
1 +leads +0x%[3]x +%[4]d +\d+ +"host one"
2 +waits +0x%[5]x +\d+ +\d+ +host2
$`, electionOf(t), electionOf(t), uint64(one.ID()), term.Token, uint64(two.ID())))
		assert.Regexp(t, want, stdout, "the table")

		status, stdout, _ = zkelect(t, servers, append(args, "--json")...)
		var result struct {
			Election, Path string
			Leader         struct{ Data, Session string }
			Token          int64
			Candidates     []struct {
				Data, Session, Ballot string
				Position              int
				Leads                 bool
				Token, Sequence       int64
			}
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &result))
		require.Equal(t, exitOK, status)
		assert.Equal(t, "host one", result.Leader.Data)
		assert.Equal(t, term.Token, result.Token)
		require.Len(t, result.Candidates, 2)
		c1, c2 := result.Candidates[0], result.Candidates[1]
		assert.True(t, c1.Leads && !c2.Leads, "%+v", result.Candidates)
		assert.Equal(t, term.Ballot, c1.Ballot)
		assert.Equal(t, second.VotePath(), c2.Ballot)
		assert.Equal(t, 2, c2.Position)
		assert.Less(t, c1.Sequence, c2.Sequence)
	})
}

// TestStatusPriority: --wide and --json show it, and 0 for a ballot without one.
func TestStatusPriority(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		s, first := member(t, servers, "one")
		campaign(t, first)
		_, err := s.Conn().Create(first.RootVotePath()+"/ballot", []byte("gem"), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		for _, priority := range []int{-9, 7} {
			c, err := election.NewCandidate(s, electionOf(t), &election.CandidateOptions{Data: fmt.Append(nil, "of ", priority), Priority: priority})
			require.NoError(t, err)
			require.NoError(t, c.Vote(t.Context()))
		}
		args := []string{"status", "--election", electionOf(t)}
		_, stdout, _ := zkelect(t, servers, append(args, "--wide")...)
		want := regexp.MustCompile(`(?m)^ +STATE +SESSION +TOKEN +SEQUENCE +PRIORITY +DATA
1 +leads .* 0 +one
2 +waits .* 0 +gem
3 +waits .* -9 +"of -9"
4 +waits .* 7 +"of 7"
`)
		assert.Regexp(t, want, stdout, "the table")
		_, stdout, _ = zkelect(t, servers, args...)
		assert.NotContains(t, stdout, "PRIORITY", "it is in the narrow table")
		_, stdout, _ = zkelect(t, servers, append(args, "--json")...)
		var result struct {
			Candidates []struct{ Priority *int }
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &result))
		require.Len(t, result.Candidates, 4)
		for i, want := range []int{0, 0, -9, 7} {
			assert.Equal(t, &want, result.Candidates[i].Priority, "candidate %d", i+1)
		}
	})
}

// TestStatusNoSuchElection: one whose name is misspelt does not look like one in which nobody stands.
func TestStatusNoSuchElection(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		_, c := member(t, servers, "x")
		campaign(t, c)
		name := electionOf(t)
		misspelt := strings.Replace(name, "Such", "Sush", 1)
		status, stdout, stderr := zkelect(t, servers, "status", "--election", misspelt)
		assert.Equal(t, exitNoLeader, status)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "no such election: "+misspelt+" below /_zkelection; there is "+name+"\n")
		status, stdout, _ = zkelect(t, servers, "status", "--json", "--election", misspelt)
		assert.Equal(t, exitNoLeader, status)
		assert.Contains(t, stdout, `"error":"no such election"`)
		_, _, stderr = zkelect(t, servers, "status", "--election", "something else")
		assert.True(t, strings.HasSuffix(stderr, "no such election: something else below /_zkelection\n"))
		w := start(t, servers, "watch", "--election", misspelt)
		w.says(&w.stderr, "no such election yet: "+misspelt)
	})
}

// TestTablesFit: data that are long break no table, and no data are lost with --wide and --json.
func TestTablesFit(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	long := strings.Repeat("0123456789", 20)
	_, c := member(t, servers, long)
	campaign(t, c)
	for _, command := range [][]string{{"status", "--election", electionOf(t)}, {"list"}, {"top", "--once"}} {
		_, stdout, _ := zkelect(t, servers, command...)
		assert.Contains(t, stdout, "...\n", "%v cuts nothing", command)
		for line := range strings.Lines(stdout) {
			assert.LessOrEqual(t, len(line), 81, "%v: %s", command, line)
		}
		_, stdout, _ = zkelect(t, servers, append(command, "--wide")...)
		assert.Contains(t, stdout, long+"\n", "%v --wide cuts", command)
	}
}

// TestStatusTakingOver: the first in line has not acknowledged yet.
func TestStatusTakingOver(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	_, c := member(t, servers, "slow")
	winning := make(chan struct{})
	c.OnWin(func(ctx context.Context, _ election.Term) error { close(winning); <-ctx.Done(); return nil })
	require.NoError(t, c.Vote(t.Context()))
	<-winning
	status, stdout, _ := zkelect(t, servers, "status", "--election", electionOf(t))
	assert.Equal(t, exitNoLeader, status)
	assert.Contains(t, stdout, "takes over  0x")
}

// TestAcknowledgedBeforeTheBallot: it was somebody else's on the same session, whose ballot was deleted by hand.
func TestAcknowledgedBeforeTheBallot(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	s, c := member(t, servers, "operator")
	conn, _, err := zk.Connect([]string{servers}, 10*time.Second, zk.WithLogInfo(false))
	require.NoError(t, err)
	defer conn.Close()
	for _, node := range []struct {
		path  string
		flags int32
	}{
		{path.Dir(c.RootVotePath()), 0},
		{c.RootVotePath(), 0},
		{c.LeaderAckPath(), zk.FlagEphemeral},
		{c.RootVotePath() + "/ballot", zk.FlagEphemeralSequential},
	} {
		_, err := conn.Create(node.path, []byte("there"), node.flags, zk.WorldACL(zk.PermAll))
		require.NoError(t, err, node.path)
	}
	_, stdout, _ := zkelect(t, servers, "status", "--election", electionOf(t))
	assert.Contains(t, stdout, "takes over  0x")
	assert.NotContains(t, stdout, "token  ", "of whom?")
	_, _, stderr := zkelect(t, servers, "run", "--try", "--election", electionOf(t), "--", "true")
	assert.Contains(t, stderr, "there takes over")
	_, leads, err := resolve(t.Context(), &connection{wait: s.Timeout()}, c, "there")
	require.NoError(t, err)
	assert.False(t, leads)
}

func TestList(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		root := fmt.Sprintf("/root-%d", time.Now().UnixNano()) // a new one in each run
		status, stdout, stderr := zkelect(t, servers, "list", "--root", root)
		assert.Zero(t, status, "nothing there")
		assert.Empty(t, stdout, "nothing there")
		assert.Contains(t, stderr, "no elections below "+root, "nothing there")
		s, err := election.Connect([]string{servers}, 10*time.Second, nil)
		require.NoError(t, err)
		defer func() { _ = s.Close() }()
		for i := range 40 { // more than are read at a time
			c, err := election.NewCandidate(s, fmt.Sprintf("e/%02d", i), &election.CandidateOptions{Root: root, Data: fmt.Appendf(nil, "d%d", i)})
			require.NoError(t, err)
			campaign(t, c)
			if i == 7 {
				require.NoError(t, c.Resign(t.Context()))
			}
		}
		status, stdout, _ = zkelect(t, servers, "list", "--root", root)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		require.Zero(t, status)
		require.Len(t, lines, 41)
		for i, want := range map[int]string{0: "ELECTION CANDIDATES LEADER", 1: "e__00 1 d0", 8: "e__07 0 -", 40: "e__39 1 d39"} {
			assert.Equal(t, want, strings.Join(strings.Fields(lines[i]), " "), "line %d", i)
		}
		_, stdout, _ = zkelect(t, servers, "list", "--json", "--root", root)
		assert.Equal(t, 40, strings.Count(stdout, "\n"), "lines of JSON")
		assert.Contains(t, stdout, `{"election":"e__07","candidates":0,"leader":null}`+"\n"+`{"election":"e__08","candidates":1,"leader":{"data":"d8","session":"0x`, "the JSON")
	})
}
