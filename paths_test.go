package election

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestElectionPath(t *testing.T) {
	for _, c := range []struct{ root, name, want string }{
		{"", "db", "/_zkelection/db"},
		{"", "a/b", "/_zkelection/a__b"},
		{"", "/a/", "/_zkelection/__a__"},
		{"/x/y", "db", "/x/y/db"},
		{"", "...", "/_zkelection/..."},
	} {
		got, err := electionPath(c.root, c.name)
		require.NoError(t, err)
		assert.Equal(t, c.want, got, "root %q, name %q", c.root, c.name)
	}
	assert.Equal(t, []string{"/a", "/a/b", "/a/b/c"}, parents("/a/b/c"))
}

func TestParseBallot(t *testing.T) {
	tag, long := strings.Repeat("0f", tagDigits/2), strings.Repeat("0f", 16)
	for _, c := range []struct {
		name string
		want int64
		ok   bool
	}{
		{"ballot0000000007", 7, true},               // the gem's
		{"ballot-" + long + "-0000000007", 7, true}, // of v0.1
		{"ballot-" + tag + "-j-0000000007", 7, true},
		{"ballot-" + tag + "-2147483647", 2147483647, true},
		{"ballot-" + tag + "--000000005", -5, true}, // beyond the counter's end
		{"ballot-" + tag + "--2147483648", -2147483648, true},
		{"ballot-000000005", -5, true},
		{"ballot-x-0000000012", 12, true},
		{"ballot", 0, false},
		{"ballot-x", 0, false},
		{"ballot000000007", 0, false},  // nine digits
		{"ballot9999999999", 0, false}, // no 32-bit number
		{"ballot+000000007", 0, false},
		{"ballot-00000_0007", 0, false},
		{"leader_ack", 0, false},
		{"_c_short", 0, false},
		{"lock-0000000001", 0, false},
	} {
		got, ok := parseBallot(c.name)
		assert.Equal(t, c.ok, ok, c.name)
		assert.Equal(t, c.want, got.sequence, c.name)
	}
}

func TestOrderIsByNumber(t *testing.T) {
	got := ballotsOf([]string{"leader_ack", "ballot-z-0000000003", "ballot0000000010", "ballot-a-0000000020", "ballot-b-0000000002", "x"})
	var names []string
	for _, b := range got {
		names = append(names, b.name)
	}
	want := []string{"ballot-b-0000000002", "ballot-z-0000000003", "ballot0000000010", "ballot-a-0000000020"}
	require.Equal(t, want, names)
	predecessor, second, front := "", "", ""
	for i, name := range want {
		place, ok := standingOf(got, name)
		assert.True(t, ok, name)
		assert.Equal(t, standing{ahead: i, predecessor: predecessor, second: second, front: front}, place, name)
		front = want[0]
		predecessor, second = name, predecessor
	}
	_, ok := standingOf(got, "ballot0000000099")
	assert.False(t, ok, "a ballot that is not there has a place")
}

// A list that is gone through once shows the same place as one that is put in order first, whatever order it comes in:
// with members of the gem, ballots of the same tag and of one number, and priorities.
func TestPlaceInAnyList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const ours = "00000000000000aa"
	moves, transfers := 0, 0
	for range 20_000 {
		var children []string
		for range 1 + random.IntN(7) {
			number := random.IntN(9)
			tag := fmt.Sprintf("%016x", random.IntN(5))
			switch random.IntN(6) {
			case 0:
				children = append(children, fmt.Sprintf("ballot%010d", number))
			case 1:
				tag = ours
				fallthrough
			default:
				children = append(children, fmt.Sprintf("%s%s-%010d", tagPrefix(tag), priorityLetter(random.IntN(3)), number))
			}
		}
		name := children[random.IntN(len(children))]
		if random.IntN(10) == 0 {
			name = "ballot-none"
		}
		for _, more := range []string{leaderAckName, transferName, "ballot", "x"} {
			if random.IntN(2) == 0 {
				children = append(children, more)
			}
		}
		slices.Sort(children)
		children = slices.Compact(children)
		random.Shuffle(len(children), func(i, k int) { children[i], children[k] = children[k], children[i] })
		for _, tag := range []string{"", ours} {
			counted := slices.DeleteFunc(slices.Clone(children), func(other string) bool {
				return tag != "" && other != name && strings.HasPrefix(other, tagPrefix(tag))
			})
			want, stands := standingOf(ballotsOf(counted), name)
			want.transfer, want.acked = slices.Contains(children, transferName), slices.Contains(children, leaderAckName)
			got, ok := placeWithout(children, tag, name)
			require.Equal(t, stands, ok, "%q without %q: %q", name, tag, children)
			require.Equal(t, want, got, "%q without %q: %q", name, tag, children)
			if got.givesWay {
				moves++
			}
			if got.transfer {
				transfers++
			}
		}
	}
	assert.Greater(t, moves, 100)
	assert.Greater(t, transfers, 100)
}

// A name that is accepted makes one valid path component, and none that
// ZooKeeper's rules refuse.
func FuzzElectionPath(f *testing.F) {
	for _, seed := range []string{"db", "a/b", ".", "..", "", "\x00", "é", "😀", "a\u0085", "\xff", "\uf8ff", "__"} {
		f.Add("", seed)
		f.Add("/"+seed, "x")
	}
	f.Fuzz(func(t *testing.T, root, name string) {
		path, err := electionPath(root, name)
		if err != nil {
			if !errors.Is(err, ErrInvalidName) && !errors.Is(err, ErrInvalidPath) {
				t.Fatalf("root %q, name %q: %v", root, name, err)
			}
			return
		}
		component := path[strings.LastIndex(path, "/")+1:]
		require.NotEqual(t, "", component, "root %q, name %q: %q", root, name, path)
		require.NotEqual(t, ".", component, "root %q, name %q: %q", root, name, path)
		require.NotEqual(t, "..", component, "root %q, name %q: %q", root, name, path)
		require.True(t, utf8.ValidString(path), "root %q, name %q: %q", root, name, path)
		require.NotContains(t, path, "//", "root %q, name %q", root, name)
		require.False(t, strings.HasSuffix(path, "/"), "root %q, name %q: %q", root, name, path)
		for _, r := range path {
			if r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 {
				t.Fatalf("root %q, name %q: %q holds %U", root, name, path, r)
			}
		}
		require.Equal(t, component, strings.ReplaceAll(name, "/", "__"), "name %q", name)
	})
}

// Every number that ZooKeeper can append is read back, and order is total.
func FuzzParseBallot(f *testing.F) {
	f.Add("ballot-x-", int32(7))
	f.Add("ballot", int32(-1))
	f.Add("", int32(0))
	f.Fuzz(func(t *testing.T, prefix string, sequence int32) {
		tag := fmt.Sprintf("%016x", uint32(sequence))
		name := strings.TrimPrefix(ballotStem("", tag, int(sequence)%(highestPriority+1)), "/") + fmt.Sprintf("%010d", sequence)
		got, ok := parseBallot(name)
		require.True(t, ok, "%q: %d, %v", name, got.sequence, ok)
		require.Equal(t, int64(sequence), got.sequence, "%q: %d, %v", name, got.sequence, ok)
		require.Len(t, tagged([]string{name}, tag), 1, "%q does not carry the tag %q", name, tag)
		other, ok := parseBallot(prefix) // must not panic, nor give an impossible number
		if ok && other.sequence > sequenceEnd {
			t.Fatalf("%q: %d", prefix, other.sequence)
		}
	})
}

func TestRefusals(t *testing.T) {
	for err, want := range map[error]bool{
		zk.ErrNoAuth: true, zk.ErrInvalidACL: true, zk.ErrNoChildrenForEphemerals: true, ErrSequenceExhausted: true,
		fmt.Errorf("x: %w", ErrOpenElection): true,
		zk.ErrConnectionClosed:               false, zk.ErrSessionExpired: false, zk.ErrNoServer: false, zk.ErrSessionMoved: false,
		zk.ErrNoNode: false, errors.New("unknown error: -127"): false,
	} {
		assert.Equal(t, want, isPermanent(err), "%v: %v", err, !want)
	}
	for err, want := range map[error]bool{
		nil: true, zk.ErrNoNode: true, zk.ErrBadVersion: true, zk.ErrNoAuth: true,
		zk.ErrSessionMoved: false, zk.ErrSessionExpired: false, zk.ErrConnectionClosed: false, errors.New("unknown error: -127"): false,
	} {
		assert.Equal(t, want, isDefinite(err), "answer %v: %v", err, !want)
	}
}
