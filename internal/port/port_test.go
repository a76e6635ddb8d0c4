package port

import (
	"net"
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

func TestOtherHosts(t *testing.T) {
	p, err := Claim("10.1.2.3", 2181)
	require.NoError(t, err)
	assert.Equal(t, Port{Number: 2181, Address: "10.1.2.3:2181"}, p)
	p.Release()
	_, err = Claim("localhost", 2181)
	assert.Error(t, err, "it is no address")
}
