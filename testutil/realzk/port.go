package realzk

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// A port is a TCP port for a process that will listen on it itself, later and again after each restart. So it cannot be
// held by listening on it; instead the UDP port of the same number is: no two tests get the same one, in whatever process,
// and the kernel gives it back when the test's process ends, however it ends.
type port struct {
	number  int
	address string // HOST:PORT
	claim   net.PacketConn
}

// The range lies below those from which Linux, macOS and Windows take the local ports of outgoing connections, so that
// no client holds a number for a moment while the server of that number is down.
const firstPort, lastPort = 15000, 31999

// newPort claims a free port on a loopback host; other hosts are the test's own, and get the usual port.
func newPort(host string, usual int) (port, error) {
	ip := net.ParseIP(host)
	if ip == nil {
		return port{}, errors.New("realzk: not an IP address: " + host)
	}
	if !ip.IsLoopback() {
		return port{number: usual, address: net.JoinHostPort(host, strconv.Itoa(usual))}, nil
	}
	var last error
	for range 1000 {
		number := firstPort + rand.IntN(lastPort-firstPort+1)
		address := net.JoinHostPort(host, strconv.Itoa(number))
		claim, err := net.ListenPacket("udp", address)
		if err != nil {
			last = err
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			_ = claim.Close()
			last = err
			continue
		}
		_ = listener.Close()
		return port{number: number, address: address, claim: claim}, nil
	}
	return port{}, last
}

func (p *port) release() {
	if p.claim != nil {
		_ = p.claim.Close()
		p.claim = nil
	}
}
