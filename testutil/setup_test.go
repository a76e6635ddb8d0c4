package testutil

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Who forgets NoListen in a bubble is told so, and does not hang.
func TestNewServerRefusesSocketsInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := NewServer(nil)
		require.ErrorContains(t, err, "NoListen")
		_, err = NewServer(&ServerOptions{Members: 3})
		require.ErrorContains(t, err, "NoListen")
	})
	srv, err := NewServer(nil)
	require.NoError(t, err, "not in a bubble")
	srv.Close()
}

// Who forgets the Dialer meets no other ZooKeeper at a server's address, and hears of it at once.
func TestAddressWithoutListenerLeadsNowhere(t *testing.T) {
	srv, err := NewServer(&ServerOptions{NoListen: true, Members: 3})
	require.NoError(t, err)
	defer srv.Close()
	for _, addr := range srv.Servers() {
		began := time.Now()
		_, err := net.DialTimeout("tcp", addr, 30*time.Second)
		require.Error(t, err)
		var late net.Error
		if assert.ErrorAs(t, err, &late) {
			assert.False(t, late.Timeout(), "%v", err)
		}
		assert.Less(t, time.Since(began), 10*time.Second)
		host, _, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		assert.True(t, net.ParseIP(host).IsMulticast())
	}
	// The client takes them all the same, given the dialer.
	c := newClient(t, srv.Dialer(), 10*time.Second, srv.Servers()...)
	c.await(t)
	c.stop()
}

// What a client has sent and the server does not read must not reset the connection.
func TestOversizedFrameEndsTheConnectionInOrder(t *testing.T) {
	srv, err := NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	for i := range 20 {
		nc, err := net.Dial("tcp", srv.Addr())
		require.NoError(t, err)
		require.NoError(t, nc.SetDeadline(time.Now().Add(30*time.Second)))
		frame := binary.BigEndian.AppendUint32(nil, maxFrame+1)
		_, err = nc.Write(append(frame, make([]byte, 100_000)...))
		require.NoError(t, err, "connection %d", i)
		_, err = io.ReadAll(nc)
		require.NoError(t, err, "connection %d", i)
		_ = nc.Close()
	}
}

// The last answer arrives though the client has sent more than is read.
func TestLastAnswerArrivesThoughMoreWasSent(t *testing.T) {
	srv, err := NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	for i := range 20 {
		nc, err := net.Dial("tcp", srv.Addr())
		require.NoError(t, err)
		require.NoError(t, nc.SetDeadline(time.Now().Add(30*time.Second)))
		c := &rawClient{t: t, nc: nc}
		c.handshake(0, nil, 10*time.Second)
		c.request(OpAuth, authBody("nobody", "x"))
		c.request(OpSetData, setBody("/", string(make([]byte, 100_000)), -1))
		r, err := c.next()
		require.NoError(t, err, "connection %d", i)
		assert.Equal(t, codeAuthFailed, r.err)
		_, err = c.next()
		require.ErrorIs(t, err, io.EOF, "connection %d", i)
		c.close()
	}
}

func TestSuperUser(t *testing.T) {
	inMemory(t, ServerOptions{SuperDigest: Digest("super", "secret")}, func(t *testing.T, srv *Server) {
		owner, super := connect(t, srv, 10*time.Second), connect(t, srv, 10*time.Second)
		require.NoError(t, owner.AddAuth("digest", []byte("me:secret")))
		_, err := owner.Create("/mine", nil, 0, zk.AuthACL(zk.PermRead))
		require.NoError(t, err)
		_, err = super.Set("/mine", nil, -1)
		require.ErrorIs(t, err, zk.ErrNoAuth)
		require.NoError(t, super.AddAuth("digest", []byte("super:secret")))
		_, err = super.Set("/mine", nil, -1)
		require.NoError(t, err)
		_, err = owner.Set("/mine", nil, -1)
		require.ErrorIs(t, err, zk.ErrNoAuth)
		owner.stop()
		super.stop()
	})
	_, err := NewServer(&ServerOptions{NoListen: true, SuperDigest: "secret"})
	require.Error(t, err)
}

func TestDigestIsThatOfAnAccessRight(t *testing.T) {
	assert.Equal(t, zk.DigestACL(zk.PermAll, "ann", "secret")[0].ID, Digest("ann", "secret"))
}

func TestReleasesAreKnown(t *testing.T) {
	_, err := NewServer(&ServerOptions{NoListen: true, Release: "3.4"})
	require.ErrorContains(t, err, "3.4")
}
