package virtualtime_test

import (
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/virtualtime"
)

type silent struct{}

func (silent) Printf(string, ...any) {}

func TestAnHourTakesNoTime(t *testing.T) {
	began := time.Now()
	virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
		conn, events, err := zk.Connect(srv.Servers(), 10*time.Second, zk.WithDialer(srv.Dialer()), zk.WithLogger(silent{}))
		require.NoError(t, err)
		began := time.Now()
		time.Sleep(time.Hour)
		assert.Equal(t, zk.StateHasSession, conn.State())
		assert.Equal(t, time.Hour, time.Since(began))
		conn.Close()
		for range events {
		}
	})
	assert.Less(t, time.Since(began), 10*time.Minute)
}

func TestOptionsReachTheServer(t *testing.T) {
	opts := &testutil.ServerOptions{Members: 3}
	virtualtime.Test(t, opts, func(t *testing.T, srv *testutil.Server) {
		assert.Len(t, srv.Servers(), 3)
	})
	assert.False(t, opts.NoListen, "the caller's options have been changed")
}

func TestCleanupsStillHaveTheServer(t *testing.T) {
	virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
		conn, events, err := zk.Connect(srv.Servers(), 10*time.Second, zk.WithDialer(srv.Dialer()), zk.WithLogger(silent{}))
		require.NoError(t, err)
		t.Cleanup(func() {
			_, _, err := conn.Exists("/")
			assert.NoError(t, err)
			conn.Close()
			for range events {
			}
			assert.Empty(t, srv.Sessions(), "the client's Close has not reached the server")
		})
	})
}
