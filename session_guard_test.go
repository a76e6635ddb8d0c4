package election

import (
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/guard"
	"github.com/zkelection/election/testutil"
)

// holds notes what a Guard is told, and of which sessions the server knew then.
type holds struct {
	mu   sync.Mutex
	srv  *testutil.Server
	told []*guard.Session
	then [][]testutil.SessionInfo
}

func (h *holds) Hold(_ any, session *guard.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, session)
	h.then = append(h.then, h.srv.Sessions())
}

func (h *holds) all() []*guard.Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*guard.Session(nil), h.told...)
}

// A guard always knows the present session, before there is a ballot of it, and
// that it was closed only when it is.
func TestGuardIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer srv.Close()
		h := &holds{srv: srv}
		s, err := Connect([]string{"mem"}, 10*time.Second, &SessionOptions{
			Dialer: srv.Dialer(), Guard: h, TickTime: 2 * time.Second,
			Auth: []Auth{{Scheme: "digest", Credentials: []byte("user:password")}},
		})
		require.NoError(t, err)
		c, err := NewCandidate(s, "e", nil)
		require.NoError(t, err)
		require.NoError(t, c.Vote(t.Context()))
		first := s.ID()

		told := h.all()
		require.Len(t, told, 1)
		assert.Equal(t, &guard.Session{
			Servers: []string{"mem:2181"}, Connected: "mem:2181", ID: first, Password: told[0].Password,
			Timeout: s.Timeout(), Tick: 2 * time.Second,
			Auth: []guard.Auth{{Scheme: "digest", Credentials: []byte("user:password")}},
		}, told[0])
		assert.Len(t, told[0].Password, 16)

		srv.DropConnections()
		time.Sleep(5 * time.Second)
		told = h.all()
		require.Len(t, told, 2, "it has another connection")
		assert.Equal(t, told[0], told[1])

		srv.ExpireSession(first)
		time.Sleep(20 * time.Second)
		told = h.all()
		require.Len(t, told, 4)
		assert.Nil(t, told[2], "the session was lost")
		require.NotNil(t, told[3])
		assert.Equal(t, s.ID(), told[3].ID)
		assert.NotEqual(t, first, told[3].ID)
		assert.NotEqual(t, told[0].Password, told[3].Password)

		require.NoError(t, s.Close())
		told = h.all()
		require.Len(t, told, 5)
		assert.Nil(t, told[4])
		assert.Empty(t, h.then[4], "told before the session was closed")
	})
}

// likeTLS is a connection of TLS in a type of the service's own.
type likeTLS struct{ net.Conn }

func (likeTLS) ConnectionState() tls.ConnectionState { return tls.ConnectionState{} }

// A guard that is not told how to connect by TLS must know that the session has done so.
func TestGuardIsToldOfTLS(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
			require.NoError(t, err)
			defer srv.Close()
			h, dial := &holds{srv: srv}, srv.Dialer()
			s, err := Connect([]string{"mem"}, 10*time.Second, &SessionOptions{
				Guard: h, Dialer: func(network, address string, timeout time.Duration) (net.Conn, error) {
					c, err := dial(network, address, timeout)
					if err == nil && encrypted {
						c = likeTLS{c}
					}
					return c, err
				},
			})
			require.NoError(t, err)
			require.NoError(t, s.AwaitConnected(t.Context()))
			synctest.Wait()
			require.Len(t, h.all(), 1)
			assert.Equal(t, encrypted, h.all()[0].Encrypted)
			require.NoError(t, s.Close())
		})
	}
}
