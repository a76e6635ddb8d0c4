package election

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/lease"
	"github.com/zkelection/election/internal/wire"
)

// opened is a Session whose client has just opened a connection.
func opened(timeout time.Duration) (*Session, *clientConn) {
	s := newSession(timeout)
	s.owned = true
	ours, _ := net.Pipe()
	c := newClientConn(s, ours, "zk1:2181")
	s.client.newest.Store(c)
	return s, c
}

// Session ids stand in the log as ZooKeeper writes them.
func TestSessionName(t *testing.T) {
	assert.Equal(t, "0x100a2b3c4d50001", sessionName(0x100a2b3c4d50001))
	assert.Equal(t, "0xf800a2b3c4d5001f", sessionName(-0x7ff5d4c3b2affe1))
	assert.Equal(t, "0xffffffffffffffff", sessionName(-1))
}

// Which handshakes count as heard of by the ensemble's leader, and which session
// timeout holds after each.
func TestHandshakeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const T, second = 8 * time.Second, time.Second
		for _, test := range []struct {
			name          string
			silence       time.Duration // since the last answer
			h             wire.Handshake
			granted       grant // before
			counts, known bool
			timeout       time.Duration
		}{
			{"a new session", 0, wire.Handshake{Session: 5, Whole: true}, grant{}, true, true, 6 * second},
			{"resumed at once", second, wire.Handshake{Former: 5, Session: 5, Whole: true}, grant{5, T}, true, true, 6 * second},
			{"resumed after long", 4 * second, wire.Handshake{Former: 5, Session: 5, Whole: true}, grant{5, T}, false, true, 6 * second},
			{"resumed with more than before", second, wire.Handshake{Former: 5, Session: 5, Whole: true}, grant{5, 5 * second}, true, true, 5 * second},
			{"new, and another had less", second, wire.Handshake{Session: 6, Whole: true}, grant{5, 5 * second}, true, true, 6 * second},
			{"no whole frame", 0, wire.Handshake{Session: 5}, grant{}, false, true, 6 * second},
			{"expired", second, wire.Handshake{Former: 5}, grant{5, T}, false, false, T},
		} {
			s, c := opened(T)
			time.Sleep(second)
			s.signs.answeredAt.Store(int64(s.clock.Now()))
			s.client.granted = test.granted
			time.Sleep(test.silence)
			assert.Equal(t, T, c.HandshakeSent(time.Now()), test.name)
			require.Equal(t, int64(1), s.signs.unanswered.Load(), test.name)
			sent := s.clock.Now()
			test.h.Sent, test.h.Timeout = time.Now(), 6*second
			time.Sleep(100 * time.Millisecond)
			timeout, ok := c.HandshakeAnswered(test.h)
			require.Equal(t, test.known, ok, test.name)
			require.Zero(t, s.signs.unanswered.Load(), test.name)
			require.Equal(t, test.timeout, s.Timeout(), test.name)
			conn := s.client.connection.Load()
			require.Equal(t, test.known, conn != nil, test.name)
			if !test.known {
				continue
			}
			require.Equal(t, test.timeout, timeout, test.name)
			require.Equal(t, lease.NewRule(test.timeout, 0), conn.Rule, test.name)
			got, ok := conn.SurelyHeard(time.Hour)
			require.Equal(t, test.counts, ok, test.name)
			if ok {
				require.Equal(t, sent, got, test.name)
			}
			require.Equal(t, sent, s.signs.lastAnswer(), test.name)
		}
	})
}

// A client that was replaced has its answers for itself.
func TestHandshakeOfFormerClient(t *testing.T) {
	s, former := opened(8 * time.Second)
	_, c := opened(8 * time.Second)
	s.client.newest.Store(c)
	s.signs.unanswered.Store(2)
	_, ok := former.HandshakeAnswered(wire.Handshake{Session: 5, Timeout: 4 * time.Second, Whole: true})
	assert.False(t, ok)
	assert.Equal(t, int64(2), s.signs.unanswered.Load())
	assert.Nil(t, s.client.connection.Load())
	assert.Equal(t, 8*time.Second, s.Timeout())
	former.Failed(errors.New("of another"), false)
	assert.Nil(t, s.signs.trouble.Load())
}

// A connection is the Session's if the present client has opened it, and is not being closed.
func TestConnectionOfPresentClientIsTaken(t *testing.T) {
	var p presentConn
	p.connection.Store(&connection{})
	former, c := &clientConn{}, &clientConn{}
	number := p.nextClient()
	require.True(t, p.take(former, number))
	require.Nil(t, p.connection.Load(), "of the connection before")
	later := p.nextClient()
	assert.False(t, p.take(c, number), "of a client that has been replaced")
	p.formerClient()
	assert.False(t, p.listensTo(later))
	assert.False(t, p.take(c, later), "of a client that could not be made")
	assert.Same(t, former, p.newest.Load())
	require.True(t, p.take(c, number))
	assert.Same(t, c, p.newest.Load())
	p.takeNoMore()
	assert.False(t, p.take(former, number), "of a client that is being closed")
	assert.Same(t, c, p.newest.Load())
	p.whileNewest(former, func() { t.Error("another one has taken its place") })
	noted := false
	p.whileNewest(c, func() { noted = true })
	assert.True(t, noted)
}

// Answers that are signs of life are heard, the others are not.
func TestAnswersAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := opened(8 * time.Second)
		time.Sleep(time.Second)
		s.signs.answeredAt.Store(int64(s.clock.Now()))
		_, ok := c.HandshakeAnswered(wire.Handshake{Session: 5, Timeout: 8 * time.Second, Sent: time.Now()})
		require.True(t, ok)
		sent := time.Now()
		time.Sleep(time.Second)
		c.Answered(wire.Answer{Op: wire.OpAuth, Code: -115, Sent: sent, Answered: time.Now()})
		_, ok = c.connection.SurelyHeard(time.Hour)
		require.False(t, ok)
		require.Equal(t, time.Second, lease.Instant(s.signs.refusedAt.Load()), "the credentials are refused")
		c.Answered(wire.Answer{Op: 11, Sent: sent, Answered: time.Now(), SignOfLife: true})
		got, ok := c.connection.SurelyHeard(time.Hour)
		require.True(t, ok)
		require.Equal(t, time.Second, got)
		require.Zero(t, s.signs.refusedAt.Load(), "something else was answered")
	})
}

// The machine was suspended during a handshake, and the loop has noted it before
// there was a connection whose past it could have dropped.
func TestHandshakeBesideSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := opened(10 * time.Second)
		sent := time.Now()
		time.Sleep(time.Second)
		s.clock.Jump()
		_, ok := c.HandshakeAnswered(wire.Handshake{Session: 5, Timeout: 10 * time.Second, Sent: sent, Whole: true})
		require.True(t, ok)
		_, ok = c.connection.SurelyHeard(time.Hour)
		assert.False(t, ok)
		c.connection.Heard(s.clock.Instant(sent), s.clock.Now())
		_, ok = c.connection.SurelyHeard(time.Hour)
		assert.False(t, ok, "sent before the suspension, and answered after it")
	})
}
