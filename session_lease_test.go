package election

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/lease"
	"github.com/zkelection/election/internal/wire"
)

// onConnection is a connection of a session, with what a handshake tells.
func onConnection(timeout time.Duration) *connection {
	return &connection{Connection: lease.NewConnection(timeout, 0)}
}

// A handshake that grants less is answered while a heartbeat of the connection
// before is evaluated: neither the lease that there is nor a new one outlives it, and
// the end of that connection, too, makes no difference.
func TestLeaseBesideHandshake(t *testing.T) {
	for _, lapsed := range []bool{false, true} {
		for _, ended := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s, former := opened(12 * time.Second)
				l := &sessionLoop{Session: s, view: sessionView{inc: &incarnation{}}}
				l.view.inc.lease.Store(lease.New(s.clock, s.rule(), time.Second))
				if lapsed {
					time.Sleep(time.Second)
				}
				handshake := func(c *clientConn, former int64, timeout time.Duration) *connection {
					_, ok := c.HandshakeAnswered(wire.Handshake{Sent: time.Now(), Former: former, Session: 5, Timeout: timeout, Whole: true})
					require.True(t, ok)
					return s.client.connection.Load()
				}
				open := func() *clientConn {
					ours, _ := net.Pipe()
					c := newClientConn(s, ours, "zk2:2181")
					require.True(t, s.client.take(c, s.client.number.Load()))
					return c
				}
				on := handshake(former, 0, 12*time.Second)
				newer := handshake(open(), 5, 4*time.Second)
				if ended {
					open()
					require.Nil(t, s.client.connection.Load())
				}
				sure := s.clock.Now() + newer.Duration()
				l.renew(on, s.clock.Now()+on.Duration())
				assert.Equal(t, sure, l.view.inc.lease.Load().Until(), "lapsed %v, ended %v", lapsed, ended)
			})
		}
	}
}

// A jump of the clock ends the lease, and nothing that was heard before counts.
func TestJumpEndsLease(t *testing.T) {
	for name, found := range map[string]lease.Jump{
		"none":                 {},
		"the wall clock":       {Wall: true},
		"a suspension":         {Suspended: time.Second},
		"a suspension by both": {Wall: true, Suspended: time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSession(12 * time.Second)
			l := &sessionLoop{Session: s, view: sessionView{inc: &incarnation{}}}
			current := lease.New(s.clock, s.rule(), time.Hour)
			l.view.inc.lease.Store(current)
			on := onConnection(12 * time.Second)
			s.client.connection.Store(on)
			time.Sleep(10 * time.Second)
			on.Heard(5*time.Second, 5*time.Second)
			l.heartbeats.Answered(l.heartbeats.Sent(9*time.Second), on.Connection, 9*time.Second, 9*time.Second)
			if found.Found() {
				s.clock.Jump()
			}
			l.clockJumped(found)
			assert.Equal(t, !found.Found(), current.Valid(), name)
			_, heard := on.SurelyHeard(s.clock.Now())
			assert.Equal(t, !found.Found(), heard, name)
			if found.Found() {
				require.ErrorIs(t, context.Cause(current.Context()), ErrLeaseLapsed)
			}
			on.Establish(s.clock.Now(), true)
			_, paired := l.heartbeats.Answered(l.heartbeats.Sent(s.clock.Now()), on.Connection, s.clock.Now(), s.clock.Now())
			assert.Equal(t, !found.Found(), paired, "%s: the next heartbeat is not the first", name)
		})
	}
}

// A machine that was suspended, through a candidate, and without what the loop
// would find.
func TestIsLeaderAfterSuspension(t *testing.T) {
	withSession(t, func(t *testing.T, _ *trial, s *Session) {
		c, err := NewCandidate(s, electionName, nil)
		require.NoError(t, err)
		causes := make(chan error, 1)
		c.OnStepDown(func(_ context.Context, _ Term, cause error) { causes <- cause })
		_, err = c.Campaign(t.Context())
		require.NoError(t, err)
		require.True(t, c.IsLeader())
		s.clock.Skew(time.Hour) // as if the wall clock had gone on for an hour
		require.False(t, c.IsLeader())
		_, leads := c.Term()
		assert.False(t, leads)
		require.ErrorIs(t, <-causes, ErrLeaseLapsed)
	})
}

// A jump that the Session's loop has found ends leadership by that alone, however long
// the loop is held up before it gives up the lease.
func TestIsLeaderBesideLoopThatFoundAJump(t *testing.T) {
	withSession(t, func(t *testing.T, _ *trial, s *Session) {
		c, err := NewCandidate(s, electionName, nil)
		require.NoError(t, err)
		_, err = c.Campaign(t.Context())
		require.NoError(t, err)
		s.clock.Skew(time.Hour) // as if the wall clock had gone on for an hour
		s.clock.Jump()          // as the loop does first
		require.False(t, c.IsLeader())
		require.NoError(t, c.Close())
	})
}

// A session that nobody needs a lease of looks at its clocks all the same: a jump that is found when the leader dies
// costs the takeover its time.
func TestIdleSessionLooksAtItsClocks(t *testing.T) {
	s := newSession(12 * time.Second)
	s.owned = true
	l := &sessionLoop{Session: s, view: sessionView{inc: &incarnation{}, connected: true}}
	now := s.clock.Now()
	assert.LessOrEqual(t, l.wakeAt(now)-now, s.Timeout())
}

// logFunc is a log that calls a function for each line.
type logFunc func(slog.Record)

func (logFunc) Enabled(context.Context, slog.Level) bool             { return true }
func (f logFunc) Handle(_ context.Context, record slog.Record) error { f(record); return nil }
func (f logFunc) WithAttrs([]slog.Attr) slog.Handler                 { return f }
func (f logFunc) WithGroup(string) slog.Handler                      { return f }

// A log may be slow: what rests on a clock that has stood still is given up before
// that is said.
func TestJumpEndsLeaseBeforeItIsLogged(t *testing.T) {
	s := newSession(12 * time.Second)
	l := &sessionLoop{Session: s, view: sessionView{inc: &incarnation{}}}
	current := lease.New(s.clock, s.rule(), time.Hour)
	l.view.inc.lease.Store(current)
	lines := 0
	s.logger = slog.New(logFunc(func(record slog.Record) {
		lines++
		require.Error(t, current.Context().Err(), record.Message)
	}))
	l.clockJumped(lease.Jump{Wall: true, Suspended: time.Second})
	require.Equal(t, 2, lines)
}

// Nor does the lease of a session that is lost wait for a log, or for metrics.
func TestSessionLossEndsLeaseBeforeItIsLogged(t *testing.T) {
	for name, lose := range map[string]func(*sessionLoop){
		"lost":                    func(l *sessionLoop) { l.lose(ErrSessionLost) },
		"the owner has closed it": (*sessionLoop).ownerClosed,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSession(12 * time.Second)
			inc := &incarnation{}
			inc.ctx, inc.cancel = context.WithCancelCause(t.Context())
			current := lease.New(s.clock, s.rule(), time.Hour)
			inc.lease.Store(current)
			said := 0
			ended := func(what string) {
				said++
				require.Error(t, current.Context().Err(), what)
				require.Error(t, inc.ctx.Err(), what)
			}
			s.logger = slog.New(logFunc(func(record slog.Record) { ended(record.Message) }))
			s.metrics = (&Metrics{SessionLost: func() { ended("metrics") }}).filled()
			lose(&sessionLoop{Session: s, view: sessionView{inc: inc}})
			require.GreaterOrEqual(t, said, 2)
		})
	}
}
