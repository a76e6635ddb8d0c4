package election

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// Windows of a few instructions between two steps of the library's own, which
// neither the sweep nor the simulation hits: virtual time does not pass in them.
// Some other step is made to wait here, so that each is wide.

const racesTimeout = 4 * time.Second

// withSession runs a test in virtual time, with a session that is ready.
func withSession(t *testing.T, run func(t *testing.T, w *trial, s *Session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newTrial(t, testutil.ServerOptions{}, racesTimeout)
		defer w.srv.Close()
		s := w.newProcess("a", 0, 0).session
		defer func() { _ = s.Close() }()
		require.NoError(t, s.AwaitConnected(t.Context()))
		run(t, w, s)
	})
}

// TestClosedOwnerIsLoggedOnce: what shows that a caller's connection is closed arrives when the watch has told of it.
func TestClosedOwnerIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrial(t, testutil.ServerOptions{}, racesTimeout)
		defer w.srv.Close()
		p := w.newCallersProcess("a", 0, 0)
		require.NoError(t, p.session.AwaitConnected(t.Context()))
		p.caller.close()
		synctest.Wait()
		for range 4 {
			p.session.inbox.push(ownerProbed{true})
			synctest.Wait()
		}
		require.ErrorIs(t, p.session.Close(), zk.ErrClosing)
		told := 0
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, h := range w.history {
			if strings.Contains(h.text(), "the owner of the connection has closed it") {
				told++
			}
		}
		assert.Equal(t, 1, told)
	})
}

// TestTimerDueWhileResting: a point in time passes after the decision that
// there is nothing to do before, and before the timer is set for it.
func TestTimerDueWhileResting(t *testing.T) {
	const due = time.Millisecond
	for name, prepare := range map[string]func(c *candidacy, at time.Time){
		"a withdrawal that failed": func(c *candidacy, at time.Time) {
			c.phase, c.want = withdrawing, false
			c.helper.holdBack(stepDelete, at)
		},
		"a periodic recheck": func(c *candidacy, at time.Time) {
			c.phase, c.ballot.losing = waiting, &losing{}
			c.ballot.line, c.ballot.recheck.at = line{known: true, place: standing{ahead: 1, predecessor: "p"}}, at
		},
		"a vote that was refused": func(c *candidacy, at time.Time) { c.phase, c.ballot, c.absence.until = idle, nil, at },
	} {
		t.Run(name, func(t *testing.T) {
			withSession(t, func(t *testing.T, w *trial, s *Session) {
				base, err := newBase(s, electionName, "", w.logger)
				require.NoError(t, err)
				view, reply := s.currentView(), make(chan error) // without room, so that the loop waits
				c := bareCandidacy(base)
				c.seen = seenSession{inc: view.inc, reconnects: view.reconnects}
				c.want, c.proclaims = true, []*proclaimCommand{{reply: reply}}
				node := &ballot{inc: view.inc, path: base.path + "/ballot-1-0000000001", name: "ballot-1-0000000001"}
				c.ballot = &ballotState{node: node, recheck: recheck{at: c.now.Add(time.Hour)}}
				began := time.Now()
				prepare(c, began.Add(due))
				acts := make(chan time.Duration, 1)
				defer w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
					if r.Op != testutil.OpPing {
						select {
						case acts <- time.Since(began):
						default:
						}
					}
					return testutil.Pass
				})()
				go c.run()
				time.Sleep(2 * due)
				assert.ErrorIs(t, <-reply, ErrNotLeader, "Proclaim")
				assert.LessOrEqual(t, <-acts, time.Second, "due after %v", due)
				c.inbox.push(resignCommand{cause: ErrClosed})
				<-c.done
			})
		})
	}
}

// TestCloseWaitsAtRest: Close waits for an OnStepDown that takes longer than
// Close is patient otherwise, and does nothing meanwhile. A loop that goes round
// keeps virtual time from passing.
func TestCloseWaitsAtRest(t *testing.T) {
	spins := time.AfterFunc(2*time.Minute, func() { panic("Close goes round and round") })
	defer spins.Stop()
	withSession(t, func(t *testing.T, _ *trial, s *Session) {
		const timeout = racesTimeout
		c, err := NewCandidate(s, electionName, &CandidateOptions{StepDownTimeout: 10 * timeout})
		require.NoError(t, err)
		c.OnStepDown(func(context.Context, Term, error) { time.Sleep(5 * timeout) })
		if _, err := c.Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		assert.NoError(t, c.Close())
		if took := time.Since(began); took < 5*timeout || took > 6*timeout {
			t.Errorf("Close took %v", took)
		}
	})
}

// TestResignThenVoteDuringCast: Resign is called while a ballot is cast, and Vote
// before that has come to anything. That ballot is withdrawn, and another cast.
func TestResignThenVoteDuringCast(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, s *Session) {
		c, err := NewCandidate(s, electionName, nil)
		require.NoError(t, err)
		// The first try casts: a list that finds no node would hold up the answers behind it.
		for _, path := range []string{DefaultRoot, c.RootVotePath()} {
			_, err := s.Conn().Create(path, nil, 0, zk.WorldACL(zk.PermAll))
			require.NoError(t, err)
		}
		release, asked := make(chan struct{}), make(chan struct{}, 2)
		cancel := w.srv.Control(testutil.OpGetChildren2, func(*testutil.Request) testutil.Action {
			asked <- struct{}{}
			return testutil.HoldReply(release)
		})
		voted, resigned, again := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() { voted <- c.Vote(t.Context()) }()
		for range 2 { // the watch on the ballot, and the list
			<-asked
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		go func() { resigned <- c.Resign(ctx) }()
		time.Sleep(time.Millisecond)
		go func() { again <- c.Vote(t.Context()) }()
		time.Sleep(time.Millisecond)
		cancel()
		close(release)
		began := time.Now()
		if err := <-voted; !errors.Is(err, ErrResigned) {
			t.Errorf("the first Vote: %v, want %v", err, ErrResigned)
		}
		assert.NoError(t, <-resigned, "Resign")
		assert.NoError(t, <-again, "the second Vote")
		assert.LessOrEqual(t, time.Since(began), time.Second, "it took")
		ballots, err := c.Ballots(t.Context())
		if err != nil || len(ballots) != 1 || ballots[0].Path != c.VotePath() || ballots[0].Sequence != 1 {
			t.Errorf("ballots %+v, error %v; want one, the second that was cast, %s", ballots, err, c.VotePath())
		}
	})
}

// deafConn loses watch events while deaf, as a proxy might.
type deafConn struct {
	net.Conn
	deaf   *atomic.Bool
	frame  []byte // what is left of it
	shaken bool
}

func (c *deafConn) Read(p []byte) (int, error) {
	for len(c.frame) == 0 {
		var length [4]byte
		if _, err := io.ReadFull(c.Conn, length[:]); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(c.Conn, body); err != nil {
			return 0, err
		}
		if c.shaken && int32(binary.BigEndian.Uint32(body)) == -1 && c.deaf.Load() { // a watch event
			continue
		}
		c.shaken = true
		c.frame = append(length[:], body...)
	}
	n := copy(p, c.frame)
	c.frame = c.frame[n:]
	return n, nil
}

// TestAcknowledgementOverheard: the event of the acknowledgement is lost. OnLose
// and OnLeaderAck, which wait for one and no more, learn of it all the same.
func TestAcknowledgementOverheard(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, leaders *Session) {
		const timeout = racesTimeout
		var deaf atomic.Bool
		dial := w.srv.Dialer()
		s, err := Connect([]string{"mem"}, timeout, &SessionOptions{
			Logger: w.logger, Dialer: func(network, address string, limit time.Duration) (net.Conn, error) {
				c, err := dial(network, address, limit)
				if err != nil {
					return nil, err
				}
				return &deafConn{Conn: c, deaf: &deaf}, nil
			},
		})
		require.NoError(t, err)
		defer func() { _ = s.Close() }()
		a, errA := NewCandidate(leaders, electionName, nil)
		b, errB := NewCandidate(s, electionName, nil)
		require.NoError(t, errors.Join(errA, errB))
		ready := make(chan struct{})
		a.OnWin(func(context.Context, Term) error { <-ready; return nil })
		require.NoError(t, a.Vote(t.Context()))
		told := make(chan string, 2)
		b.OnLose(func(context.Context, Leader) { told <- "OnLose" })
		b.OnLeaderAck(func(Leader) { told <- "OnLeaderAck" })
		require.NoError(t, b.Vote(t.Context()))
		time.Sleep(timeout / 4)
		deaf.Store(true)
		began := time.Now()
		close(ready)
		time.Sleep(timeout / 4)
		deaf.Store(false)
		for n := range 2 {
			select {
			case <-told:
			case <-time.After(timeout * 3 / 2):
				t.Fatalf("%v after the acknowledgement %d of OnLose and OnLeaderAck have been called", time.Since(began), n)
			}
		}
	})
}

// closingContext closes the observer when it is asked whether it has closed, and
// gives that time.
type closingContext struct {
	context.Context
	asked func()
}

func (c closingContext) Err() error {
	err := c.Context.Err()
	c.asked()
	return err
}

// TestObserveRacesWithClose: what Observe begins Close has to know of.
func TestObserveRacesWithClose(t *testing.T) {
	srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
	require.NoError(t, err)
	defer srv.Close()
	s, err := Connect([]string{"mem"}, 4*time.Second, &SessionOptions{Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	o, err := NewObserver(s, electionName, nil)
	require.NoError(t, err)
	closed := make(chan error, 1)
	var once sync.Once
	o.ctx = closingContext{o.ctx, func() {
		once.Do(func() {
			go func() { closed <- o.Close() }()
			time.Sleep(20 * time.Millisecond) // for Close to come; nothing tells that it waits
		})
	}}
	if err := o.Observe(t.Context()); err != nil && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	assert.NoError(t, <-closed)
	s.roster.mu.Lock()
	defer s.roster.mu.Unlock()
	for f := range s.roster.members {
		if f, ok := f.(*ackWatcher); ok {
			t.Errorf("the ackWatcher of %s serves an observer that has closed", f.path)
		}
	}
}

// TestEndedHookIsWaitedFor: an OnConnected function runs on after its
// registration was ended, and Close waits for it.
func TestEndedHookIsWaitedFor(t *testing.T) {
	withSession(t, func(t *testing.T, _ *trial, s *Session) {
		began, over := make(chan struct{}), false
		cancel := s.OnConnected(func() {
			close(began)
			time.Sleep(time.Second)
			over = true
		})
		<-began
		cancel()
		s.OnConnected(func() {})() // this does not forget the other one
		if err := s.Close(); err != nil || !over {
			t.Errorf("Close returned %v, and the function has returned: %v", err, over)
		}
	})
}

// TestAbandonComesLate: a Campaign is answered and gives up at the same moment.
// It takes the answer, and its candidacy goes on, as does that of whoever else
// was told that this candidate leads. One that was not answered ends with it,
// unless Vote was called in between.
func TestAbandonComesLate(t *testing.T) {
	s := newSession(time.Minute)
	base, err := newBase(s, "e", "", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for _, test := range []struct{ answered, votes bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		c := bareCandidacy(base)
		c.phase, c.ballot = waiting, &ballotState{}
		campaign := &campaignCommand{reply: make(chan campaignResult, 1)}
		c.campaign(campaign)
		if test.answered {
			c.campaigns = nil
		}
		if test.votes {
			c.vote(voteCommand{make(chan error, 1)})
		}
		c.abandon(campaign)
		assert.Equal(t, test.answered || test.votes, c.want, "answered %v, Vote was called %v: the candidate goes on", test.answered, test.votes)
	}
}
