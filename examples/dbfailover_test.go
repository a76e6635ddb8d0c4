package examples_test

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestDBFailover(t *testing.T) {
	t.Parallel()
	onBoth(t, "dbfailover", checkTimeline)
}

var (
	timelineLine = regexp.MustCompile(`^ *(\d+\.\d{3}) s  (\S+) +(.*)$`)
	actLine      = regexp.MustCompile(`^ +---- (\S+), the master, (.*)$`)
	winsLine     = regexp.MustCompile(`^WINS and becomes the master \(fencing token (\d+)\)$`)
	stepLine     = regexp.MustCompile(`^STEPS DOWN \(election: (.*)\)$`)
	followLine   = regexp.MustCompile(`^replicates from (\S+)\.fqdn\.tld:4567$`)
	clientLine   = regexp.MustCompile(`^RECONNECTS to (\S+)\.fqdn\.tld:4567 \(no acknowledged master for (\d+\.\d) ms\)$`)
	summaryLine  = regexp.MustCompile(`^(\S.*?) +(\S+) -> (\S+) +(\d+\.\d) ms +(\d+\.\d) ms$`)
)

// timeline replays what the example printed.
type timeline struct {
	now, vacant float64 // seconds
	master      string  // who leads, as told by WINS and STEPS DOWN
	token       int
	replicas    map[string]bool // of the present master
	client      string          // whom the client talks to
	act         string
	history     []string // act, old master, new master: as the summary tells it
	joined      map[string]bool
}

// checkTimeline finds what a timeline of a correct election cannot show.
func checkTimeline(output string) error {
	l := &timeline{replicas: map[string]bool{}, joined: map[string]bool{}}
	var errs []error
	var summary []string
	for line := range strings.SplitSeq(output, "\n") {
		var err error
		if m := timelineLine.FindStringSubmatch(line); m != nil {
			err = l.entry(m[1], m[2], m[3])
		} else if m := actLine.FindStringSubmatch(line); m != nil {
			err = l.begin(m[1], m[2])
		} else if m := summaryLine.FindStringSubmatch(line); m != nil {
			summary = append(summary, fmt.Sprintf("%s: %s, %s", m[1], m[2], m[3]))
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
	for what, got := range map[string][]string{"timeline": l.history, "summary": summary} {
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			errs = append(errs, fmt.Errorf("the %s tells %q, want %q", what, got, want))
		}
	}
	return errors.Join(errs...)
}

// begin is the end of the present master.
func (l *timeline) begin(who, act string) error {
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

func (l *timeline) entry(at, who, what string) error {
	now, err := strconv.ParseFloat(at, 64)
	if err != nil {
		return err
	}
	if now < l.now {
		return errors.New("time goes back")
	}
	l.now = now
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
		return l.reconnects(m[1], m[2])
	} else if what == "has no master" && who == "client" {
		l.client, l.vacant = "", now
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

func (l *timeline) reconnects(master, gap string) error {
	if master != l.master {
		return fmt.Errorf("the master is %q", l.master)
	}
	l.client = master
	// The lines tell whole milliseconds.
	told, err := strconv.ParseFloat(gap, 64)
	if seen := 1000 * (l.now - l.vacant); err != nil || told > seen+1.1 {
		return fmt.Errorf("it was %.0f ms without a master", seen)
	}
	return nil
}

// TestCheckTimeline is the negative control: each of these changes to a good
// timeline is a fault that the check must see.
func TestCheckTimeline(t *testing.T) {
	if err := checkTimeline(goodTimeline); err != nil {
		t.Fatalf("a good timeline is refused: %v", err)
	}
	for _, fault := range [][2]string{
		{"   0.018 s  dbhost1  STEPS DOWN (election: resigned)\n", ""},                             // two masters
		{"(fencing token 8)", "(fencing token 6)"},                                                 // the token stands still
		{"0.033 s  dbhost2  replicates", "0.003 s  dbhost2  replicates"},                           // time goes back
		{"   4.504 s  dbhost2  replicates from dbhost1.fqdn.tld:4567\n", ""},                       // a deaf replica
		{"0.022 s  dbhost3  replicates from dbhost2", "0.022 s  dbhost3  replicates from dbhost1"}, // of the old master
		{"0.022 s  client   RECONNECTS to dbhost2", "0.022 s  client   RECONNECTS to dbhost1"},     // the client, too
		{"   4.504 s  client   RECONNECTS to dbhost1.fqdn.tld:4567 (no acknowledged master for 2.0 ms)\n", ""},
		{"for 2.3 ms", "for 123.0 ms"},
		{"3.746 s  dbhost3  STEPS DOWN (election: lease lapsed)", "3.746 s  dbhost3  STEPS DOWN (election: resigned)"},
		{"dbhost2 -> dbhost3", "dbhost2 -> dbhost1"},
		{"   4.503 s  dbhost1  WINS", "   4.503 s  dbhost2  WINS"},
		{"---- dbhost2, the master", "---- dbhost1, the master"},
		{"closes its session  dbhost2 -> dbhost3       4.5 ms       1.5 ms\n", ""},
		{"\nthe master   ", "panic: oh\nthe master   "},
	} {
		bad := strings.Replace(goodTimeline, fault[0], fault[1], 1)
		if bad == goodTimeline {
			t.Fatalf("%q does not occur", fault[0])
		}
		if err := checkTimeline(bad); err == nil {
			t.Errorf("not seen: %q for %q", fault[1], fault[0])
		}
	}
	if err := checkTimeline(""); err == nil {
		t.Error("not seen: nothing at all")
	}
}

const goodTimeline = `   0.005 s  client   has no master
   0.006 s  dbhost1  joins
   0.008 s  dbhost2  joins
   0.013 s  dbhost1  WINS and becomes the master (fencing token 6)
   0.013 s  dbhost3  joins
   0.017 s  client   RECONNECTS to dbhost1.fqdn.tld:4567 (no acknowledged master for 11.9 ms)
   0.017 s  dbhost3  replicates from dbhost1.fqdn.tld:4567
   0.018 s  dbhost2  replicates from dbhost1.fqdn.tld:4567
            ---- dbhost1, the master, resigns
   0.018 s  dbhost1  STEPS DOWN (election: resigned)
   0.020 s  client   has no master
   0.021 s  dbhost2  WINS and becomes the master (fencing token 8)
   0.022 s  client   RECONNECTS to dbhost2.fqdn.tld:4567 (no acknowledged master for 2.3 ms)
   0.022 s  dbhost3  replicates from dbhost2.fqdn.tld:4567
   0.024 s  dbhost1  replicates from dbhost2.fqdn.tld:4567
            ---- dbhost2, the master, closes its session
   0.024 s  dbhost2  STEPS DOWN (election: closed)
   0.027 s  client   has no master
   0.027 s  dbhost3  WINS and becomes the master (fencing token 12)
   0.028 s  client   RECONNECTS to dbhost3.fqdn.tld:4567 (no acknowledged master for 1.5 ms)
   0.029 s  dbhost1  replicates from dbhost3.fqdn.tld:4567
   0.030 s  dbhost2  joins
   0.033 s  dbhost2  replicates from dbhost3.fqdn.tld:4567
            ---- dbhost3, the master, loses its session
   3.746 s  dbhost3  STEPS DOWN (election: lease lapsed)
   4.502 s  client   has no master
   4.503 s  dbhost1  WINS and becomes the master (fencing token 18)
   4.504 s  client   RECONNECTS to dbhost1.fqdn.tld:4567 (no acknowledged master for 2.0 ms)
   4.504 s  dbhost2  replicates from dbhost1.fqdn.tld:4567
   6.177 s  dbhost3  replicates from dbhost1.fqdn.tld:4567
   6.180 s  dbhost1  STEPS DOWN (election: closed)

the master          the next               failover       no ack
resigns             dbhost1 -> dbhost2       4.9 ms       2.3 ms
closes its session  dbhost2 -> dbhost3       4.5 ms       1.5 ms
loses its session   dbhost3 -> dbhost1    4471.0 ms       2.0 ms
`
