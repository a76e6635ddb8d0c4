package examples_test

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSwitchover(t *testing.T) {
	t.Parallel()
	onBoth(t, "switchover", checkSwitchover, lasting)
}

// switchoverStory is what is told in whatever order the replicas are, which say
// whom they replicate from in lines of their own.
var switchoverStory = regexp.MustCompile(`^dbhost1  joins
dbhost1  WINS and is the master from write 1 on \(fencing token (\d+)\)
dbhost2  joins
dbhost3  joins
----     the disk of dbhost3 is slow
dbhost3  STANDS ASIDE \(election: resigned, since it is not ready: (\d+) writes behind\)
operator moves the master to dbhost3
operator FAILS \(election: the target of the transfer does not stand any more\)
dbhost3  says why \(election: resigned, since it is not ready: (\d+) writes behind\)
operator moves the master to dbhost2
dbhost1  STEPS DOWN after write (\d+) \(election: leadership is passed on\)
dbhost2  WINS and is the master from write (\d+) on \(fencing token (\d+)\)
operator is DONE: dbhost2 is the master
----     the disk of dbhost3 is well again
dbhost3  STANDS again
operator moves the master to dbhost3
dbhost2  STEPS DOWN after write (\d+) \(election: leadership is passed on\)
dbhost3  WINS and is the master from write (\d+) on \(fencing token (\d+)\)
operator is DONE: dbhost3 is the master
dbhost3  STEPS DOWN after write (\d+) \(election: closed\)

the master           moved in  of it without a master
dbhost1 -> dbhost2 +([\d.]+) ms +([\d.]+) ms
dbhost2 -> dbhost3 +([\d.]+) ms +([\d.]+) ms
$`)

var (
	switchoverLine = regexp.MustCompile(`^ *(\d+\.\d{3}) s  (.*)$`)
	replicatesLine = regexp.MustCompile(`^(dbhost\d)  replicates from (dbhost\d)$`)
)

// checkSwitchover finds a master that was not asked for, writes that were lost
// or taken by two, and a replica that follows nobody.
func checkSwitchover(output string) error {
	var story strings.Builder
	var errs []error
	masters, master, last := map[string]map[string]bool{}, "", 0.0
	for line := range strings.Lines(output) {
		text := strings.TrimSuffix(line, "\n")
		if m := switchoverLine.FindStringSubmatch(text); m != nil {
			now, err := strconv.ParseFloat(m[1], 64)
			if err != nil || now < last {
				errs = append(errs, fmt.Errorf("time goes back: %q", text))
			}
			last, text = now, m[2]
		}
		if m := replicatesLine.FindStringSubmatch(text); m != nil {
			if m[2] != master || m[1] == master {
				errs = append(errs, fmt.Errorf("%q while %q is the master", text, master))
			} else {
				masters[master][m[1]] = true
			}
			continue
		}
		if who, _, wins := strings.Cut(text, "  WINS "); wins {
			master = who
			masters[who] = map[string]bool{}
		}
		story.WriteString(text + "\n")
	}
	m := switchoverStory.FindStringSubmatch(story.String())
	if m == nil {
		return errors.Join(append(errs, fmt.Errorf("want this, beside who replicates:\n%s", switchoverStory))...)
	}
	number := func(i int) float64 {
		value, err := strconv.ParseFloat(m[i], 64)
		errs = append(errs, err)
		return value
	}
	if number(2) <= 100 || number(3) < number(2) {
		errs = append(errs, errors.New("it stands aside before it has to, or catches up though it cannot"))
	}
	for _, pair := range [][2]int{{4, 5}, {7, 8}} {
		if number(pair[1]) != number(pair[0])+1 {
			errs = append(errs, fmt.Errorf("the former master has stopped after write %s, the next begins with %s", m[pair[0]], m[pair[1]]))
		}
	}
	if number(1) >= number(6) || number(6) >= number(9) || number(8) > number(10)+1 {
		errs = append(errs, errors.New("tokens, or writes, go back"))
	}
	for _, pair := range [][2]int{{11, 12}, {13, 14}} {
		if number(pair[1]) <= 0 || number(pair[1]) > number(pair[0]) {
			errs = append(errs, fmt.Errorf("%s ms without a master of %s ms", m[pair[1]], m[pair[0]]))
		}
	}
	for _, want := range []string{"dbhost1", "dbhost2", "dbhost3"} {
		if len(masters[want]) != 2 {
			errs = append(errs, fmt.Errorf("%s is the master, and %v replicate", want, masters[want]))
		}
	}
	return errors.Join(errs...)
}

// TestCheckSwitchover is the negative control.
func TestCheckSwitchover(t *testing.T) {
	require.NoError(t, checkSwitchover(goodSwitchover), "what is good is refused")
	for _, fault := range [][2]string{
		{"from write 2711 on", "from write 2710 on"}, // a write that two have taken
		{"from write 2752 on", "from write 2760 on"}, // writes that are lost
		{"token 46", "token 12"},
		{"not ready: 151 writes behind)\n   6.448 s  op", "not ready: 99 writes behind)\n   6.448 s  op"},
		{"6.451 s  dbhost1  STEPS", "6.351 s  dbhost1  STEPS"},
		{"   6.451 s  dbhost1  STEPS DOWN after write 2710 (election: leadership is passed on)\n", ""},
		{"operator FAILS", "operator is DONE"},
		{"   6.554 s  dbhost1  replicates from dbhost3\n", ""},
		{"6.453 s  dbhost1  replicates from dbhost2", "6.453 s  dbhost1  replicates from dbhost1"},
		{"6.453 s  dbhost1  replicates", "6.453 s  dbhost2  replicates"},
		{"5.0 ms     0.6 ms", "5.0 ms     6.6 ms"},
		{"\nthe master ", "panic: oh\nthe master "},
	} {
		bad := strings.Replace(goodSwitchover, fault[0], fault[1], 1)
		require.False(t, bad == goodSwitchover, "%q does not occur", fault[0])
		assert.Error(t, checkSwitchover(bad), "not seen: %q for %q", fault[1], fault[0])
	}
	assert.Error(t, checkSwitchover(""), "not seen: nothing at all")
}

const goodSwitchover = `   0.035 s  dbhost1  joins
   0.037 s  dbhost1  WINS and is the master from write 1 on (fencing token 6)
   0.043 s  dbhost2  joins
   0.046 s  dbhost2  replicates from dbhost1
   0.046 s  dbhost3  joins
   0.047 s  dbhost3  replicates from dbhost1
   6.050 s  ----     the disk of dbhost3 is slow
   6.448 s  dbhost3  STANDS ASIDE (election: resigned, since it is not ready: 151 writes behind)
   6.448 s  operator moves the master to dbhost3
   6.448 s  operator FAILS (election: the target of the transfer does not stand any more)
   6.448 s  dbhost3  says why (election: resigned, since it is not ready: 151 writes behind)
   6.448 s  operator moves the master to dbhost2
   6.451 s  dbhost1  STEPS DOWN after write 2710 (election: leadership is passed on)
   6.452 s  dbhost2  WINS and is the master from write 2711 on (fencing token 12)
   6.453 s  dbhost1  replicates from dbhost2
   6.453 s  operator is DONE: dbhost2 is the master
   6.453 s  ----     the disk of dbhost3 is well again
   6.548 s  dbhost3  replicates from dbhost2
   6.549 s  dbhost3  STANDS again
   6.549 s  operator moves the master to dbhost3
   6.552 s  dbhost2  STEPS DOWN after write 2751 (election: leadership is passed on)
   6.553 s  dbhost3  WINS and is the master from write 2752 on (fencing token 46)
   6.554 s  dbhost1  replicates from dbhost3
   6.555 s  operator is DONE: dbhost3 is the master
   6.556 s  dbhost2  replicates from dbhost3
   6.559 s  dbhost3  STEPS DOWN after write 2754 (election: closed)

the master           moved in  of it without a master
dbhost1 -> dbhost2     5.0 ms     0.6 ms
dbhost2 -> dbhost3     5.4 ms     0.8 ms
`
