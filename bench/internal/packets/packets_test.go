package packets

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/zxid"
	"github.com/zkelection/election/testutil"
)

// plan is what a client asks, and what must be counted.
var plan = []struct {
	name string
	do   func(conn *zk.Conn) error
	want Counts
}{
	{"create", func(c *zk.Conn) error { _, err := c.Create("/a", nil, 0, zk.WorldACL(zk.PermAll)); return err }, Counts{1: 1}},
	{"exists, with a watch and without", func(c *zk.Conn) error {
		if _, _, err := c.Exists("/a"); err != nil {
			return err
		}
		_, _, _, err := c.ExistsW("/a")
		return err
	}, Counts{3: 2}},
	{"list", func(c *zk.Conn) error { _, _, err := c.Children("/"); return err }, Counts{12: 1}},
	{"a long write", func(c *zk.Conn) error { _, err := c.Set("/a", make([]byte, 300_000), -1); return err }, Counts{5: 1}},
	{"read", func(c *zk.Conn) error { _, _, err := c.Get("/a"); return err }, Counts{4: 1}},
	{"a multi of two", func(c *zk.Conn) error {
		_, err := c.Multi(&zk.CheckVersionRequest{Path: "/a", Version: -1}, &zk.DeleteRequest{Path: "/a", Version: -1})
		return err
	}, Counts{14: 1}},
	{"sync", func(c *zk.Conn) error { _, err := c.Sync("/"); return err }, Counts{9: 1}},
}

// carriedOut connects through a proxy, and returns what each step of the plan was counted as.
func carriedOut(t *testing.T) (counted []Counts) {
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: time.Second})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	p, err := Start(srv.Addr())
	require.NoError(t, err)
	t.Cleanup(p.Close)
	conn, events, err := zk.Connect([]string{p.Address()}, 10*time.Second, zk.WithLogger(silent{}), zk.WithDialer(zxid.Dialer(nil)))
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	for e := range events {
		if e.State == zk.StateHasSession {
			break
		}
	}
	for _, step := range plan {
		before, err := p.Counts()
		require.NoError(t, err)
		require.NoError(t, step.do(conn), step.name)
		after, err := p.Counts()
		require.NoError(t, err)
		seen := after.Since(before)
		delete(seen, 101) // a client that is late for it sets the watches of a connection again that has just begun
		counted = append(counted, seen)
	}
	return counted
}

func TestAPlanIsCounted(t *testing.T) {
	for i, counted := range carriedOut(t) {
		assert.Equal(t, plan[i].want, counted, plan[i].name)
	}
}

// stream is a connection's bytes: the handshake, and a frame for each kind of request.
func stream(ops ...Op) (b []byte) {
	frame := func(length int, words ...int32) {
		b = binary.BigEndian.AppendUint32(b, uint32(length))
		for _, w := range words {
			b = binary.BigEndian.AppendUint32(b, uint32(w))
		}
		b = append(b, make([]byte, length-4*len(words))...)
	}
	frame(44, 0, 1) // what stands where the kind would be is none
	for i, op := range ops {
		frame(8+17*i, int32(i), int32(op))
	}
	return b
}

// Whatever pieces a stream comes in, all of it is read, and one request more, less or of another kind is seen.
func TestFramesInPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	count := func(b []byte) Counts {
		counted := make(Counts)
		f := frames{count: func(op Op) { counted[op]++ }}
		for len(b) > 0 {
			n := min(len(b), 1+rng.IntN(30))
			require.NoError(t, f.feed(b[:n]))
			b = b[n:]
		}
		return counted
	}
	want := Counts{Connect: 1, 1: 2, 12: 1, 3: 1, -11: 1}
	for range 1000 {
		require.Equal(t, want, count(stream(1, 12, ping, 3, 1, ping, -11)))
	}
	assert.Equal(t, 6, want.Total())
	for _, other := range [][]Op{{1, 12, 3, 1}, {1, 12, 3, 1, -11, 1}, {1, 12, 4, 1, -11}} {
		assert.NotEqual(t, want, count(stream(other...)))
	}
	assert.Equal(t, "1 closeSession, 1 connect, 2 create, 1 exists, 1 getChildren2", want.String())
}

func TestWhatIsNoFrameIsAnError(t *testing.T) {
	for _, first := range []string{"ruok, and more of it", "GET / HTTP/1.1\r\n\r\n"} {
		f := frames{count: func(Op) {}}
		assert.Error(t, f.feed([]byte(first)))
	}
}

type silent struct{}

func (silent) Printf(string, ...any) {}
