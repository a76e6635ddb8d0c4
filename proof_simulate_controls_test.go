package election

import (
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// The controls of the simulations: each checker must see what is wrong.

func TestCountControl(t *testing.T) {
	tries := []countTry{
		{"a", 10, countAdded}, {"a", 10, countUnknown}, {"b", 20, countAdded}, {"a", 10, countRefused}, {"b", 20, countUnknown},
	}
	for _, test := range []struct{ name, data, fault string }{
		{"right", "1 10 0\n2 20 2\n", ""},
		{"what was not answered may be there", "1 10 0\n2 10 1\n3 20 2\n4 20 4\n", ""},
		{"lost", "1 10 0\n", "lost"},
		{"overwritten", "1 20 2\n", "lost"},
		{"nothing is there", "", "lost"},
		{"a leader of the past", "1 10 0\n2 20 2\n3 10 1\n", "leader of the past"},
		{"refused and done", "1 10 0\n2 10 3\n3 20 2\n", "refused"},
		{"done twice", "1 10 0\n2 10 0\n3 20 2\n", "twice"},
		{"counted wrong", "1 10 0\n3 20 2\n", "counted"},
		{"another's token", "1 10 0\n2 20 1\n3 20 2\n", "not its own"},
		{"not a count", "1 10 0\nx\n", "line"},
	} {
		faults := checkCount(test.data, tries)
		if test.fault == "" {
			assert.Empty(t, faults, test.name)
			continue
		}
		assert.True(t, slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, test.fault) }), "%s: %q", test.name, faults)
	}
}

func TestSituationsControl(t *testing.T) {
	met := make(map[string]int)
	for situation, often := range simSituations {
		met[situation] = int(60 * often)
	}
	assert.Empty(t, missedSituations(met, 60_000))
	for situation := range simSituations {
		fewer := map[string]int{}
		for other, n := range met {
			fewer[other] = n
		}
		fewer[situation] /= 2
		assert.Len(t, missedSituations(fewer, 60_000), 1, situation)
		assert.Empty(t, missedSituations(nil, 3), "too few schedules to ask for anything")
	}
	met["never heard of"] = 1
	assert.Len(t, missedSituations(met, 60_000), 1)
}

// What a short run has hardly met is judged once there are schedules enough to
// tell, and then it is. What more schedules ask for anew is not judged by chance either.
func TestSituationsAreJudgedWhenSure(t *testing.T) {
	met := map[string]int{}
	for situation, often := range simSituations {
		met[situation] = int(math.Ceil(often * 0.2))
	}
	assert.Zero(t, schedulesToBeSure(met, 155), "nothing is missed")
	met["step-down: session lost"] = 5 // of fifteen that are to be expected
	assert.Empty(t, missedSituations(met, 155), "that is not known yet")
	enough := schedulesToBeSure(met, 155)
	assert.Equal(t, 858, enough)

	for _, test := range []struct {
		name   string
		rate   float64 // of what is asked for
		missed bool
	}{
		{"by chance", 2.5, false},
		{"blind", 0.9, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			ran, found := 0, 0
			var mu sync.Mutex
			anew := 0
			total := func() map[string]int {
				all := map[string]int{}
				for situation, often := range simSituations {
					all[situation] = int(math.Ceil(often * float64(ran) / 1000))
					if often*155/1000 < doubtful && often*float64(enough)/1000 > doubtful {
						all[situation] = int(often * float64(ran) / 1000 * 0.9)
						anew++
					}
				}
				all["step-down: session lost"] = found
				return all
			}
			count, limit := *simCount, *simFor
			*simCount, *simFor = 155, 0
			defer func() { *simCount, *simFor = count, limit }()
			failed := runSchedules(t, func(int64) bool {
				mu.Lock()
				defer mu.Unlock()
				ran++
				if ran <= 155 {
					found = 5
				} else {
					found = int(float64(ran) / 1000 * 35 * test.rate)
				}
				return true
			}, func() int { return schedulesToBeSure(total(), ran) }, func(time.Duration) {})
			assert.False(t, failed)
			assert.Equal(t, enough, ran)
			var missed []string
			if test.missed {
				missed = []string{"the simulation is blind: it has hardly met step-down: session lost"}
			}
			assert.Equal(t, missed, missedSituations(total(), ran))
			assert.Positive(t, anew)
		})
	}
}

// A leader of the past that does not use its guard, and one that overwrites what
// others have added, are seen in the node itself.
func TestCountControlOnTheServer(t *testing.T) {
	for _, test := range []struct {
		name  string
		guard string // what is checked in place of the ballot; "" for the ballot
		want  bool
	}{
		{"guarded", "", false},
		{"not guarded", "/", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &stage{trial: newTrial(t, testutil.ServerOptions{TickTime: sweepTick, MinSessionTimeout: sweepTimeout}, sweepTimeout)}
			s.control = true
			var c counter
			c.init(s.trial, 1)
			s.a = s.leader("a")
			past, leads := s.a.Term()
			require.True(t, leads)
			require.Equal(t, countAdded, c.add(s.a, past))
			s.b = s.follower("b", nil)
			require.NoError(t, s.a.resign(sweepTimeout))
			synctest.Wait()
			present, leads := s.b.Term()
			require.True(t, leads)
			require.Equal(t, countAdded, c.add(s.b, present))
			if test.guard != "" {
				past.Ballot = test.guard
			}
			c.add(s.a, past)
			s.finish()
			assert.Equal(t, test.want, s.broken["count"], test.name)
		})
	}
}
