package docs_test

import (
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/virtualtime"
)

// faultExample shows one row of the table of faults in testing.md, on a leader of an election.
type faultExample struct {
	opts testutil.ServerOptions
	show func(t *testing.T, srv *testutil.Server, session *election.Session, c *election.Candidate)
}

const faultTimeout = 10 * time.Second // of the session

var (
	whole = testutil.ServerOptions{}
	three = testutil.ServerOptions{Members: 3}
)

// faultExamples are by the first column of the table.
var faultExamples = map[string]faultExample{
	"a session expire": {whole, func(t *testing.T, srv *testutil.Server, session *election.Session, c *election.Candidate) {
		before := session.ID()
		require.True(t, srv.ExpireSession(before))
		synctest.Wait()
		assert.False(t, c.IsLeader())
		time.Sleep(faultTimeout)
		assert.NotEqual(t, before, session.ID())
		assert.True(t, c.IsLeader(), "on another session")
	}},
	"a client cut off, the connection still open": {whole, func(t *testing.T, srv *testutil.Server, session *election.Session, c *election.Candidate) {
		before := session.ID()
		heal := srv.Isolate(before)
		time.Sleep(faultTimeout)
		assert.False(t, c.IsLeader(), "its lease has ended")
		time.Sleep(faultTimeout)
		heal()
		time.Sleep(faultTimeout)
		assert.NotEqual(t, before, session.ID(), "it had expired by then")
		assert.True(t, c.IsLeader())

		heal = srv.IsolateAll()
		time.Sleep(faultTimeout)
		assert.False(t, c.IsLeader())
		heal()
	}},
	"all connections cut": {whole, func(t *testing.T, srv *testutil.Server, session *election.Session, c *election.Candidate) {
		before, addr := session.ID(), srv.Sessions()[0].Addr
		srv.DropConnections()
		time.Sleep(faultTimeout / 5)
		assert.Equal(t, before, session.ID())
		assert.NotEqual(t, addr, srv.Sessions()[0].Addr, "on another connection")
		assert.True(t, c.IsLeader())
	}},
	"a restart of ZooKeeper, data kept": {whole, func(t *testing.T, srv *testutil.Server, session *election.Session, c *election.Candidate) {
		before := session.ID()
		srv.Stop()
		time.Sleep(time.Minute)
		assert.False(t, c.IsLeader())
		require.NoError(t, srv.Start())
		time.Sleep(faultTimeout)
		assert.Equal(t, before, session.ID(), "time stands still for sessions meanwhile")
		assert.True(t, c.IsLeader())
	}},
	"the answer to one request lost, the request applied": {whole, func(t *testing.T, srv *testutil.Server, _ *election.Session, c *election.Candidate) {
		require.NoError(t, c.Resign(t.Context()))
		srv.ResetCounts()
		defer srv.Control(testutil.OpCreate, testutil.Once(testutil.LoseReply))()
		require.NoError(t, c.Vote(t.Context()))
		assert.EqualValues(t, 1, srv.Counts()[testutil.OpCreate], "it is found, and not created again")
	}},
	"the third one to fail": {whole, func(t *testing.T, srv *testutil.Server, _ *election.Session, c *election.Candidate) {
		require.NoError(t, c.Resign(t.Context()))
		defer srv.Control(testutil.OpCreate, testutil.Nth(3, testutil.Fail(zk.ErrNoAuth)))()
		for i := range 3 {
			err := c.Vote(t.Context())
			if i < 2 {
				require.NoError(t, err)
				require.NoError(t, c.Resign(t.Context()))
			} else {
				assert.ErrorIs(t, err, zk.ErrNoAuth)
			}
		}
	}},
	"a slow one": {whole, func(t *testing.T, srv *testutil.Server, _ *election.Session, c *election.Candidate) {
		require.NoError(t, c.Resign(t.Context()))
		began := time.Now()
		cancel := srv.Control(testutil.OpCreate, testutil.Once(testutil.Delay(3*time.Second)))
		require.NoError(t, c.Vote(t.Context()))
		cancel()
		assert.Equal(t, 3*time.Second, time.Since(began))

		require.NoError(t, c.Resign(t.Context()))
		answer := make(chan struct{})
		defer srv.Control(testutil.OpCreate, testutil.Once(testutil.HoldReply(answer)))()
		voted := make(chan error, 1)
		go func() { voted <- c.Vote(t.Context()) }()
		synctest.Wait()
		assert.Empty(t, voted)
		close(answer)
		assert.NoError(t, <-voted)
	}},
	"a server cut off from its ensemble": {three, func(t *testing.T, srv *testutil.Server, session *election.Session, c *election.Candidate) {
		before := srv.Sessions()[0].Member
		srv.Member(before).CutOff()
		time.Sleep(2 * faultTimeout)
		now := srv.Sessions()
		require.Len(t, now, 1)
		assert.NotEqual(t, before, now[0].Member, "it has moved")
		assert.Equal(t, session.ID(), now[0].ID)
		assert.True(t, c.IsLeader())
		srv.Member(before).Heal()
	}},
	"a server killed, and started again": {three, func(t *testing.T, srv *testutil.Server, session *election.Session, c *election.Candidate) {
		before := session.ID()
		leads := srv.Leader()
		srv.Member(leads).Stop()
		assert.NotEqual(t, leads, srv.Leader())
		time.Sleep(time.Minute)
		require.NoError(t, srv.Member(leads).Start())
		assert.Equal(t, before, session.ID())
		assert.True(t, c.IsLeader())
	}},
	"a server that lags behind": {three, func(t *testing.T, srv *testutil.Server, _ *election.Session, c *election.Candidate) {
		other := (srv.Sessions()[0].Member + 1) % 3
		srv.Member(other).Lag()
		require.NoError(t, c.Resign(t.Context()))
		reader, events, err := zk.Connect([]string{srv.Member(other).Addr()}, faultTimeout, zk.WithDialer(srv.Member(other).Dialer()))
		require.NoError(t, err)
		defer func() {
			reader.Close()
			for range events { // until the client's goroutines have ended
			}
		}()
		srv.Member(other).CatchUp() // no session begins before
		_, _, err = reader.Get(c.LeaderAckPath())
		assert.ErrorIs(t, err, zk.ErrNoNode)
	}},
	"pings of the ensemble's leader that are later than a millisecond": {
		testutil.ServerOptions{Members: 3, PingDelay: func() time.Duration { return 100 * time.Millisecond }},
		func(t *testing.T, _ *testutil.Server, _ *election.Session, c *election.Candidate) {
			time.Sleep(time.Minute)
			assert.True(t, c.IsLeader(), "a hundredth of the timeout is allowed for")
		},
	},
	"clients whose clocks run at another rate than the ensemble's": {
		testutil.ServerOptions{ClientClock: func() float64 { return 11. / 12 }},
		func(t *testing.T, srv *testutil.Server, session *election.Session, c *election.Candidate) {
			defer srv.Isolate(session.ID())()
			for len(srv.Sessions()) > 0 {
				time.Sleep(10 * time.Millisecond)
			}
			assert.False(t, c.IsLeader(), "its lease has ended before its session")
		},
	},
}

var faultRow = regexp.MustCompile(`(?m)^\| ([^|]*) \| .*(?:srv\.|testutil\.|ServerOptions\.).*\|$`)

// TestFaultTable shows each fault that testing.md lists.
func TestFaultTable(t *testing.T) {
	var rows []string
	for _, row := range faultRow.FindAllStringSubmatch(read(t, "docs/testing.md"), -1) {
		rows = append(rows, row[1])
	}
	for row := range faultExamples {
		assert.Contains(t, rows, row, "the rows of testing.md")
	}
	for _, row := range rows {
		example, ok := faultExamples[row]
		if !assert.True(t, ok, "there is no example of %q", row) {
			continue
		}
		t.Run(row, func(t *testing.T) {
			virtualtime.Test(t, &example.opts, func(t *testing.T, srv *testutil.Server) {
				session, err := election.Connect(srv.Servers(), faultTimeout, &election.SessionOptions{Dialer: srv.Dialer()})
				require.NoError(t, err)
				defer func() { assert.NoError(t, session.Close()) }()
				c, err := election.NewCandidate(session, "database_election", nil)
				require.NoError(t, err)
				_, err = c.Campaign(t.Context())
				require.NoError(t, err)
				example.show(t, srv, session, c)
			})
		})
	}
	assert.GreaterOrEqual(t, len(rows), 10, "the table is not found")
}
