package examples_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exactly is for examples that always print the same.
func exactly(want string) func(string) error {
	return func(output string) error {
		if output != want {
			return fmt.Errorf("want this output:\n%s", want)
		}
		return nil
	}
}

func TestHTTPService(t *testing.T) {
	t.Parallel()
	onBoth(t, "httpservice", exactly(`the balancer gets "hello from alpha"
  alpha /election/leader 200
  beta  /election/leader 503
  gamma /election/leader 503
alpha is shut down
the balancer gets "hello from beta"
  alpha is down
  beta  /election/leader 200
  gamma /election/leader 503
beta is shut down
the balancer gets "hello from gamma"
  alpha is down
  beta  is down
  gamma /election/leader 200
gamma is shut down
the balancer says: no leader is up
`))
}

func TestDialLeader(t *testing.T) {
	t.Parallel()
	onBoth(t, "dialleader", exactly(`the client asks the leader, red answers
the client asks the leader, red answers
red is gone
the client asks the leader, green answers
the client asks the leader, green answers
green is gone
the client asks the leader, blue answers
the client asks the leader, blue answers
blue is gone
`))
}

func TestFencedStore(t *testing.T) {
	t.Parallel()
	onBoth(t, "fencedstore", checkFencedStore, lasting)
}

var fencedStore = regexp.MustCompile(`^the old leader writes with token (\d+)
its next write is under way, and its network is cut
the new leader has token (\d+), the old one leads: false
the old write arrives: refused: a newer leader has written
the store has: written by the new leader
a guarded write under the old term: zk: node does not exist
a guarded write under the new term: <nil>
$`)

func checkFencedStore(output string) error {
	m := fencedStore.FindStringSubmatch(output)
	if m == nil {
		return fmt.Errorf("want output like:\n%s", fencedStore)
	}
	before, err1 := strconv.Atoi(m[1])
	after, err2 := strconv.Atoi(m[2])
	if err1 != nil || err2 != nil || after <= before {
		return fmt.Errorf("token %s after %s", m[2], m[1])
	}
	return nil
}

func TestSingleton(t *testing.T) {
	t.Parallel()
	onBoth(t, "singleton", checkSingleton)
}

// checkSingleton finds work that was done twice, left out, or done by another
// than the leader.
func checkSingleton(output string) error {
	leader, item := "", 0
	workers := map[string]bool{}
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		switch {
		case item == 30: // each worker then leads for a moment, to find nothing to do
		case strings.HasSuffix(line, " leads\n") && leader == "":
			leader = fields[0]
		case strings.HasSuffix(line, " fails\n") && leader == fields[0]:
			leader = ""
		case strings.Contains(line, " does item ") && leader == fields[0] && fields[3] == strconv.Itoa(item+1):
			item++
			workers[leader] = true
		default:
			return fmt.Errorf("after item %d, while %q leads: %q", item, leader, line)
		}
	}
	if !strings.HasSuffix(output, "\n30 items done, each once\n") || item != 30 || len(workers) != 3 {
		return fmt.Errorf("%d items done by %v", item, workers)
	}
	return nil
}

func TestShards(t *testing.T) {
	t.Parallel()
	onBoth(t, "shards", checkShards)
}

// checkShards wants every shard led at each stage, evenly.
func checkShards(output string) error {
	heading := regexp.MustCompile(`^(all shards led|\w+ has left, its shards taken over) in [\d.]+m?s:$`)
	row := regexp.MustCompile(`^  (\w+) +leads +(\d+) shards$`)
	var stages []map[string]int
	for line := range strings.SplitSeq(strings.TrimSpace(output), "\n") {
		if heading.MatchString(line) {
			stages = append(stages, map[string]int{})
		} else if m := row.FindStringSubmatch(line); m != nil && len(stages) > 0 {
			stages[len(stages)-1][m[1]], _ = strconv.Atoi(m[2]) // digits
		} else {
			return fmt.Errorf("not understood: %q", line)
		}
	}
	if len(stages) != 4 {
		return fmt.Errorf("%d stages", len(stages))
	}
	for i, stage := range stages {
		sum, members := 0, 4-i
		for name, n := range stage {
			if even := 1000 / members; n < even*8/10 || n > even*12/10 {
				return fmt.Errorf("stage %d: %s leads %d shards, with %d members", i, name, n, members)
			}
			sum += n
		}
		if sum != 1000 || len(stage) != members {
			return fmt.Errorf("stage %d: %d shards led by %d members", i, sum, len(stage))
		}
	}
	return nil
}

// TestChecks is the negative control of the checks above.
func TestChecks(t *testing.T) {
	singleton := "a leads\n"
	for i := range 30 {
		if i == 10 || i == 20 {
			singleton += fmt.Sprintf("%c fails\n%c leads\n", "abc"[i/10-1], "abc"[i/10])
		}
		singleton += fmt.Sprintf("%c does item %d\n", "abc"[i/10], i+1)
	}
	singleton += "a leads\n30 items done, each once\n"
	fenced := strings.NewReplacer(`(\d+)`, "5", "^", "", "$", "").Replace(fencedStore.String())
	fenced = strings.Replace(fenced, "leader has token 5", "leader has token 7", 1)
	shards := `all shards led in 1.2s:
  a  leads  250 shards
  b  leads  240 shards
  c  leads  260 shards
  d  leads  250 shards
a has left, its shards taken over in 13ms:
  b  leads  333 shards
  c  leads  334 shards
  d  leads  333 shards
b has left, its shards taken over in 13ms:
  c  leads  500 shards
  d  leads  500 shards
c has left, its shards taken over in 13ms:
  d  leads 1000 shards
`
	for _, test := range []struct {
		check  func(string) error
		good   string
		faults [][2]string
	}{
		{exactly("ab"), "ab", [][2]string{{"b", "c"}}},
		{checkSingleton, singleton, [][2]string{
			{"a does item 3\n", ""},
			{"a does item 3\n", "a does item 3\na does item 3\n"},
			{"a does item 3\n", "b does item 3\n"},
			{"a fails\nb leads\n", "b leads\na fails\n"},
			{"c does item 30\n", ""},
			{"each once\n", ""},
		}},
		{checkFencedStore, fenced, [][2]string{
			{"has token 7", "has token 5"}, {"leads: false", "leads: true"}, {"refused: a newer leader has written", "<nil>"}, {"by the new", "too late by the old"},
		}},
		{checkShards, shards, [][2]string{
			{"  d  leads  250 shards\n", ""},
			{"b  leads  240", "b  leads  241"},
			{"c  leads  500 shards\n  d  leads  500", "c  leads  900 shards\n  d  leads  100"},
			{"c has left, its shards taken over in 13ms:\n  d  leads 1000 shards\n", ""},
			{"all shards led", "panic"},
		}},
	} {
		assert.NoError(t, test.check(test.good), "what is good is refused")
		for _, fault := range test.faults {
			bad := strings.Replace(test.good, fault[0], fault[1], 1)
			require.False(t, bad == test.good, "%q does not occur", fault[0])
			assert.Error(t, test.check(bad), "not seen: %q for %q", fault[1], fault[0])
		}
	}
}
