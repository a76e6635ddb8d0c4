package election

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMoveKeepsLosing: who moves and loses to the same as before goes on with what
// OnLose was told. With FollowNextNode that is the predecessor.
func TestMoveKeepsLosing(t *testing.T) {
	for _, test := range []struct {
		name   string
		follow Follow
		before string
		lives  bool
	}{
		{"next node, the same", FollowNextNode, "p", true},
		{"next node, another", FollowNextNode, "q", false},
		{"leader", FollowLeader, "q", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			withSession(t, func(t *testing.T, w *trial, s *Session) {
				base, err := newBase(s, electionName, "", w.logger)
				require.NoError(t, err)
				inc := s.look().inc
				from := &ballot{inc: inc, path: base.path + "/ballot-1-0000000001", name: "ballot-1-0000000001"}
				to := &ballot{inc: inc, path: base.path + "/ballot-2-0000000003", name: "ballot-2-0000000003"}
				ctx, cancel := context.WithCancel(t.Context())
				c := &candidacy{
					Candidate: &Candidate{Base: base, metrics: (*Metrics)(nil).filled(), inbox: newInbox(), follow: test.follow},
					inc:       inc, want: true, phase: moving, ballot: from, losingTo: test.before, loseCancel: cancel,
					tag: "2", uncertain: true,
				}
				c.moveDone(moveResult{from: from, tag: "2", sent: true, ballot: to, place: standing{below: 2, predecessor: "p"}})
				assert.Equal(t, waiting, c.phase)
				assert.Equal(t, to, c.ballot)
				assert.False(t, c.uncertain)
				assert.Equal(t, test.lives, ctx.Err() == nil)
				c.stopLosing()
			})
		})
	}
}

// TestCountLack: time without a connection does not count, and what was before it
// is not forgotten.
func TestCountLack(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, s *Session) {
		base, err := newBase(s, electionName, "", w.logger)
		require.NoError(t, err)
		c := &candidacy{Candidate: &Candidate{Base: base, metrics: (*Metrics)(nil).filled(), inbox: newInbox()}, phase: claiming}
		on := s.look()
		off := on
		off.connected = false
		due := func(lacks time.Duration) {
			t.Helper()
			c.countLack(on)
			assert.Equal(t, lackTimeouts*s.Timeout()-lacks, time.Until(c.lackDue()))
		}
		due(0)
		time.Sleep(time.Second)
		due(time.Second)
		c.countLack(off)
		assert.Zero(t, c.lackDue())
		time.Sleep(time.Minute)
		due(time.Second)
		c.setPhase(moving) // and found itself alone
		c.countLack(on)
		time.Sleep(time.Minute)
		c.setPhase(claiming)
		due(time.Second)
		c.setPhase(winning)
		c.setPhase(claiming)
		due(0)
	})
}

// TestCountLapse: three within ten session timeouts.
func TestCountLapse(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, s *Session) {
		base, err := newBase(s, electionName, "", w.logger)
		require.NoError(t, err)
		c := &candidacy{Candidate: &Candidate{Base: base}}
		var flaps []bool
		for _, after := range []time.Duration{0, 6, 6, 6, 4} {
			time.Sleep(after * s.Timeout())
			c.countLapse()
			flaps = append(flaps, c.flaps)
		}
		assert.True(t, slices.Equal(flaps, []bool{false, false, false, false, true}), "%v", flaps)
	})
}

func TestIsGemStyle(t *testing.T) {
	for name, want := range map[string]bool{
		"ballot0000000001":    true,
		"ballot_0000000001":   true,
		"ballot-1-0000000001": true,
		"ballot-0123456789abcdef0123456789abcdef-0000000001":   false,
		"ballot-0123456789abcdef0123456789abcdef--0000000001":  false,
		"ballot-0123456789abcdef0123456789abcdef-k-0000000001": false,
		"ballot-0123456789abcdef0123456789abcdexy-0000000001":  true,
		"ballot-0123456789abcdef0123456789abcdef0000000001":    true,
	} {
		assert.Equal(t, want, isGemStyle(name), name)
	}
}
