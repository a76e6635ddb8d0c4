package election

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil/realzk"
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

// TestMoveOnZooKeeper: the real one takes the transaction, with the acknowledgement
// and with the waking of a member of the gem.
func TestMoveOnZooKeeper(t *testing.T) {
	ensemble := realzk.StartZooKeeper(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Connect(ensemble.Servers(), 4*time.Second, nil)
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	require.NoError(t, s.AwaitConnected(ctx))
	for _, acked := range []bool{true, false} {
		name := fmt.Sprint("acked ", acked)
		c, err := NewCandidate(s, name, nil)
		require.NoError(t, err)
		require.NoError(t, c.makeParents(ctx))
		inc := s.look().inc
		cast := c.cast(ctx, newTag(), []byte("first"), false, "")
		require.NoError(t, cast.err)
		if acked {
			_, err := c.acknowledge(ctx, cast.ballot, []byte("first"), 0, false)
			require.NoError(t, err)
		}
		_, err = s.Conn().Create(c.path+"/ballot", nil, zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		_, _, ack, err := s.Conn().ExistsW(c.LeaderAckPath())
		require.NoError(t, err)

		r := c.move(ctx, withdrawal{ballot: cast.ballot, tag: newTag(), acked: acked, data: [][]byte{[]byte("first")}}, []byte("again"))
		require.NoError(t, r.err)
		assert.Equal(t, 1, r.place.below)
		assert.Greater(t, r.ballot.token, cast.ballot.token)
		assert.Equal(t, inc, r.ballot.inc)
		select {
		case <-ack:
		case <-ctx.Done():
			t.Fatal("whoever waits for the acknowledgement is not woken")
		}
		exists, _, err := s.Conn().Exists(c.LeaderAckPath())
		require.NoError(t, err)
		assert.False(t, exists)
		ballots, err := c.Ballots(ctx)
		require.NoError(t, err)
		require.Len(t, ballots, 2)
		assert.Equal(t, r.ballot.path, ballots[1].Path)
		assert.Equal(t, "again", string(ballots[1].Data))

		// Once more, of a ballot that is gone by now.
		r = c.move(ctx, withdrawal{ballot: cast.ballot, tag: newTag()}, nil)
		assert.True(t, r.gone)
		assert.False(t, r.sent)
		require.NoError(t, s.Conn().Delete(ballots[0].Path, -1))
		r = c.move(ctx, withdrawal{ballot: &ballot{path: ballots[1].Path, name: ballots[1].Path[len(c.path)+1:], inc: inc}, tag: newTag()}, nil)
		assert.True(t, r.alone)
	}
}

func TestIsGemStyle(t *testing.T) {
	for name, want := range map[string]bool{
		"ballot0000000001": true,
		"ballot-0123456789abcdef0123456789abcdef-0000000001":   false,
		"ballot-0123456789abcdef0123456789abcdef-k-0000000001": false,
	} {
		assert.Equal(t, want, isGemStyle(name), name)
	}
}
