package election

import (
	"context"
	"errors"
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
	return onSession(t, newSession(time.Minute), p)
}

func onSession(t *testing.T, s *Session, p phase) *candidacy {
	t.Helper()
	base, err := newBase(s, "e", "", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	c := bareCandidacy(base)
	node := &ballot{inc: s.currentView().inc, name: "ballot-1-0000000001", path: base.path + "/ballot-1-0000000001"}
	c.phase, c.want, c.seen.inc = p, true, s.currentView().inc
	if p != idle && p != ended {
		c.ballot = &ballotState{}
	}
	if p == casting || p == moving {
		c.stray = stray{tag: "1", possible: true}
	}
	if c.ballot != nil && p != casting {
		c.ballot.node = node
	}
	if p == waiting {
		c.ballot.losing = &losing{}
	}
	c.onStepDown.add(func(context.Context, Term, error) {}) // else a step-down calls nobody, and is done with at once
	if p.leads() || p == leaving {
		l := &leadership{ballot: node}
		l.ctx, l.cancel = context.WithCancelCause(t.Context())
		c.term = &termState{lead: l, claimedAt: c.now}
	}
	return c
}

// TestIllegalTransitionsPanic: setPhase makes the transitions of the table, and
// panics on all others.
func TestIllegalTransitionsPanic(t *testing.T) {
	for _, from := range allPhases() {
		for _, to := range allPhases() {
			c := inPhase(t, from)
			if to != idle && c.ballot == nil {
				c.ballot = &ballotState{}
			}
			if c.term == nil {
				c.term = &termState{lead: &leadership{}}
			}
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

// TestEveryPhaseComesToAnEnd: what may end a phase from outside comes in each of
// them: the end of the time to shut down, of the session, of the ballot, a
// resignation. Nothing panics, and the candidate is then where it should be.
func TestEveryPhaseComesToAnEnd(t *testing.T) {
	withSession(t, func(t *testing.T, _ *trial, s *Session) {
		for _, p := range allPhases() {
			if p == ended {
				continue
			}
			c := onSession(t, s, p)
			c.hurry()
			assert.Equal(t, ended, c.phase, "hurried in %v", p)
			assert.Equal(t, p == idle, c.closeErr == nil, "hurried in %v", p)

			c = onSession(t, s, p)
			c.resign(resignCommand{cause: ErrResigned})
			c.helper.over = make(chan struct{}) // so that only steps without a request are taken
			c.takeSteps()
			want := withdrawing
			switch {
			case p == idle, p == casting, p == moving:
				want = p // there is no ballot, or the errand has to return
			case p.leads():
				want = leaving // until OnStepDown has returned
			}
			assert.Equal(t, want, c.phase, "resigned in %v", p)

			for _, cause := range []error{ErrSessionLost, ErrBallotDeleted} {
				for _, acked := range []bool{false, true} {
					if p == idle || p == casting {
						continue // there is no ballot
					}
					c = onSession(t, s, p)
					c.ballot.ack.possible = acked
					c.ballotLost(cause)
					want := idle
					switch leavesAck := acked && errors.Is(cause, ErrBallotDeleted); {
					case p.leads() || p == leaving:
						want = leaving
						assert.Equal(t, leavesAck, c.ballot != nil, "%v in %v, acknowledged: %v", cause, p, acked)
					case leavesAck || p == withdrawing:
						want = withdrawing
					}
					assert.Equal(t, want, c.phase, "%v in %v, acknowledged: %v", cause, p, acked)
				}
			}
		}
	})
}
