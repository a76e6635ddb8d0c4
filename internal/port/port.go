// Package port claims TCP ports for the servers of tests.
package port

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"
)

// A Port is a TCP port for a server that will listen on it later, and again after each restart. So it cannot be
// held by listening on it; instead the UDP port of the same number is: no two tests get the same one, in whatever process,
// and the kernel gives it back when the test's process ends, however it ends. The zero value is no port.
type Port struct {
	Number  int
	Address string // HOST:PORT
	claim   net.PacketConn
}

// The range lies below those from which Linux, macOS and Windows take the local ports of outgoing connections, so that
// no client holds a number for a moment while the server of that number is down.
const first, last = 15000, 31999

// Claim claims a free port on a loopback address; other hosts are the test's own, and get the usual port.
func Claim(host string, usual int) (Port, error) {
	ip := net.ParseIP(host)
	if ip == nil {
		return Port{}, errors.New("not an IP address: " + host)
	}
	if !ip.IsLoopback() {
		return Port{Number: usual, Address: net.JoinHostPort(host, strconv.Itoa(usual))}, nil
	}
	p, listener, err := Listen(host)
	if err == nil {
		_ = listener.Close()
	}
	return p, err
}

// Listen claims a free port on a loopback address, and listens on it. (To claim it first and listen then would not always do: a
// process that is being started in that moment has the listener that the claim was tried with, until it executes its program.)
func Listen(host string) (p Port, listener net.Listener, err error) {
	for range 1000 {
		number := first + rand.IntN(last-first+1)
		address := net.JoinHostPort(host, strconv.Itoa(number))
		var claim net.PacketConn
		if claim, err = net.ListenPacket("udp", address); err != nil {
			continue
		}
		if listener, err = net.Listen("tcp", address); err != nil {
			_ = claim.Close()
			continue
		}
		return Port{Number: number, Address: address, claim: claim}, listener, nil
	}
	return Port{}, nil, err
}

// ListenAgain listens on a claimed port whose listener has been closed. For a moment that one may still be there: a process that is
// being started has it until it executes its program. So it is tried for a second before the port is another program's: in
// tries, since a machine that stands still uses up a time, and behind each start that is under way, however long that takes.
func (p *Port) ListenAgain() (listener net.Listener, err error) {
	for range 1000 {
		if listener, err = net.Listen("tcp", p.Address); err == nil {
			return listener, nil
		}
		awaitStarts()
		time.Sleep(time.Millisecond)
	}
	return nil, err
}

// awaitStarts returns when the processes that were being started execute their programs.
func awaitStarts() {
	syscall.ForkLock.RLock() // whoever starts one holds it until then
	defer syscall.ForkLock.RUnlock()
}

// Release gives the port back, if there is one.
func (p *Port) Release() {
	if p.claim != nil {
		_ = p.claim.Close()
		p.claim = nil
	}
}
