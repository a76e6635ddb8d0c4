package election

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil/realzk"
)

// TestMoveBeginsAnotherLife: whoever has moved stands behind others, to lose to
// them, with a ballot of which nothing is known that was known of the former one.
func TestMoveBeginsAnotherLife(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, s *Session) {
		base, err := newBase(s, electionName, "", w.logger)
		require.NoError(t, err)
		inc := s.currentView().inc
		from := &ballot{inc: inc, path: base.path + "/ballot-1-0000000001", name: "ballot-1-0000000001"}
		to := &ballot{inc: inc, path: base.path + "/ballot-2-0000000003", name: "ballot-2-0000000003"}
		c := bareCandidacy(base)
		c.phase, c.want, c.seen.inc = moving, true, inc
		c.stray = stray{tag: "2", possible: true}
		c.data = []byte("d")
		c.ballot = &ballotState{node: from, verify: true, deleted: true, recheck: recheck{all: true}}
		c.ballot.ack.ackRecord = ackRecord{possible: true, czxid: 7, data: [][]byte{{1}}}
		c.ballot.demotion = demotion{flaps: true, lapses: []time.Time{c.now}, lackingSince: c.now}
		c.moveDone(moveResult{sent: true, ballot: to, place: standing{ahead: 2, predecessor: "p"}})
		assert.Equal(t, waiting, c.phase)
		assert.Equal(t, stray{}, c.stray)
		assert.Equal(t, to, c.live.Load())
		require.NotNil(t, c.ballot.losing)
		assert.Equal(t, "p", c.ballot.losing.to)
		c.stopLosing()
		assert.True(t, c.ballot.recheck.all, "a reconnection during the move is forgotten")
		assert.True(t, c.ballot.rank.notBefore.After(c.now), "it may move again at once")
		c.ballot.recheck, c.ballot.rank = recheck{}, rank{}
		assert.Equal(t, &ballotState{node: to, data: []byte("d"), line: line{place: standing{ahead: 2, predecessor: "p"}}}, c.ballot)
	})
}

// TestCountLack: time without a connection does not count, and what was before it
// is not forgotten.
func TestCountLack(t *testing.T) {
	const timeout = time.Minute
	now := time.Now()
	var d demotion
	due := func(lacks time.Duration) {
		t.Helper()
		d.countLack(now, true)
		assert.Equal(t, lackTimeouts*timeout-lacks, d.lackDue(timeout).Sub(now))
	}
	due(0)
	now = now.Add(time.Second)
	due(time.Second)
	d.countLack(now, false)
	assert.Zero(t, d.lackDue(timeout))
	now = now.Add(time.Minute)
	due(time.Second)
	assert.False(t, d.lacks(now.Add(lackTimeouts*timeout-time.Second-1), timeout))
	assert.True(t, d.lacks(now.Add(lackTimeouts*timeout-time.Second), timeout))
	d.endLack()
	due(0)
}

// TestLackEndsWithTheClaim: what is measured of the lack of a lease is kept by a
// move that found nobody to make way for, and ends when a lease was had.
func TestLackEndsWithTheClaim(t *testing.T) {
	base, err := newBase(newSession(time.Minute), "e", "", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	c := bareCandidacy(base)
	c.phase, c.ballot = claiming, &ballotState{node: &ballot{}}
	lack := demotion{lackingSince: c.now, lacked: time.Second}
	c.ballot.demotion = lack
	c.setPhase(moving)
	c.setPhase(claiming)
	assert.Equal(t, lack, c.ballot.demotion)
	c.term = &termState{}
	c.setPhase(winning)
	assert.Zero(t, c.ballot.demotion)
}

// TestCountLapse: three within ten session timeouts.
func TestCountLapse(t *testing.T) {
	const timeout = time.Minute
	now := time.Now()
	var d demotion
	var flaps []bool
	for _, after := range []time.Duration{0, 6, 6, 6, 4} {
		now = now.Add(after * timeout)
		d.countLapse(now, timeout)
		flaps = append(flaps, d.flaps)
	}
	assert.True(t, slices.Equal(flaps, []bool{false, false, false, false, true}), "%v", flaps)
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
		require.NoError(t, c.errands.makeParents(ctx))
		inc := s.currentView().inc
		cast := c.errands.cast(ctx, castOrder{stray: stray{tag: newTag()}, data: []byte("first")})
		require.NoError(t, cast.err)
		if acked {
			_, _, err := c.errands.acknowledge(ctx, cast.ballot, []byte("first"), 0, false)
			require.NoError(t, err)
		}
		_, err = s.Conn().Create(c.path+"/ballot", nil, zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		_, _, ack, err := s.Conn().ExistsW(c.LeaderAckPath())
		require.NoError(t, err)

		r := c.errands.move(ctx, moveOrder{withdrawal: withdrawal{
			ballot: cast.ballot, stray: stray{tag: newTag()}, ack: ackRecord{possible: acked, data: [][]byte{[]byte("first")}},
		}, data: []byte("again")})
		require.NoError(t, r.err)
		assert.Equal(t, 1, r.place.ahead)
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
		r = c.errands.move(ctx, moveOrder{withdrawal: withdrawal{ballot: cast.ballot, stray: stray{tag: newTag()}}})
		assert.True(t, r.gone)
		assert.False(t, r.sent)
		require.NoError(t, s.Conn().Delete(ballots[0].Path, -1))
		r = c.errands.move(ctx, moveOrder{withdrawal: withdrawal{ballot: &ballot{path: ballots[1].Path, name: ballots[1].Path[len(c.path)+1:], inc: inc}, stray: stray{tag: newTag()}}})
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
