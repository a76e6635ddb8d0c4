package examples_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDBFailover(t *testing.T) {
	t.Parallel()
	onBoth(t, "dbfailover", checkTimeline)
}

// TestColours runs the demo as on a terminal: it is in colours, unless the
// reader wants none. That a pipe gets none the other tests show.
func TestColours(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil && os.Getenv("ELECTION_REQUIRE_CHECKERS") == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip("no script(1), which makes a terminal")
	}
	for _, test := range []struct {
		environment string
		colours     bool
	}{
		{"TERM=xterm NO_COLOR=", true}, {"TERM=xterm NO_COLOR=1", false}, {"TERM=dumb NO_COLOR=", false},
	} {
		t.Run(test.environment, func(t *testing.T) {
			t.Parallel()
			binary := filepath.Join(binaries, "dbfailover")
			cmd := exec.CommandContext(t.Context(), script, "-qec", "env "+test.environment+" "+binary+" -pace 1ms -timeout 6s", "/dev/null")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			require.Contains(t, string(out), "loses its session")
			assert.Equal(t, test.colours, strings.Contains(string(out), "\x1b["), "%q", out)
			for _, line := range []string{"\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"} {
				assert.Equal(t, test.colours, strings.Contains(string(out), line), "%q", line)
			}
		})
	}
}

var (
	timelineLine = regexp.MustCompile(`^ *(\d+\.\d{3}) s  (\S+) +(.*)$`)
	actLine      = regexp.MustCompile(`^ *(\d+\.\d{3}) s  ---- +(\S+), the master, (.*)$`)
	winsLine     = regexp.MustCompile(`^WINS and becomes the master \(fencing token (\d+)\)$`)
	stepLine     = regexp.MustCompile(`^STEPS DOWN \(election: (.*)\)$`)
	followLine   = regexp.MustCompile(`^replicates from (\S+)\.fqdn\.tld:4567$`)
	clientLine   = regexp.MustCompile(`^RECONNECTS to (\S+)\.fqdn\.tld:4567 \((\d+\.\d) ms unaware, (\d+\.\d) ms without a master\)$`)
	summaryLine  = regexp.MustCompile(`^(\S.*?) +(\S+) -> (\S+) +(\d+\.\d) ms = +(\d+\.\d) ms \+ +(\d+\.\d) ms$`)
	firstLine    = regexp.MustCompile(`^ *\d+\.\d{3} s +T, the session timeout, is 4s; ZooKeeper is \S+:\d+$`)
)

// timeline replays what the example printed.
type timeline struct {
	now          float64 // seconds
	killed, told float64 // when the act began, and when the client knew of no master
	master       string  // who leads, as told by WINS and STEPS DOWN
	token        int
	replicas     map[string]bool // of the present master
	client       string          // whom the client talks to
	act          string
	history      []string // act, old master, new master: as the summary tells it
	joined       map[string]bool
}

// checkTimeline finds what a timeline of a correct election cannot show.
func checkTimeline(output string) error {
	l := &timeline{replicas: map[string]bool{}, joined: map[string]bool{}}
	var errs []error
	var summary []string
	for i, line := range strings.Split(output, "\n") {
		var err error
		if i == 0 || firstLine.MatchString(line) {
			if i != 0 || !firstLine.MatchString(line) {
				err = errors.New("the first line tells T, and no other does")
			}
		} else if m := actLine.FindStringSubmatch(line); m != nil {
			err = l.begin(m[1], m[2], m[3])
		} else if m := timelineLine.FindStringSubmatch(line); m != nil {
			err = l.entry(m[1], m[2], m[3])
		} else if m := summaryLine.FindStringSubmatch(line); m != nil {
			summary = append(summary, fmt.Sprintf("%s: %s, %s (%s, %s)", m[1], m[2], m[3], m[5], m[6]))
			err = addsUp(m[4], m[5], m[6])
		} else if line != "" && !strings.HasPrefix(line, "the master ") {
			err = errors.New("not understood")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: %q", err, line))
		}
	}
	want := []string{
		"resigns: dbhost1, dbhost2", "closes its session: dbhost2, dbhost3", "loses its session: dbhost3, dbhost1",
	}
	for i, act := range want {
		if len(l.history) != len(want) || !strings.HasPrefix(l.history[i], act+" (") {
			errs = append(errs, fmt.Errorf("the timeline tells %q, want %q", l.history, want))
			break
		}
	}
	if strings.Join(summary, "; ") != strings.Join(l.history, "; ") {
		errs = append(errs, fmt.Errorf("the summary tells %q, the timeline %q", summary, l.history))
	}
	return errors.Join(errs...)
}

// addsUp checks the sum in a line of the summary, whose parts are rounded.
func addsUp(sum string, parts ...string) error {
	total, err := strconv.ParseFloat(sum, 64)
	for _, part := range parts {
		value, failed := strconv.ParseFloat(part, 64)
		total, err = total-value, errors.Join(err, failed)
	}
	if err != nil || math.Abs(total) > 0.16 {
		return fmt.Errorf("%s is not the sum of %v (%w)", sum, parts, err)
	}
	return nil
}

// begin is the end of the present master.
func (l *timeline) begin(at, who, act string) error {
	if err := l.advance(at); err != nil {
		return err
	}
	l.killed = l.now
	if err := l.settled(); err != nil {
		return err
	}
	if who != l.master {
		return fmt.Errorf("%s is the master", l.master)
	}
	l.act = act
	l.history = append(l.history, act+": "+who)
	return nil
}

// settled is when a master leads, the client talks to it and all others
// replicate from it.
func (l *timeline) settled() error {
	if l.master == "" || l.client != l.master || len(l.replicas) != 2 || len(l.joined) != 3 {
		return fmt.Errorf("the master is %q, the client's %q, the replicas %v", l.master, l.client, l.replicas)
	}
	return nil
}

func (l *timeline) advance(at string) error {
	now, err := strconv.ParseFloat(at, 64)
	if err != nil {
		return err
	}
	if now < l.now {
		return errors.New("time goes back")
	}
	l.now = now
	return nil
}

func (l *timeline) entry(at, who, what string) error {
	if err := l.advance(at); err != nil {
		return err
	}
	if m := winsLine.FindStringSubmatch(what); m != nil {
		return l.wins(who, m[1])
	} else if m := stepLine.FindStringSubmatch(what); m != nil {
		return l.stepsDown(who, m[1])
	} else if m := followLine.FindStringSubmatch(what); m != nil {
		if m[1] != l.master || who == l.master || l.replicas[who] {
			return fmt.Errorf("the master is %q, its replicas %v", l.master, l.replicas)
		}
		l.replicas[who] = true
		return nil
	} else if m := clientLine.FindStringSubmatch(what); m != nil && who == "client" {
		return l.reconnects(m[1], m[2], m[3])
	} else if what == "has no master" && who == "client" {
		l.client, l.told = "", l.now
		return nil
	} else if what == "is CUT OFF, and nobody knows it yet" && who == l.master && l.act == "loses its session" && l.client == who {
		return nil
	} else if what == "joins" {
		l.joined[who] = true
		return nil
	}
	return errors.New("not understood")
}

func (l *timeline) wins(who, token string) error {
	if l.master != "" {
		return fmt.Errorf("%s is the master still", l.master)
	}
	number, err := strconv.Atoi(token)
	if err != nil || number <= l.token {
		return fmt.Errorf("the token before was %d", l.token)
	}
	l.master, l.token = who, number
	clear(l.replicas)
	if l.act != "" {
		l.history[len(l.history)-1] += ", " + who
	}
	return nil
}

func (l *timeline) stepsDown(who, cause string) error {
	if who != l.master {
		return fmt.Errorf("the master is %q", l.master)
	}
	want := map[string]string{"resigns": "resigned", "closes its session": "closed", "loses its session": "lease lapsed"}[l.act]
	if l.act == "loses its session" && len(l.replicas) == 2 && cause == "closed" {
		l.master = "" // the end of the show
		return l.checkLast(who)
	}
	if cause != want {
		return fmt.Errorf("the cause should be %q", want)
	}
	l.master = ""
	return nil
}

func (l *timeline) checkLast(who string) error {
	if l.client != who {
		return fmt.Errorf("the client talks to %q in the end", l.client)
	}
	return nil
}

func (l *timeline) reconnects(master, unaware, without string) error {
	if master != l.master {
		return fmt.Errorf("the master is %q", l.master)
	}
	l.client = master
	// The lines tell whole milliseconds.
	gone, err1 := strconv.ParseFloat(unaware, 64)
	none, err2 := strconv.ParseFloat(without, 64)
	if seen := 1000 * (l.now - l.told); err1 != nil || err2 != nil || none > seen+1.1 {
		return fmt.Errorf("it was %.0f ms without a master", seen)
	}
	if l.act == "" {
		return nil
	}
	if seen := 1000 * (l.told - l.killed); math.Abs(gone-seen) > 1.1 {
		return fmt.Errorf("for %.0f ms it did not know that the master was gone", seen)
	}
	// Nobody is told of a dead master before its session can have expired.
	if l.act == "loses its session" && gone < 3000 {
		return errors.New("so early nobody can know of it")
	}
	l.history[len(l.history)-1] += fmt.Sprintf(" (%s, %s)", unaware, without)
	return nil
}

// TestCheckTimeline is the negative control: each of these changes to a good
// timeline is a fault that the check must see.
func TestCheckTimeline(t *testing.T) {
	require.NoError(t, checkTimeline(goodTimeline), "a good timeline is refused")
	for _, fault := range [][2]string{
		{"   0.018 s  dbhost1  STEPS DOWN (election: resigned)\n", ""},                             // two masters
		{"(fencing token 8)", "(fencing token 6)"},                                                 // the token stands still
		{"0.033 s  dbhost2  replicates", "0.003 s  dbhost2  replicates"},                           // time goes back
		{"   4.504 s  dbhost2  replicates from dbhost1.fqdn.tld:4567\n", ""},                       // a deaf replica
		{"0.022 s  dbhost3  replicates from dbhost2", "0.022 s  dbhost3  replicates from dbhost1"}, // of the old master
		{"0.022 s  client   RECONNECTS to dbhost2", "0.022 s  client   RECONNECTS to dbhost1"},     // the client, too
		{"   4.504 s  client   RECONNECTS to dbhost1.fqdn.tld:4567 (4469.2 ms unaware, 2.0 ms without a master)\n", ""},
		{"2.3 ms without a master", "123.0 ms without a master"},
		{"4469.2 ms unaware", "0.1 ms unaware"},                // 4.4 s of a dead master, hidden
		{"4469.2 ms +      2.0 ms", "   0.1 ms +      2.0 ms"}, // the same in the summary
		{"4471.2 ms =   4469.2 ms", "   2.0 ms =   4469.2 ms"}, // the same in the sum
		{"   0.033 s  dbhost3  is CUT OFF", "   0.033 s  dbhost1  is CUT OFF"},
		{"   0.004 s           T, the session timeout, is 4s; ZooKeeper is 127.0.0.1:33571\n", ""},
		{"3.746 s  dbhost3  STEPS DOWN (election: lease lapsed)", "3.746 s  dbhost3  STEPS DOWN (election: resigned)"},
		{"dbhost2 -> dbhost3", "dbhost2 -> dbhost1"},
		{"   4.503 s  dbhost1  WINS", "   4.503 s  dbhost2  WINS"},
		{"----     dbhost2, the master", "----     dbhost1, the master"},
		{"closes its session  dbhost2 -> dbhost3       4.2 ms =      2.6 ms +      1.5 ms\n", ""},
		{"\nthe master   ", "panic: oh\nthe master   "},
	} {
		bad := strings.Replace(goodTimeline, fault[0], fault[1], 1)
		require.False(t, bad == goodTimeline, "%q does not occur", fault[0])
		assert.Error(t, checkTimeline(bad), "not seen: %q for %q", fault[1], fault[0])
	}
	assert.Error(t, checkTimeline(""), "not seen: nothing at all")
}

const goodTimeline = `   0.004 s           T, the session timeout, is 4s; ZooKeeper is 127.0.0.1:33571
   0.005 s  client   has no master
   0.006 s  dbhost1  joins
   0.008 s  dbhost2  joins
   0.013 s  dbhost1  WINS and becomes the master (fencing token 6)
   0.013 s  dbhost3  joins
   0.017 s  client   RECONNECTS to dbhost1.fqdn.tld:4567 (5.1 ms unaware, 11.9 ms without a master)
   0.017 s  dbhost3  replicates from dbhost1.fqdn.tld:4567
   0.018 s  dbhost2  replicates from dbhost1.fqdn.tld:4567
   0.018 s  ----     dbhost1, the master, resigns
   0.018 s  dbhost1  STEPS DOWN (election: resigned)
   0.020 s  client   has no master
   0.021 s  dbhost2  WINS and becomes the master (fencing token 8)
   0.022 s  client   RECONNECTS to dbhost2.fqdn.tld:4567 (2.4 ms unaware, 2.3 ms without a master)
   0.022 s  dbhost3  replicates from dbhost2.fqdn.tld:4567
   0.024 s  dbhost1  replicates from dbhost2.fqdn.tld:4567
   0.024 s  ----     dbhost2, the master, closes its session
   0.024 s  dbhost2  STEPS DOWN (election: closed)
   0.027 s  client   has no master
   0.027 s  dbhost3  WINS and becomes the master (fencing token 12)
   0.028 s  client   RECONNECTS to dbhost3.fqdn.tld:4567 (2.6 ms unaware, 1.5 ms without a master)
   0.029 s  dbhost1  replicates from dbhost3.fqdn.tld:4567
   0.030 s  dbhost2  joins
   0.033 s  dbhost2  replicates from dbhost3.fqdn.tld:4567
   0.033 s  ----     dbhost3, the master, loses its session
   0.033 s  dbhost3  is CUT OFF, and nobody knows it yet
   3.746 s  dbhost3  STEPS DOWN (election: lease lapsed)
   4.502 s  client   has no master
   4.503 s  dbhost1  WINS and becomes the master (fencing token 18)
   4.504 s  client   RECONNECTS to dbhost1.fqdn.tld:4567 (4469.2 ms unaware, 2.0 ms without a master)
   4.504 s  dbhost2  replicates from dbhost1.fqdn.tld:4567
   6.177 s  dbhost3  replicates from dbhost1.fqdn.tld:4567
   6.180 s  dbhost1  STEPS DOWN (election: closed)

the master          the next               failover =     unaware +     without
resigns             dbhost1 -> dbhost2       4.7 ms =      2.4 ms +      2.3 ms
closes its session  dbhost2 -> dbhost3       4.2 ms =      2.6 ms +      1.5 ms
loses its session   dbhost3 -> dbhost1    4471.2 ms =   4469.2 ms +      2.0 ms
`
