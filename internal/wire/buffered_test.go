package wire

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// countedReads counts the calls that reach the network.
type countedReads struct {
	net.Conn
	calls int
}

func (c *countedReads) Read(p []byte) (int, error) {
	c.calls++
	return c.Conn.Read(p)
}

// Answers that have come together are read from the network at once, whatever pieces the client reads them in, and one that is
// larger than the buffer is whole as well.
func TestBufferedReadsTogether(t *testing.T) {
	const answers, size = 50, 40
	client, server := net.Pipe()
	defer client.Close()
	network := &countedReads{Conn: client}
	conn, err := Buffered(func(string, string, time.Duration) (net.Conn, error) { return network, nil })("tcp", "server", time.Second)
	require.NoError(t, err)
	var sent []byte
	for i := range answers {
		sent = append(sent, make([]byte, size)...)
		sent[i*size] = byte(i)
	}
	large := make([]byte, 100_000)
	large[len(large)-1] = 1
	go func() {
		defer server.Close()
		_, _ = server.Write(sent)
		_, _ = server.Write(large)
	}()
	for i := range answers {
		var answer [size]byte
		_, err := io.ReadFull(conn, answer[:4])
		require.NoError(t, err)
		_, err = io.ReadFull(conn, answer[4:])
		require.NoError(t, err)
		assert.Equal(t, byte(i), answer[0])
	}
	assert.Equal(t, 1, network.calls, "reads of %d answers", answers)
	got := make([]byte, len(large))
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	assert.Equal(t, large, got)
	_, err = conn.Read(got)
	assert.ErrorIs(t, err, io.EOF)
}

// A connection that cannot be made has no buffer.
func TestBufferedFailsToDial(t *testing.T) {
	_, err := Buffered(func(string, string, time.Duration) (net.Conn, error) { return nil, io.ErrClosedPipe })("tcp", "server", time.Second)
	assert.ErrorIs(t, err, io.ErrClosedPipe)
}
