package election

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPriorityOf(t *testing.T) {
	tag := strings.Repeat("0f", tagDigits/2)
	for _, test := range []struct {
		name     string
		priority int
		ok       bool
	}{
		{"ballot-" + tag + "-a-0000000007", -9, true},
		{"ballot-" + tag + "-j-0000000007", 0, true},
		{"ballot-" + tag + "-s-2147483647", 9, true},
		{"ballot-" + tag + "-j--000000005", 0, true}, // beyond the counter's end
		{"ballot-" + tag + "-k--2147483648", 1, true},
		{"ballot-" + tag + "-t-0000000007", 0, false},
		{"ballot-" + tag + "-J-0000000007", 0, false},
		{"ballot-" + tag + "--9-000000007", 0, false},
		{"ballot-" + tag + "-0000000007", 0, false}, // before this version
		{"ballot0000000007", 0, false},              // the gem's
		{"ballot-x-k-0000000007", 0, false},
		{"ballot-" + tag + "-k-x0000000007", 0, false},
		{"ballot-" + tag + "-k-00000000007", 0, false},
		{"ballot-" + strings.ToUpper(tag) + "-k-0000000007", 0, false},
		{"transfer-" + tag + "-k-0000000007", 0, false},
		{"", 0, false},
	} {
		priority, ok := priorityOf(test.name)
		assert.Equal(t, test.ok, ok, test.name)
		if ok {
			assert.Equal(t, test.priority, priority, test.name)
		}
	}
	for priority := lowestPriority; priority <= highestPriority; priority++ {
		require.NoError(t, checkPriority(priority))
		name := "ballot-" + tag + "-" + priorityLetter(priority) + "-0000000012"
		got, ok := priorityOf(name)
		assert.True(t, ok)
		assert.Equal(t, priority, got)
		parsed, ok := parseBallot(name) // as every version before does
		assert.True(t, ok)
		assert.EqualValues(t, 12, parsed.sequence)
	}
	assert.Error(t, checkPriority(lowestPriority-1))
	assert.Error(t, checkPriority(highestPriority+1))
}

// lineOf makes a line of ballots; "" is one that shows no priority.
func lineOf(letters ...string) (line []child) {
	for i, letter := range letters {
		name := fmt.Sprintf("ballot-%016x-%s-%010d", i, letter, i)
		if letter == "" {
			name = fmt.Sprintf("ballot%010d", i)
		}
		b, ok := parseBallot(name)
		if !ok {
			panic(name)
		}
		line = append(line, b)
	}
	return line
}

func TestGivesWay(t *testing.T) {
	for _, test := range []struct {
		line string
		want string // which of them are to go
	}{
		{"j", "-"},
		{"jj", "--"},
		{"js", "--"}, // the leader is never unseated
		{"jjs", "-x-"},
		{"jsj", "---"},
		{"jkkk", "----"},
		{"jjks", "--x-"}, // j waits until those better than it are in order
		{"jjsk", "-x--"},
		{"sjk", "-x-"},   // the leader does not count
		{"jj.s", "-x--"}, // what shows no priority is passed over
		{"jjs.", "-x--"},
		{".js", "-x-"},
		{"j.", "--"},
		{"jsjks", "---x-"},
	} {
		var letters []string
		for _, l := range test.line {
			letters = append(letters, strings.Trim(string(l), "."))
		}
		line := lineOf(letters...)
		got := ""
		for _, b := range line {
			if givesWay(line, b.name) {
				got += "x"
			} else {
				got += "-"
			}
		}
		assert.Equal(t, test.want, got, test.line)
		assert.False(t, givesWay(line, "ballot-none"))
	}
}

// Whatever the order in which those who may go do so, n waiting candidates are in order
// after at most n-1 moves. Checked for every line of up to seven with different
// priorities, and of up to five with any.
func TestGivesWayEnds(t *testing.T) {
	longest := func(start string) int {
		memo := make(map[string]int)
		var most func(line string) int
		most = func(line string) int {
			if n, ok := memo[line]; ok {
				return n
			}
			memo[line] = -1 << 20 // a cycle would be seen as nonsense below
			letters := append([]string{"j"}, strings.Split(line, "")...)
			ballots := lineOf(letters...)
			n, eligible := 0, false
			for i := range line {
				if givesWay(ballots, ballots[i+1].name) {
					eligible = true
					n = max(n, 1+most(line[:i]+line[i+1:]+line[i:i+1]))
				}
			}
			if !eligible {
				sorted := []byte(line)
				slices.SortStableFunc(sorted, func(a, b byte) int { return int(b) - int(a) })
				require.Equal(t, string(sorted), line, "nobody goes, and they are not in order")
			}
			memo[line] = n
			return n
		}
		return most(start)
	}
	var lines func(prefix, left string, same bool, n int)
	lines = func(prefix, left string, same bool, n int) {
		if len(prefix) == n {
			moves := longest(prefix)
			require.GreaterOrEqual(t, moves, 0, prefix)
			require.LessOrEqual(t, moves, n-1, prefix)
			return
		}
		for i := range left {
			rest := left
			if !same {
				rest = left[:i] + left[i+1:]
			}
			lines(prefix+left[i:i+1], rest, same, n)
		}
	}
	most := 7
	if testing.Short() {
		most = 5
	}
	for n := 1; n <= most; n++ {
		lines("", "abcdefg"[:n], false, n)
	}
	for n := 1; n <= 5; n++ {
		lines("", "abcde"[:n], true, n)
	}
}

func FuzzPriorityOf(f *testing.F) {
	tag := strings.Repeat("0f", tagDigits/2)
	for _, name := range []string{"ballot0000000007", "ballot-" + tag + "-j-0000000007", "ballot-" + tag + "-0000000007", "leader_ack", ""} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		priority, ok := priorityOf(name)
		if !ok {
			return
		}
		if checkPriority(priority) != nil || isGemStyle(name) {
			t.Errorf("%q: priority %d", name, priority)
		}
		number := name[strings.LastIndex(name, "-")+1:]
		if b, isBallot := parseBallot(name); len(number) == sequenceDigits && number <= "2147483647" && (!isBallot || b.sequence < -sequenceEnd-1) {
			t.Errorf("%q shows a priority and is no ballot", name)
		}
	})
}
