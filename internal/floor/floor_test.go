package floor

import (
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/zxid"
	"github.com/zkelection/election/testutil"
)

// TestInOrder: whoever is in front leads, those behind wait, and one that withdraws is passed over.
func TestInOrder(t *testing.T) {
	srv, err := testutil.NewServer(nil)
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	conn, events, err := zk.Connect([]string{srv.Addr()}, 30*time.Second, zk.WithLogger(silent{}), zk.WithDialer(zxid.Dialer(nil)))
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	_, err = conn.Create("/e", nil, 0, zk.WorldACL(zk.PermAll))
	require.NoError(t, err)

	join := func() *Candidate {
		c, err := Join(conn, "/e")
		require.NoError(t, err)
		return c
	}
	acknowledged := func() string {
		data, _, err := conn.Get("/e/leader")
		require.NoError(t, err)
		return string(data)
	}
	leads := func(c *Candidate) <-chan error {
		done := make(chan error, 1)
		go func() { done <- c.Lead(func() {}) }()
		return done
	}
	a, b, c := join(), join(), join()
	assert.True(t, a.Leads())
	assert.False(t, b.Leads())
	won := false
	require.NoError(t, a.Lead(func() { won = true }))
	assert.True(t, won)
	assert.Equal(t, a.Ballot(), acknowledged())

	second, third := leads(b), leads(c)
	require.NoError(t, b.Withdraw())
	assert.ErrorIs(t, <-second, ErrLeft)
	select {
	case err := <-third:
		t.Fatalf("two lead: %v", err)
	default:
	}
	require.NoError(t, a.Resign())
	require.NoError(t, <-third)
	assert.Equal(t, c.Ballot(), acknowledged())
	require.NoError(t, c.Resign())
}

type silent struct{}

func (silent) Printf(string, ...any) {}
