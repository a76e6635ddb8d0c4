package election_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/internal/floor"
)

// BenchmarkOneSession leads N elections over one session, 256 at a time: elections that nobody has voted in before, and
// then, when their session has ended, the same once more. It also measures from that end until OnStepDown has been
// called of all. The floor has one connection as well, and as many callers.
func BenchmarkOneSession(b *testing.B) {
	onBoth(b, 10*time.Second, func(b *testing.B, start func(*testing.B) *field) {
		for _, n := range []int{1_000, 10_000} {
			b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
				f := start(b)
				var times, requests samples
				for i := 0; b.Loop(); i++ {
					for _, library := range []bool{i%2 == 0, i%2 != 0} {
						if library {
							f.leadMany(&times, &requests, fmt.Sprintf("%s/%d", f.root, i), n)
						} else {
							f.leadManyOfFloor(&times, &requests, fmt.Sprintf("/floor%s-%d", strings.ReplaceAll(f.root, "/", "-"), i), n)
						}
					}
				}
				times.report(b)
				for _, name := range requests.names {
					b.ReportMetric(requests.median(name), name+"/election")
				}
			})
		}
	})
}

const atOnce = 256 // callers that vote

func (f *field) leadMany(times, requests *samples, root string, n int) {
	network, r := newMeteredLink(f.dial), &renewals{}
	session := f.session(func(o *election.SessionOptions) { o.Dialer, o.Metrics = network.Dial, r.metrics() })
	ctx := f.ctx()
	var told, again sync.WaitGroup
	told.Add(n)
	again.Add(n)
	var lost atomic.Bool
	candidates := make([]*election.Candidate, n)
	before, began := network.sent.Load(), time.Now()
	each(n, atOnce, func(i int) {
		var leads, steppedDown sync.Once
		c, err := election.NewCandidate(session, fmt.Sprintf("e%d", i), &election.CandidateOptions{
			Root: root,
			Metrics: &election.Metrics{TakenOver: func(string, time.Duration) {
				if lost.Load() {
					leads.Do(again.Done)
				}
			}},
		})
		if assert.NoError(f.b, err) {
			candidates[i] = c
			c.OnStepDown(func(context.Context, election.Term, error) { steppedDown.Do(told.Done) })
			_, err = c.Campaign(ctx)
			assert.NoError(f.b, err)
		}
	})
	times.took("lead", time.Since(began))
	require.False(f.b, f.b.Failed())
	requests.add("requests", float64(network.sent.Load()-before)/float64(n))
	for i, c := range candidates {
		require.True(f.b, c.IsLeader(), "candidate %d", i)
	}

	lost.Store(true)
	f.must(network.expire())
	told.Wait()
	ended := time.Unix(0, r.lost.Load())
	times.took("told", time.Since(ended))
	again.Wait()
	times.took("again", time.Since(ended))
	f.must(session.Close())
}

func (f *field) leadManyOfFloor(times, requests *samples, root string, n int) {
	network := newMeteredLink(f.dial)
	over := *f
	over.dial = network.Dial
	conn := over.client()
	_, err := conn.Create(root, nil, 0, zk.WorldACL(zk.PermAll))
	f.must(err)
	path := func(i int) string { return fmt.Sprintf("%s/e%d", root, i) }
	candidates := make([]*floor.Candidate, n)
	lead := func(i int) {
		c, err := floor.Join(conn, path(i))
		if assert.NoError(f.b, err) {
			candidates[i] = c
			assert.NoError(f.b, c.Lead(func() {}))
		}
	}
	before, began := network.sent.Load(), time.Now()
	each(n, atOnce, func(i int) {
		_, err := conn.Create(path(i), nil, 0, zk.WorldACL(zk.PermAll))
		assert.NoError(f.b, err)
		lead(i)
	})
	times.took("floor-lead", time.Since(began))
	require.False(f.b, f.b.Failed())
	requests.add("floor-requests", float64(network.sent.Load()-before)/float64(n))

	_, _, ended, err := conn.ExistsW(candidates[0].Ballot())
	f.must(err)
	f.must(network.expire())
	<-ended
	began = time.Now()
	each(n, atOnce, lead)
	times.took("floor-again", time.Since(began))
	conn.Close()
}

// meteredLink is a link that only counts what is sent, and can end the session: one that notes each request takes more time
// than what is measured.
type meteredLink struct {
	*link
	sent atomic.Int64 // without handshakes and pings
}

func newMeteredLink(dial zk.Dialer) *meteredLink { return &meteredLink{link: newLink(dial)} }

func (l *meteredLink) Dial(network, address string, timeout time.Duration) (net.Conn, error) {
	conn, err := l.link.Dial(network, address, timeout)
	if err != nil {
		return nil, err
	}
	return &meteredConn{linkConn: conn.(*linkConn), sent: &l.sent}, nil
}

type meteredConn struct {
	*linkConn
	sent    *atomic.Int64
	greeted bool // owned by the writing goroutine
}

func (c *meteredConn) Write(p []byte) (int, error) {
	switch {
	case !c.greeted:
		c.greeted = true
	case len(p) < 12 || binary.BigEndian.Uint32(p[8:]) != opPing:
		c.sent.Add(1)
	}
	return c.Conn.Write(p)
}

// Read has the link see the handshake's answer, which is all that it needs to end the session.
func (c *meteredConn) Read(p []byte) (int, error) {
	if !c.hello || len(c.buffer) > 0 {
		return c.linkConn.Read(p)
	}
	return c.Conn.Read(p)
}
