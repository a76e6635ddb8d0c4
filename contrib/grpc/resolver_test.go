package grpc

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// fakeConn notes what a resolver tells.
type fakeConn struct {
	mu     sync.Mutex
	told   []string // addresses, "" for none
	last   resolver.State
	errors []error
}

func (f *fakeConn) UpdateState(s resolver.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	address := ""
	for _, a := range s.Addresses {
		address += a.Addr
	}
	f.told, f.last = append(f.told, address), s
	return errors.New("as a balancer says of an empty list")
}

func (f *fakeConn) ReportError(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors = append(f.errors, err)
}

func (*fakeConn) NewAddress([]resolver.Address) {}

func (*fakeConn) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

// take returns what was told since it was called last.
func (f *fakeConn) take() (addresses []string, reasons []error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	addresses, reasons = f.told, f.errors
	f.told, f.errors = nil, nil
	return addresses, reasons
}

// member starts a session in a bubble.
func member(t *testing.T, srv *testutil.Server) *election.Session {
	t.Helper()
	s, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
		Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func candidate(t *testing.T, s *election.Session, data string) *election.Candidate {
	t.Helper()
	c, err := election.NewCandidate(s, "area/db", &election.CandidateOptions{Data: []byte(data)})
	require.NoError(t, err)
	return c
}

// virtually runs a test in virtual time.
func virtually(t *testing.T, test func(t *testing.T, srv *testutil.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		t.Cleanup(srv.Close)
		test(t, srv)
	})
}

func target(t *testing.T, raw string) resolver.Target {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return resolver.Target{URL: *u}
}

func build(t *testing.T, b *Builder) (*fakeConn, resolver.Resolver) {
	t.Helper()
	cc := &fakeConn{}
	r, err := b.Build(target(t, "election:///area/db"), cc, resolver.BuildOptions{})
	require.NoError(t, err)
	return cc, r
}

// TestFollows: a connection is sent to each leader in turn, and to nobody while
// there is none, with the reason.
func TestFollows(t *testing.T) {
	virtually(t, func(t *testing.T, srv *testutil.Server) {
		cc, r := build(t, NewBuilder(member(t, srv), nil))
		defer r.Close()
		synctest.Wait()
		addresses, reasons := cc.take()
		assert.Equal(t, []string{""}, addresses)
		require.Len(t, reasons, 1)
		assert.EqualError(t, reasons[0], `election: "area/db" has no leader`)

		first, second := member(t, srv), member(t, srv)
		a, b := candidate(t, first, "a:1"), candidate(t, second, "b:1")
		_, err := a.Campaign(t.Context())
		require.NoError(t, err)
		require.NoError(t, b.Vote(t.Context()))
		synctest.Wait()
		addresses, reasons = cc.take()
		assert.Equal(t, []string{"a:1"}, addresses)
		assert.Empty(t, reasons)

		require.NoError(t, a.Proclaim(t.Context(), []byte("a:2")))
		synctest.Wait()
		addresses, _ = cc.take()
		assert.Equal(t, []string{"a:2"}, addresses, "a leader that has moved")

		r.ResolveNow(resolver.ResolveNowOptions{})
		srv.ExpireSession(first.ID())
		time.Sleep(5 * time.Second)
		addresses, _ = cc.take()
		assert.Equal(t, []string{"", "b:1"}, addresses)

		require.NoError(t, second.Close())
		synctest.Wait()
		addresses, _ = cc.take()
		assert.Equal(t, []string{"", "a:2"}, addresses, "the first one has voted again by itself")

		// While ZooKeeper is away the last leader known stays.
		srv.Stop()
		time.Sleep(time.Minute)
		addresses, _ = cc.take()
		assert.Empty(t, addresses)
		require.NoError(t, srv.Start())
		time.Sleep(time.Minute)
		require.True(t, a.IsLeader())
		require.NoError(t, a.Proclaim(t.Context(), []byte("a:3")))
		synctest.Wait()
		addresses, _ = cc.take()
		assert.Equal(t, []string{"a:3"}, addresses)
	})
}

// TestUnknown: until it is known who leads, the connection is told why not.
func TestUnknown(t *testing.T) {
	virtually(t, func(t *testing.T, srv *testutil.Server) {
		session := member(t, srv)
		srv.Stop()
		cc, r := build(t, NewBuilder(session, nil))
		time.Sleep(25 * time.Second)
		addresses, reasons := cc.take()
		assert.Empty(t, addresses)
		require.Len(t, reasons, 2, "about once in 10 s, the session timeout")
		require.ErrorIs(t, reasons[0], context.DeadlineExceeded)

		r.Close() // though no server answers
		require.NoError(t, srv.Start())
		_, err := candidate(t, member(t, srv), "a:1").Campaign(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Minute)
		addresses, reasons = cc.take()
		assert.Empty(t, addresses, "after Close")
		assert.Empty(t, reasons, "after Close")
	})
}

// TestRefusedToRead: a session without the right to read is told so, and
// follows once it has it.
func TestRefusedToRead(t *testing.T) {
	virtually(t, func(t *testing.T, srv *testutil.Server) {
		s := member(t, srv)
		require.NoError(t, s.AwaitConnected(t.Context()))
		secret := zk.DigestACL(zk.PermAll, "member", "secret")
		require.NoError(t, s.Conn().AddAuth("digest", []byte("member:secret")))
		c, err := election.NewCandidate(s, "area/db", &election.CandidateOptions{Data: []byte("a:1"), ACL: secret})
		require.NoError(t, err)
		_, err = c.Campaign(t.Context())
		require.NoError(t, err)

		cc, r := build(t, NewBuilder(member(t, srv), nil))
		defer r.Close()
		time.Sleep(25 * time.Second)
		addresses, reasons := cc.take()
		assert.Empty(t, addresses)
		require.Len(t, reasons, 3, "at once, and about once in 10 s")
		require.ErrorIs(t, reasons[0], zk.ErrNoAuth)

		_, err = s.Conn().SetACL(c.LeaderAckPath(), zk.WorldACL(zk.PermAll), -1)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		addresses, _ = cc.take()
		assert.Equal(t, []string{"a:1"}, addresses)
	})
}

func TestAddress(t *testing.T) {
	virtually(t, func(t *testing.T, srv *testutil.Server) {
		cc, r := build(t, NewBuilder(member(t, srv), &Options{Address: func(l election.Leader) (resolver.Address, error) {
			if string(l.Data) == "bad" {
				return resolver.Address{}, errors.New("no address")
			}
			return resolver.Address{Addr: "[" + string(l.Data) + "]", ServerName: "db"}, nil
		}}))
		defer r.Close()
		plain, r2 := build(t, NewBuilder(member(t, srv), nil))
		defer r2.Close()
		c := candidate(t, member(t, srv), "a:1")
		_, err := c.Campaign(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		assert.Equal(t, []resolver.Address{{Addr: "[a:1]", ServerName: "db"}}, cc.last.Addresses)
		cc.take()

		require.NoError(t, c.Proclaim(t.Context(), []byte("bad")))
		synctest.Wait()
		addresses, reasons := cc.take()
		assert.Equal(t, []string{""}, addresses)
		require.Len(t, reasons, 1)
		assert.ErrorContains(t, reasons[0], `the leader of "area/db" cannot be reached: no address`)

		plain.take()
		require.NoError(t, c.Proclaim(t.Context(), nil))
		synctest.Wait()
		addresses, reasons = plain.take()
		assert.Equal(t, []string{""}, addresses)
		require.Len(t, reasons, 1)
		assert.ErrorContains(t, reasons[0], "no data")
	})
}

func TestBuildErrors(t *testing.T) {
	virtually(t, func(t *testing.T, srv *testutil.Server) {
		s := member(t, srv)
		b := NewBuilder(s, &Options{Root: "/elsewhere"})
		assert.Equal(t, "election", b.Scheme())
		for raw, want := range map[string]string{
			"election:///":    "invalid",
			"election:///..":  "invalid",
			"election://zk/x": "write election:///zk/x",
		} {
			_, err := b.Build(target(t, raw), &fakeConn{}, resolver.BuildOptions{})
			require.ErrorContains(t, err, want, raw)
		}
		r, err := b.Build(target(t, "election:///area%20one/db"), &fakeConn{}, resolver.BuildOptions{})
		require.NoError(t, err)
		assert.Equal(t, "/elsewhere/area one__db", r.(*leaderResolver).observer.RootVotePath())
		r.Close()
		require.NoError(t, s.Close())
		_, err = b.Build(target(t, "election:///x"), &fakeConn{}, resolver.BuildOptions{})
		require.ErrorIs(t, err, election.ErrClosed)
	})
}
