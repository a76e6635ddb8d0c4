package port

import (
	"context"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A port that is claimed is what keeps two test processes apart.
func TestClaimedUntilReleased(t *testing.T) {
	p, err := Claim("127.0.0.1", 2181)
	require.NoError(t, err)
	defer p.Release()
	assert.GreaterOrEqual(t, p.Number, first)
	assert.LessOrEqual(t, p.Number, last)
	_, err = net.ListenPacket("udp", p.Address)
	require.Error(t, err, "claimed twice")
	p.Release()
	claim, err := net.ListenPacket("udp", p.Address)
	require.NoError(t, err, "not released")
	claim.Close()
}

// Each process that is being started holds whatever its parent had open, for a moment.
func TestListenAgainWhileProcessesStart(t *testing.T) {
	program, err := exec.LookPath("true")
	if err != nil {
		t.Skip("no program that does nothing: ", err)
	}
	var starting sync.WaitGroup
	defer starting.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 4 {
		starting.Go(func() {
			for ctx.Err() == nil {
				_ = exec.CommandContext(ctx, program).Run()
			}
		})
	}
	p, listener, err := Listen("127.0.0.1")
	require.NoError(t, err)
	defer p.Release()
	for range 2000 {
		require.NoError(t, listener.Close())
		listener, err = p.ListenAgain()
		require.NoError(t, err)
	}
	_, err = p.ListenAgain()
	require.ErrorIs(t, err, syscall.EADDRINUSE, "two listeners")
	require.NoError(t, listener.Close())
}

func TestOtherHosts(t *testing.T) {
	p, err := Claim("10.1.2.3", 2181)
	require.NoError(t, err)
	assert.Equal(t, Port{Number: 2181, Address: "10.1.2.3:2181"}, p)
	p.Release()
	_, err = Claim("localhost", 2181)
	assert.Error(t, err, "it is no address")
}
