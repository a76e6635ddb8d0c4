package election_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// far is a network to a place that is far away: an answer takes delay, and
// what is on the way holds nothing up.
func far(dial zk.Dialer, delay func() time.Duration) zk.Dialer {
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		server, err := dial(network, address, timeout)
		if err != nil {
			return nil, err
		}
		client, wire := net.Pipe()
		go carry(server, wire, delay)
		go carry(wire, server, delay)
		return client, nil
	}
}

// carry brings what is read from one connection to the other, half of delay
// later, and closes both when one has ended.
func carry(to, from net.Conn, delay func() time.Duration) {
	type parcel struct {
		at   time.Time
		data []byte
	}
	parcels := make(chan parcel, 1024)
	go func() {
		for p := range parcels {
			time.Sleep(time.Until(p.at))
			_, _ = to.Write(p.data)
		}
		_ = to.Close()
	}()
	defer close(parcels)
	for {
		data := make([]byte, 4096)
		n, err := from.Read(data)
		if err != nil {
			return
		}
		parcels <- parcel{time.Now().Add(delay() / 2), data[:n]}
	}
}

// A client whose answers are slow sends its heartbeats the sooner, and leads
// without a lapse as long as the rule of the lease can be kept: up to a sixth of
// T when the servers' tick is short and known. With the default tick a single
// heartbeat at a time keeps it up to T/7, and beyond 0.15 T not at any pace.
func TestSlowAnswers(t *testing.T) {
	const T = 12 * time.Second
	for _, c := range []struct {
		tick  time.Duration // of the servers, and given
		parts float64       // answers take T/parts
	}{
		{6 * time.Second, 32},
		{6 * time.Second, 20},
		{6 * time.Second, 16},
		{6 * time.Second, 12},
		{6 * time.Second, 8},
		{6 * time.Second, 7},
		{2 * time.Second, 32},
		{2 * time.Second, 12},
		{2 * time.Second, 8},
		{2 * time.Second, 6},
	} {
		t.Run(fmt.Sprintf("tick %v, T over %v", c.tick, c.parts), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := inProcess(t, &testutil.ServerOptions{TickTime: c.tick})
				delay := func() time.Duration { return time.Duration(float64(T) / c.parts) }
				session, err := election.Connect(w.servers, T,
					&election.SessionOptions{Dialer: far(w.dial, delay), TickTime: c.tick, Logger: w.logger()})
				require.NoError(t, err)
				defer time.Sleep(T) // until what was on the way has arrived
				defer session.Close()
				candidate, err := election.NewCandidate(session, "slow", nil)
				require.NoError(t, err)
				var lapses atomic.Int64
				candidate.OnStepDown(func(_ context.Context, _ election.Term, _ error) { lapses.Add(1) })
				_, err = candidate.Campaign(w.context())
				require.NoError(t, err)
				// The slowest that there may be for an hour, the others for a while.
				if c.parts > 7 {
					time.Sleep(10 * time.Minute)
				} else {
					time.Sleep(time.Hour)
				}
				assert.Zero(t, lapses.Load())
				assert.True(t, candidate.IsLeader())
			})
		})
	}
}
