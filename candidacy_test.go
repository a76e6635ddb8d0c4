package election

import (
	"context"
	"log/slog"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/lease"
	"github.com/zkelection/election/testutil"
)

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name string
		in   situation
		want step
	}{
		{"nothing wanted", situation{phase: idle, ready: true}, rest},
		{"a vote", situation{phase: idle, want: true, ready: true}, stepCast},
		{"not connected", situation{phase: idle, want: true}, rest},
		{"credentials refused", situation{phase: idle, want: true, authFailed: true}, stepRefused},
		{"no lease can be had", situation{phase: idle, want: true, ready: true, hopeless: true}, stepRefused},
		{"a takeover has failed, and a pause goes on", situation{phase: idle, want: true, ready: true, votePaused: true}, rest},
		{"refused a moment ago", situation{phase: idle, want: true, authFailed: true, votePaused: true}, rest},
		{"an errand is under way", situation{phase: idle, want: true, ready: true, busy: true}, rest},
		{"callbacks of the last term go on", situation{phase: idle, want: true, ready: true, draining: true}, rest},
		{"and for too long", situation{phase: idle, want: true, ready: true, draining: true, overdue: true}, rest},
		{"closing", situation{phase: idle, want: true, ready: true, closing: true}, stepEnd},
		{"closing waits for callbacks", situation{phase: idle, closing: true, draining: true}, rest},
		{"but not forever", situation{phase: idle, closing: true, draining: true, overdue: true}, stepEnd},
		{"closing waits for an errand", situation{phase: idle, closing: true, busy: true}, rest},

		{"place unknown", situation{phase: waiting, ready: true, ballot: true}, stepFindPlace},
		{"place unknown, not connected", situation{phase: waiting, ballot: true}, rest},
		{"behind", situation{phase: waiting, ready: true, ballot: true, placed: true}, rest},
		{"first", situation{phase: waiting, ready: true, ballot: true, placed: true, first: true}, stepReachFront},
		{"first, not connected", situation{phase: waiting, ballot: true, placed: true, first: true}, stepReachFront},
		{"the second in front is not watched", situation{phase: waiting, ready: true, ballot: true, placed: true, second: true, check: true}, stepWatchSecond},
		{"the second in front is not watched, not connected", situation{phase: waiting, ballot: true, placed: true, second: true}, rest},
		{"first, whatever was to be watched", situation{phase: waiting, ready: true, ballot: true, placed: true, first: true, second: true}, stepReachFront},
		{"a recheck is due", situation{phase: waiting, ready: true, ballot: true, placed: true, check: true}, stepRecheck},
		{"a recheck was refused a moment ago", situation{phase: waiting, ready: true, ballot: true, placed: true, check: true, heldBack: [stepCount]bool{stepRecheck: true}}, rest},
		{"and the second in front is not watched", situation{phase: waiting, ready: true, ballot: true, placed: true, second: true, heldBack: [stepCount]bool{stepRecheck: true}}, stepWatchSecond},
		{"makes way", situation{phase: waiting, ready: true, ballot: true, placed: true, makeWay: true, check: true}, stepMove},
		{"makes way, place unknown", situation{phase: waiting, ready: true, ballot: true, makeWay: true}, stepMove},
		{"is first, and was to make way", situation{phase: waiting, ready: true, ballot: true, placed: true, first: true, makeWay: true}, stepReachFront},
		{"has to say that it is ready, place unknown", situation{phase: waiting, ready: true, ballot: true, sayReady: true, lease: true}, stepFindPlace},
		{"resigning", situation{phase: waiting, ready: true, ballot: true, placed: true, withdraw: true}, stepWithdraw},

		{"no lease", situation{phase: claiming, ready: true, ballot: true, placed: true, first: true}, rest},
		{"a lease", situation{phase: claiming, ready: true, ballot: true, placed: true, first: true, lease: true}, stepClaim},
		{"a lease, after a lapse", situation{phase: claiming, ready: true, ballot: true, placed: true, lease: true, verify: true}, stepRecheck},
		{"a lease, after a lapse, not connected", situation{phase: claiming, ballot: true, placed: true, lease: true, verify: true}, rest},
		{"resigning before the lease", situation{phase: claiming, ballot: true, lease: true, withdraw: true}, stepWithdraw},

		{"behind, and no lease can be had", situation{phase: waiting, ready: true, ballot: true, placed: true, hopeless: true}, stepWithdraw},
		{"first, and no lease can be had", situation{phase: claiming, ready: true, ballot: true, hopeless: true}, stepWithdraw},
		{"no lease for too long", situation{phase: claiming, ready: true, ballot: true, placed: true, first: true, lacks: true}, stepMove},
		{"no lease for too long, behind", situation{phase: waiting, ready: true, ballot: true, placed: true, lacks: true}, rest},
		{"no lease for too long, after a lapse", situation{phase: claiming, ready: true, ballot: true, lacks: true, verify: true}, stepMove},
		{"a lease at last", situation{phase: claiming, ready: true, ballot: true, placed: true, first: true, lacks: true, lease: true}, stepClaim},
		{"a move was tried a moment ago", situation{phase: claiming, ready: true, ballot: true, placed: true, first: true, lacks: true, movePaused: true}, rest},
		{"too many lapses", situation{phase: claiming, ready: true, ballot: true, flaps: true, lease: true, verify: true}, stepMove},
		{"too many lapses, not connected", situation{phase: claiming, ballot: true, flaps: true, lease: true}, rest},
		{"too many lapses, and resigning", situation{phase: claiming, ready: true, ballot: true, flaps: true, withdraw: true}, stepWithdraw},
		{"moving", situation{phase: moving, ready: true, ballot: true, lease: true, withdraw: true, lacks: true}, rest},
		{"OnWin runs", situation{phase: winning, ready: true, ballot: true, proclaim: true}, rest},
		{"OnWin runs for long", situation{phase: winning, ready: true, ballot: true, check: true}, stepRecheck},
		{"OnWin runs without a connection", situation{phase: winning, ballot: true, check: true}, rest},
		{"OnWin has returned", situation{phase: acking, ready: true, ballot: true}, stepAcknowledge},
		{"acknowledging", situation{phase: acking, ready: true, ballot: true, busy: true}, rest},
		{"leading", situation{phase: leading, ready: true, ballot: true}, rest},
		{"the acknowledgement is gone", situation{phase: leading, ready: true, ballot: true, ackMissing: true, proclaim: true, check: true}, stepAcknowledge},
		{"and cannot be written", situation{phase: leading, ready: true, ballot: true, ackMissing: true, proclaim: true, check: true, heldBack: [stepCount]bool{stepAcknowledge: true}}, stepRecheck},
		{"new data", situation{phase: leading, ready: true, ballot: true, proclaim: true, check: true}, stepProclaim},
		{"new data, not connected", situation{phase: leading, ballot: true, proclaim: true}, rest},

		{"why is the ballot gone", situation{phase: leaving, ready: true, causePending: true, draining: true}, stepAskCause},
		{"why is the ballot gone, not connected", situation{phase: leaving, causePending: true, draining: true, overdue: true, withdraw: true}, rest},
		{"OnStepDown runs", situation{phase: leaving, ready: true, ballot: true, draining: true, withdraw: true}, rest},
		{"OnStepDown runs, and nobody else leads", situation{phase: leaving, ready: true, ballot: true, draining: true, withdraw: true, exclusive: true, check: true}, stepRecheck},
		{"that is being asked", situation{phase: leaving, ready: true, ballot: true, draining: true, withdraw: true, exclusive: true, check: true, busy: true}, rest},
		{"OnStepDown hangs", situation{phase: leaving, ready: true, ballot: true, draining: true, overdue: true}, stepWithdraw},
		{"resigned", situation{phase: leaving, ready: true, ballot: true, withdraw: true}, stepWithdraw},
		{"the session is lost", situation{phase: leaving}, stepIdle},
		{"the lease lapsed, the ballot stands", situation{phase: leaving, ballot: true}, stepContend},

		{"withdrawing", situation{phase: withdrawing, ballot: true}, stepDelete},
		{"a deletion failed a moment ago", situation{phase: withdrawing, ballot: true, heldBack: [stepCount]bool{stepDelete: true}}, rest},
		{"a recheck was refused a moment ago", situation{phase: withdrawing, ballot: true, heldBack: [stepCount]bool{stepRecheck: true}}, stepDelete},
		{"a ballot may exist", situation{phase: withdrawing, stray: true}, stepDelete},
		{"under way", situation{phase: withdrawing, ballot: true, busy: true}, rest},
		{"withdrawn", situation{phase: withdrawing}, stepIdle},
		{"the end", situation{phase: ended, want: true, ready: true}, rest},
	} {
		assert.Equal(t, c.want, decide(c.in), c.name)
	}
}

// bareCandidacy is a loop that does not run, of a candidate without options.
func bareCandidacy(base *Base) *candidacy {
	return newCandidacy(&Candidate{
		Base: base, settings: settings{metrics: (*Metrics)(nil).filled()},
		errands: errands{session: base.session, path: base.path}, inbox: newInbox(), done: make(chan struct{}),
	}, nil)
}

// TestLeaseBeginsUnseen: a lease begins after a candidate has looked for one,
// and before the Session knows whom to tell of it.
func TestLeaseBeginsUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(time.Minute)
		inc := &incarnation{id: 1, ctx: t.Context()}
		s.roster.publish(sessionView{inc: inc, connected: true})
		base, err := newBase(s, "e", "", slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		reply := make(chan error) // without room, so that the loop waits between the two
		c := bareCandidacy(base)
		c.phase, c.want, c.seen.inc = claiming, true, inc
		c.proclaims = []*proclaimCommand{{reply: reply}}
		c.ballot = &ballotState{node: &ballot{inc: inc}, line: line{known: true}, recheck: recheck{at: time.Now().Add(time.Hour)}}
		advanced := make(chan struct{})
		go func() {
			defer close(advanced)
			c.advance()
		}()
		synctest.Wait()
		if c.phase != claiming || s.needed() {
			t.Fatalf("%v, known to the Session: %v; want claiming, not known", c.phase, s.needed())
		}
		inc.lease.Store(lease.New(s.clock, s.rule(), s.clock.Now()+30*time.Second))
		assert.ErrorIs(t, <-reply, ErrNotLeader, "Proclaim")
		<-advanced
		assert.Equal(t, winning, c.phase, "%v under a lease, want winning", c.phase)
		inc.lease.Load().Revoke(ErrLeaseLapsed)
	})
}

func leadershipUnder(under *lease.Lease) *leadership {
	l := &leadership{lease: under, ballot: &ballot{}}
	l.ctx, l.cancel = context.WithCancelCause(under.Context())
	return l
}

// TestExclusiveWhileLeadershipIsGivenUp: whoever asks in the very moment at which leadership is given up is told of
// no more than the ballot waits.
func TestExclusiveWhileLeadershipIsGivenUp(t *testing.T) {
	s := newSession(time.Minute)
	base, err := newBase(s, "e", "", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for range 1000 {
		c := bareCandidacy(base)
		c.stepDownTimeout = time.Second
		under := lease.New(s.clock, s.rule(), s.clock.Now()+30*time.Second)
		l := leadershipUnder(under)
		c.phase, c.term, c.ballot = leading, &termState{lead: l}, &ballotState{node: l.ballot}
		c.leader.Store(l)
		var told time.Time
		asks, asked := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(asked)
			close(asks)
			for l.ctx.Err() == nil {
				if until := c.ExclusiveUntil(); until.After(told) {
					told = until
				}
			}
		}()
		<-asks
		c.quit(ErrResigned)
		<-asked
		require.Falsef(t, told.After(c.term.overdueAt), "told of %v more", told.Sub(c.term.overdueAt))
		under.Revoke(ErrLeaseLapsed)
	}
}

// TestBallotLossBeforeItIsLogged: a log may be slow, and others may lead. So a candidate whose ballot has gone says neither
// that it leads nor that nobody else does while that is logged.
func TestBallotLossBeforeItIsLogged(t *testing.T) {
	for _, cause := range []error{ErrBallotDeleted, ErrSessionLost} {
		for _, before := range []phase{winning, acking, leading, leaving} {
			var c *candidacy
			lines := 0
			base, err := newBase(newSession(time.Minute), "e", "", slog.New(logFunc(func(record slog.Record) {
				lines++
				assert.False(t, c.IsLeader(), "%v, %v: %s", before, cause, record.Message)
				assert.Zero(t, c.ExclusiveUntil(), "%v, %v: %s", before, cause, record.Message)
				assert.False(t, c.Status().Leads, "%v, %v: %s", before, cause, record.Message)
			})))
			require.NoError(t, err)
			c = bareCandidacy(base)
			under := lease.New(c.session.clock, c.session.rule(), c.session.clock.Now()+30*time.Second)
			l := leadershipUnder(under)
			c.phase, c.term, c.ballot = before, &termState{lead: l}, &ballotState{node: l.ballot}
			if before == leaving {
				c.term.draining = true
				c.stepping.Store(&stepDown{l, time.Now().Add(time.Minute)})
			} else {
				c.leader.Store(l)
			}
			c.publish()
			require.NotZero(t, c.ExclusiveUntil())
			require.Equal(t, before != leaving, c.Status().Leads)
			c.ballotLost(cause)
			assert.NotZero(t, lines)
			under.Revoke(ErrLeaseLapsed)
		}
	}
}

// TestLossBeforeTheAcknowledgement: the lease has ended when the answer to the acknowledgement is read, and nobody is told
// that the takeover has succeeded.
func TestLossBeforeTheAcknowledgement(t *testing.T) {
	c := inPhase(t, acking)
	l := c.term.lead
	l.lease = lease.New(c.session.clock, c.session.rule(), c.session.clock.Now()+30*time.Second)
	require.False(t, l.lost())
	l.lease.Revoke(ErrLeaseLapsed)
	c.ackDone(ackDone{lead: l, czxid: 7})
	assert.Equal(t, leaving, c.phase)
	assert.Zero(t, c.term.ackedAt)
	assert.EqualValues(t, 7, c.ballot.ack.czxid, "it is to be withdrawn with the ballot")
}

// TestCampaignIsNotToldOfALostTerm: a loop that has not noticed yet that leadership is over tells nobody of it.
func TestCampaignIsNotToldOfALostTerm(t *testing.T) {
	for _, lost := range []bool{false, true} {
		c := inPhase(t, leading)
		c.term.lead.lease = lease.New(lease.NewClock(), lease.NewRule(time.Hour, 0), time.Hour)
		if lost {
			c.term.lead.lease.Revoke(ErrLeaseLapsed)
		}
		reply := make(chan campaignResult, 1)
		c.campaign(&campaignCommand{reply: reply})
		assert.Equal(t, !lost, len(reply) == 1, "lost %v: answered", lost)
		assert.Equal(t, lost, len(c.campaigns) == 1, "lost %v: waits for the next term", lost)
	}
}

// TestHurriedBehindItsBallot: the ballot of a candidate that is closed in a hurry was withdrawn, and nothing is left to say.
func TestHurriedBehindItsBallot(t *testing.T) {
	withSession(t, func(t *testing.T, _ *trial, s *Session) {
		c := onSession(t, s, withdrawing)
		c.ballot, c.closing = nil, true
		c.hurry()
		assert.Equal(t, ended, c.phase)
		assert.NoError(t, c.closeErr)
	})
}

// TestAbandonedErrandEndsFirst: what a candidate that is closed in a hurry leaves behind is withdrawn when the errand that it
// had under way has ended, which may be about to ask for just that.
func TestAbandonedErrandEndsFirst(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, s *Session) {
		for _, p := range []phase{casting, acking, leading, moving} {
			c := onSession(t, s, p)
			over := make(chan struct{})
			c.helper = helper{over: over}
			var asked atomic.Int32
			stop := w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
				if r.Op != testutil.OpPing {
					asked.Add(1)
				}
				return testutil.Pass
			})
			withdrawn := c.abandonBallot()
			require.NotNil(t, withdrawn)
			synctest.Wait()
			assert.Zero(t, asked.Load(), p)
			close(over)
			<-withdrawn
			assert.NotZero(t, asked.Load(), p)
			stop()
		}
	})
}

// TestRecheckInterval: many candidates look less often, and it is not observers that
// make them do so.
func TestRecheckInterval(t *testing.T) {
	s := newSession(time.Minute)
	between := func(what string, least, most time.Duration) {
		t.Helper()
		for range 100 {
			if d := s.recheckInterval(); d < least || d > most {
				t.Fatalf("%s: a recheck every %v, want %v to %v", what, d, least, most)
			}
		}
	}
	between("alone", 45*time.Second, 75*time.Second)
	var observers []*Observer
	for range 1000 {
		o, err := NewObserver(s, "e", nil)
		require.NoError(t, err)
		observers = append(observers, o)
	}
	between("with observers", 45*time.Second, 75*time.Second)
	for range 1000 {
		require.NoError(t, s.join(&Candidate{}))
	}
	between("with candidates", 11*45*time.Second, 11*75*time.Second)
	for _, o := range observers {
		require.NoError(t, o.Close())
	}
	between("without observers", 11*45*time.Second, 11*75*time.Second)
}

// The pause after a failed takeover is jittered and doubled. However long it is, it is none that has passed.
func TestRetryPauseDoesNotOverflow(t *testing.T) {
	c := inPhase(t, winning)
	for _, c.retry = range []time.Duration{math.MaxInt64, math.MaxInt64 / 2, math.MaxInt64 >> (retryDoublings + 1)} {
		for range 100 {
			require.Greater(t, c.retryPause(), 365*24*time.Hour)
		}
	}
}
