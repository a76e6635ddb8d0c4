package election

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// logged is what a logger has written, as text.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines returns those with a message.
func (l *logged) lines(message string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, fmt.Sprintf("msg=%q", message)) {
			found = append(found, line)
		}
	}
	return found
}

// withLog runs a test in virtual time, in which connect makes a session whose
// lines are kept.
func withLog(t *testing.T, test func(t *testing.T, srv *testutil.Server, connect func() (*Session, *logged))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		t.Cleanup(srv.Close)
		test(t, srv, func() (*Session, *logged) {
			log := &logged{}
			s, err := Connect(srv.Servers(), 10*time.Second, &SessionOptions{
				Dialer: srv.Dialer(), Logger: slog.New(slog.NewTextHandler(log, nil)),
			})
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			return s, log
		})
	})
}

// A leadership that was lost is a warning, and one that was given up is not.
func TestLevelOfStepDown(t *testing.T) {
	for cause, lose := range map[error]func(t *testing.T, srv *testutil.Server, c *Candidate){
		ErrResigned: func(t *testing.T, _ *testutil.Server, c *Candidate) { require.NoError(t, c.Resign(t.Context())) },
		ErrClosed:   func(t *testing.T, _ *testutil.Server, c *Candidate) { require.NoError(t, c.Close()) },
		ErrTransferred: func(t *testing.T, srv *testutil.Server, c *Candidate) {
			s, err := Connect(srv.Servers(), 10*time.Second, &SessionOptions{Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			next, err := NewCandidate(s, "x", nil)
			require.NoError(t, err)
			require.NoError(t, next.Vote(t.Context()))
			ballots, err := c.Ballots(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.Transfer(t.Context(), ballots[1]))
		},
		ErrLeaseLapsed: func(_ *testing.T, srv *testutil.Server, c *Candidate) {
			heal := srv.Isolate(c.session.ID())
			time.Sleep(time.Until(c.LeaseUntil()))
			synctest.Wait()
			heal()
		},
		ErrSessionLost: func(_ *testing.T, srv *testutil.Server, c *Candidate) { srv.ExpireSession(c.session.ID()) },
		ErrBallotDeleted: func(t *testing.T, _ *testutil.Server, c *Candidate) {
			require.NoError(t, c.session.Conn().Delete(c.VotePath(), -1))
		},
		ErrTakeoverFailed: func(t *testing.T, _ *testutil.Server, c *Candidate) {
			require.NoError(t, c.Resign(t.Context()))
			// What it returns has no say.
			c.OnWin(func(context.Context, Term) error { return ErrResigned })
			_, err := c.Campaign(t.Context())
			require.ErrorIs(t, err, ErrTakeoverFailed)
		},
	} {
		t.Run(cause.Error(), func(t *testing.T) {
			withLog(t, func(t *testing.T, srv *testutil.Server, connect func() (*Session, *logged)) {
				s, log := connect()
				c, err := NewCandidate(s, "x", nil)
				require.NoError(t, err)
				told := make(chan error, 5)
				c.OnStepDown(func(_ context.Context, _ Term, cause error) { told <- cause })
				_, err = c.Campaign(t.Context())
				require.NoError(t, err)
				lose(t, srv, c)
				time.Sleep(2 * time.Second)
				var last error
				for len(told) > 0 {
					last = <-told
				}
				require.ErrorIs(t, last, cause)
				lines := log.lines("election: stepping down")
				require.NotEmpty(t, lines)
				level := "level=WARN"
				if isVoluntary(cause) {
					level = "level=INFO"
				}
				assert.Contains(t, lines[len(lines)-1], level)
			})
		})
	}
}

// Losers and observers name the leader in the log by its session, as ZooKeeper
// writes that, and by its data.
func TestLeaderInLog(t *testing.T) {
	withLog(t, func(t *testing.T, _ *testutil.Server, connect func() (*Session, *logged)) {
		s, _ := connect()
		c, err := NewCandidate(s, "x", &CandidateOptions{Data: []byte("dbhost1.fqdn.tld:4567")})
		require.NoError(t, err)
		_, err = c.Campaign(t.Context())
		require.NoError(t, err)
		other, log := connect()
		loser, err := NewCandidate(other, "x", nil)
		require.NoError(t, err)
		require.NoError(t, loser.Vote(t.Context()))
		o, err := NewObserver(other, "x", nil)
		require.NoError(t, err)
		require.NoError(t, o.Observe(t.Context()))
		synctest.Wait()
		id := s.ID()
		require.NoError(t, c.Close())
		synctest.Wait()
		for _, message := range []string{"election: lost", "election: new leader", "election: leader gone"} {
			lines := log.lines(message)
			require.NotEmpty(t, lines, message)
			assert.Contains(t, lines[0], fmt.Sprintf("leader=0x%x data=dbhost1.fqdn.tld:4567\n", uint64(id)))
		}
	})
}

func TestPrintable(t *testing.T) {
	long := strings.Repeat("a", 63)
	for data, want := range map[string]string{
		"":                         "",
		"host:1":                   "host:1",
		"a\nb\x00\xff":             `a\nb\x00\xff`,
		`"`:                        `\"`,
		long + "b":                 long + "b",
		long + "bc":                long + "b...",
		long + "é":                 long + "...",
		long + "\xff\xff":          long + `\xff...`,
		"überall":                  "überall",
		strings.Repeat("\x80", 70): strings.Repeat(`\x80`, 60) + "...",
	} {
		assert.Equal(t, want, printable([]byte(data)), "%q", data)
	}
}
