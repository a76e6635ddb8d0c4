package election

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func allPhases() []phase {
	var all []phase
	for p := idle; p <= ended; p++ {
		all = append(all, p)
	}
	return all
}

// inPhase is a loop that does not run, with what there is in a phase.
func inPhase(t *testing.T, p phase) *candidacy {
	base, err := newBase(newSession(time.Minute), "e", "", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	c := bareCandidacy(base)
	c.phase, c.ballot = p, &ballotState{node: &ballot{}, losing: &losing{}}
	c.term = &termState{lead: &leadership{}}
	return c
}

// TestIllegalTransitionsPanic: setPhase makes the transitions of the table, and
// panics on all others.
func TestIllegalTransitionsPanic(t *testing.T) {
	for _, from := range allPhases() {
		for _, to := range allPhases() {
			c := inPhase(t, from)
			if _, legal := edges[from][to]; legal {
				require.NotPanics(t, func() { c.setPhase(to) }, "%v to %v", from, to)
				assert.Equal(t, to, c.phase)
				if to == waiting {
					c.stopLosing()
				}
				continue
			}
			message := fmt.Sprintf("election: a candidate cannot go from %v to %v", from, to)
			require.PanicsWithValue(t, message, func() { c.setPhase(to) })
			assert.Equal(t, from, c.phase)
		}
	}
}

// TestUnknownMessagePanics: a message that the loop does not know is a mistake of
// this library's, and does not vanish.
func TestUnknownMessagePanics(t *testing.T) {
	c := inPhase(t, idle)
	require.PanicsWithValue(t, "election: a candidate cannot take a string", func() { c.handle("no such message") })
}

// TestEdges: what must hold of the transitions as a whole. A leader leaves by
// leaving, so that each is told of its step-down; nobody leads without a claim; and
// from each phase there is a way to the end.
func TestEdges(t *testing.T) {
	require.Len(t, edges, len(allPhases()))
	require.Len(t, phaseNames, len(allPhases()))
	for from, to := range edges {
		from := phase(from)
		if from.leads() {
			for p := range to {
				assert.True(t, p.leads() || p == leaving, "%v to %v", from, p)
			}
		}
		for p := range to {
			assert.True(t, !p.leads() || from.leads() || from == claiming, "%v to %v: nobody leads without a claim", from, p)
			assert.NotEqual(t, from, p, "a transition to itself")
		}
	}
	assert.Empty(t, edges[ended])
	for _, p := range allPhases() {
		assert.True(t, reaches(p, ended), "no way from %v to the end", p)
		assert.True(t, reaches(idle, p), "no way to %v", p)
	}
}

// reaches reports whether transitions lead from one phase to another.
func reaches(from, to phase) bool {
	seen := map[phase]bool{from: true}
	for todo := []phase{from}; len(todo) > 0; todo = todo[1:] {
		for next := range edges[todo[0]] {
			if !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	return seen[to]
}
