package election

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/lease"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/virtualtime"
)

// onCallersConnection is a Session on a caller's connection that nothing has
// been heard on.
func onCallersConnection() *Session {
	s := newSession(8 * time.Second)
	s.client.connection.Store(&connection{Connection: lease.NewConnection(8*time.Second, 0)})
	return s
}

func (s *Session) hasHeard() bool {
	_, ok := s.client.connection.Load().SurelyHeard(time.Hour)
	return ok
}

// Where the connection itself is not seen, a sign of life is a request that was
// answered, and not a call that made none.
func TestSignsOfLife(t *testing.T) {
	for _, test := range []struct {
		name      string
		err, want error
		heard     bool
	}{
		{"an answer", nil, nil, true},
		{"no node", zk.ErrNoNode, zk.ErrNoNode, true},
		{"there already", zk.ErrNodeExists, zk.ErrNodeExists, true},
		{"nothing asked", errNothingAsked, nil, false},
		{"a lost reply", zk.ErrConnectionClosed, zk.ErrConnectionClosed, false},
		{"uncertain", errUncertain, errUncertain, false},
	} {
		s := onCallersConnection()
		err := s.do(t.Context(), func(*zk.Conn) error { return test.err })
		assert.Equal(t, test.want, err, test.name)
		assert.Equal(t, test.heard, s.hasHeard(), test.name)
	}
}

// A look that finds a watch which another candidate has armed meanwhile, and a
// check of nothing, ask the server nothing.
func TestLookWithoutRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := onCallersConnection()
		e := errands{session: s, path: "/e"}
		inc := &incarnation{id: 1, ctx: context.Background()}
		b := &ballot{inc: inc, name: "b"}
		for range cap(s.slots) { // so many requests are under way: it has to wait
			s.slots <- struct{}{}
		}
		looked := make(chan placeResult)
		go func() {
			looked <- e.findPlace(t.Context(), placeOrder{ballot: b, known: &standing{predecessor: "a", ahead: 1}})
		}()
		synctest.Wait()
		watch := make(<-chan zk.Event)
		s.watches.add(inc, "/e/a", watch)
		<-s.slots
		r := <-looked
		require.NoError(t, r.err)
		assert.Equal(t, watch, r.watch)
		assert.Equal(t, standing{predecessor: "a", ahead: 1}, r.place)
		assert.False(t, s.hasHeard(), "a read that asked nothing counts as a sign of life")

		require.NoError(t, e.recheck(t.Context(), recheckOrder{ballot: b}).err)
		assert.False(t, s.hasHeard(), "a check of nothing counts as a sign of life")
	})
}

// Whether there is a connection, to which server and since when, is known, and
// is what Status says and the metrics are told.
func TestConnection(t *testing.T) {
	var told []bool
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer srv.Close()
		s, err := Connect(srv.Servers(), 10*time.Second, &SessionOptions{
			Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
			Metrics: &Metrics{Connected: func(connected bool) { told = append(told, connected) }},
		})
		require.NoError(t, err)
		defer func() { _ = s.Close() }()
		c, err := NewCandidate(s, "x", nil)
		require.NoError(t, err)
		agree := func() Connection {
			synctest.Wait()
			now, status := s.Connection(), c.Status()
			assert.Equal(t, Connection{status.Connected, status.Server, status.ConnectionSince}, now)
			return now
		}
		require.NoError(t, s.AwaitConnected(t.Context()))
		had := agree()
		assert.True(t, had.Connected)
		assert.Equal(t, srv.Addr(), had.Server)
		assert.WithinDuration(t, time.Now(), had.Since, time.Second)
		assert.Equal(t, []bool{true}, told)

		time.Sleep(time.Second)
		srv.Stop()
		lost := agree()
		assert.False(t, lost.Connected)
		assert.Equal(t, srv.Addr(), lost.Server, "the one that is tried")
		assert.Equal(t, time.Now(), lost.Since)
		time.Sleep(s.Timeout() / 2)
		assert.Equal(t, lost, agree())
		assert.Equal(t, []bool{true, false}, told)

		require.NoError(t, srv.Start())
		time.Sleep(s.Timeout() / 2)
		assert.True(t, agree().Connected)
		require.NoError(t, s.Close())
		assert.False(t, s.Connection().Connected)
		assert.Equal(t, []bool{true, false, true, false}, told)
	})
}

// What is to follow a creation is asked behind it, however late that is sent, and on a
// connection that tells nothing not at all.
func TestCreateThen(t *testing.T) {
	virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
		s, err := Connect([]string{"mem"}, 4*time.Second, &SessionOptions{Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, s.Close()) })
		require.NoError(t, s.AwaitConnected(t.Context()))
		for _, test := range []struct {
			name   string
			parent string // "": there is none
			lost   bool
			asked  bool
		}{
			{"created", "", false, true},
			{"refused", "/none", false, true},
			{"never sent", "", true, false},
		} {
			var created, listed time.Time
			refused := errors.New("not today")
			err, asked, listErr := s.createThen(t.Context(), test.parent+"/a-", func(conn *zk.Conn) error {
				time.Sleep(time.Second)
				if test.lost {
					return refused
				}
				created = time.Now()
				_, err := conn.Create(test.parent+"/a-", nil, zk.FlagSequence, zk.WorldACL(zk.PermAll))
				return err
			}, func(conn *zk.Conn) error {
				listed = time.Now()
				children, _, err := conn.Children("/")
				if test.parent == "" && err == nil && !slices.ContainsFunc(children, func(c string) bool { return strings.HasPrefix(c, "a-") }) {
					return errors.New("it was asked before")
				}
				return err
			})
			assert.Equal(t, test.asked, asked, test.name)
			assert.NoError(t, listErr, test.name)
			switch {
			case test.lost:
				assert.ErrorIs(t, err, refused, test.name)
				assert.Zero(t, listed, test.name)
			case test.parent != "":
				assert.ErrorIs(t, err, zk.ErrNoNode, test.name)
				assert.Equal(t, created, listed, test.name)
			default:
				assert.NoError(t, err, test.name)
				assert.Equal(t, created, listed, test.name)
			}
		}
		assert.Empty(t, s.client.pipelines.waiting, "nothing is left behind")
	})
}
