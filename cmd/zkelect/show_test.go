package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
)

// member stands in the test's election, in this process.
func member(t *testing.T, servers, data string) (*election.Session, *election.Candidate) {
	t.Helper()
	s, err := election.Connect([]string{servers}, 10*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c, err := election.NewCandidate(s, electionOf(t), &election.CandidateOptions{Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func campaign(t *testing.T, c *election.Candidate) election.Term {
	t.Helper()
	term, err := c.Campaign(t.Context())
	if err != nil {
		t.Fatal(err)
	}
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
		if err := c.Proclaim(t.Context(), []byte("two words <&>")); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*process{text, stream} {
			p.says(&p.stdout, "two words <&>")
		}
		id := s.ID()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*process{text, stream} {
			until(t, "the death", func() bool { return strings.Count(p.stdout.String(), "death") == 2 })
			p.signal(syscall.SIGTERM)
			if status := p.wait(); status != 0 {
				t.Errorf("status %d", status)
			}
		}

		const at = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\S+`
		session := fmt.Sprintf("session 0x%x  since %s", uint64(id), at)
		want := regexp.MustCompile("^" + at + `  death   no leader
` + at + `  leader  "one\\x00\\xff"  ` + session + `
` + at + `  data    "two words <&>"  ` + session + `
` + at + `  death   "two words <&>"  ` + session + "\n$")
		if !want.MatchString(text.stdout.String()) {
			t.Errorf("the text:\n%s\nwant\n%s", &text.stdout, want)
		}

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
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if event.Time.IsZero() {
				t.Errorf("no time: %s", line)
			}
			entry := event.Event
			if l := event.Leader; l != nil {
				if l.Data != nil {
					entry += " " + *l.Data
				}
				entry += " " + string(l.DataBase64)
				if l.Session != fmt.Sprintf("0x%x", uint64(id)) || l.Zxid == 0 || l.Since.IsZero() {
					t.Errorf("incomplete: %s", line)
				}
			}
			told = append(told, entry)
		}
		if got, want := fmt.Sprintf("%q", told), fmt.Sprintf("%q", []string{"death", "leader one\x00\xff", "data two words <&> ", "death two words <&> "}); got != want {
			t.Errorf("the stream: %s, want %s", got, want)
		}
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
		if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), `"event":"leader"`) {
			t.Errorf("%q, %v", out, err)
		}
	}()
	for { // until it finds that nobody reads
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
		if err := c.Proclaim(t.Context(), fmt.Append(nil, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStatus(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		args := []string{"status", "--election", electionOf(t)}
		_, gone := member(t, servers, "gone")
		campaign(t, gone)
		if err := gone.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		status, stdout, _ := zkelect(t, servers, args...)
		if status != exitNoLeader || !strings.Contains(stdout, "none has acknowledged") || !strings.Contains(stdout, "candidates  none") {
			t.Errorf("nobody: status %d\n%s", status, stdout)
		}
		status, stdout, _ = zkelect(t, servers, append(args, "--json")...)
		if status != exitNoLeader || !strings.Contains(stdout, `"leader":null,"candidates":[]}`) {
			t.Errorf("nobody: status %d\n%s", status, stdout)
		}

		one, first := member(t, servers, "host one")
		term := campaign(t, first)
		two, second := member(t, servers, "host2")
		if err := second.Vote(t.Context()); err != nil {
			t.Fatal(err)
		}
		status, stdout, _ = zkelect(t, servers, args...)
		if status != exitOK {
			t.Errorf("status %d", status)
		}
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
		if !want.MatchString(stdout) {
			t.Errorf("the table:\n%s\nwant\n%s", stdout, want)
		}

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
		if err := json.Unmarshal([]byte(stdout), &result); err != nil || status != exitOK {
			t.Fatalf("status %d, %v: %s", status, err, stdout)
		}
		if result.Leader.Data != "host one" || result.Token != term.Token || len(result.Candidates) != 2 {
			t.Fatalf("%+v", result)
		}
		c1, c2 := result.Candidates[0], result.Candidates[1]
		if !c1.Leads || c2.Leads || c1.Ballot != term.Ballot || c2.Ballot != second.VotePath() || c2.Position != 2 || c1.Sequence >= c2.Sequence {
			t.Errorf("%+v", result.Candidates)
		}
	})
}

// TestStatusPriority: --wide and --json show it, and 0 for a ballot without one.
func TestStatusPriority(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		s, first := member(t, servers, "one")
		campaign(t, first)
		if _, err := s.Conn().Create(first.RootVotePath()+"/ballot", []byte("gem"), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
		for _, priority := range []int{-9, 7} {
			c, err := election.NewCandidate(s, electionOf(t), &election.CandidateOptions{Data: fmt.Append(nil, "of ", priority), Priority: priority})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Vote(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"status", "--election", electionOf(t)}
		_, stdout, _ := zkelect(t, servers, append(args, "--wide")...)
		want := regexp.MustCompile(`(?m)^ +STATE +SESSION +TOKEN +SEQUENCE +PRIORITY +DATA
1 +leads .* 0 +one
2 +waits .* 0 +gem
3 +waits .* -9 +"of -9"
4 +waits .* 7 +"of 7"
`)
		if !want.MatchString(stdout) {
			t.Errorf("the table:\n%s\nwant\n%s", stdout, want)
		}
		_, stdout, _ = zkelect(t, servers, args...)
		if strings.Contains(stdout, "PRIORITY") {
			t.Errorf("it is in the narrow table:\n%s", stdout)
		}
		_, stdout, _ = zkelect(t, servers, append(args, "--json")...)
		var result struct {
			Candidates []struct{ Priority *int }
		}
		if err := json.Unmarshal([]byte(stdout), &result); err != nil || len(result.Candidates) != 4 {
			t.Fatalf("%v: %s", err, stdout)
		}
		for i, want := range []int{0, 0, -9, 7} {
			if got := result.Candidates[i].Priority; got == nil || *got != want {
				t.Errorf("candidate %d: %v, want %d", i+1, got, want)
			}
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
		if status != exitNoLeader || stdout != "" || !strings.Contains(stderr, "no such election: "+misspelt+" below /_zkelection; there is "+name+"\n") {
			t.Errorf("status %d, %q, %q", status, stdout, stderr)
		}
		status, stdout, _ = zkelect(t, servers, "status", "--json", "--election", misspelt)
		if status != exitNoLeader || !strings.Contains(stdout, `"error":"no such election"`) {
			t.Errorf("status %d, %q", status, stdout)
		}
		_, _, stderr = zkelect(t, servers, "status", "--election", "something else")
		if !strings.HasSuffix(stderr, "no such election: something else below /_zkelection\n") {
			t.Errorf("%q", stderr)
		}
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
		if !strings.Contains(stdout, "...\n") {
			t.Errorf("%v cuts nothing:\n%s", command, stdout)
		}
		for line := range strings.Lines(stdout) {
			if len(line) > 81 {
				t.Errorf("%v: %d characters: %s", command, len(line), line)
			}
		}
		if _, stdout, _ := zkelect(t, servers, append(command, "--wide")...); !strings.Contains(stdout, long+"\n") {
			t.Errorf("%v --wide cuts:\n%s", command, stdout)
		}
	}
}

// TestStatusTakingOver: the first in line has not acknowledged yet.
func TestStatusTakingOver(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	_, c := member(t, servers, "slow")
	winning := make(chan struct{})
	c.OnWin(func(ctx context.Context, _ election.Term) error { close(winning); <-ctx.Done(); return nil })
	if err := c.Vote(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-winning
	status, stdout, _ := zkelect(t, servers, "status", "--election", electionOf(t))
	if status != exitNoLeader || !strings.Contains(stdout, "takes over  0x") {
		t.Errorf("status %d\n%s", status, stdout)
	}
}

func TestList(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		root := fmt.Sprintf("/root-%d", time.Now().UnixNano()) // a new one in each run
		status, stdout, stderr := zkelect(t, servers, "list", "--root", root)
		if status != 0 || stdout != "" || !strings.Contains(stderr, "no elections below "+root) {
			t.Errorf("nothing there: status %d, %q, %q", status, stdout, stderr)
		}
		s, err := election.Connect([]string{servers}, 10*time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		for i := range 40 { // more than are read at a time
			c, err := election.NewCandidate(s, fmt.Sprintf("e/%02d", i), &election.CandidateOptions{Root: root, Data: fmt.Appendf(nil, "d%d", i)})
			if err != nil {
				t.Fatal(err)
			}
			campaign(t, c)
			if i == 7 {
				if err := c.Resign(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		status, stdout, _ = zkelect(t, servers, "list", "--root", root)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		if status != 0 || len(lines) != 41 {
			t.Fatalf("status %d, %d lines\n%s", status, len(lines), stdout)
		}
		for i, want := range map[int]string{0: "ELECTION CANDIDATES LEADER", 1: "e__00 1 d0", 8: "e__07 0 -", 40: "e__39 1 d39"} {
			if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
				t.Errorf("line %d: %q, want %q", i, got, want)
			}
		}
		_, stdout, _ = zkelect(t, servers, "list", "--json", "--root", root)
		if n := strings.Count(stdout, "\n"); n != 40 {
			t.Errorf("%d lines of JSON", n)
		}
		if !strings.Contains(stdout, `{"election":"e__07","candidates":0,"leader":null}`+"\n"+`{"election":"e__08","candidates":1,"leader":{"data":"d8","session":"0x`) {
			t.Errorf("the JSON:\n%s", stdout)
		}
	})
}
