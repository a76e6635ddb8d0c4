package election

import (
	"net"
	"time"

	"github.com/go-zookeeper/zk"
)

// Far is a network to a place that is far away: an answer takes delay, and
// what is on the way holds nothing up.
func Far(dial zk.Dialer, delay func() time.Duration) zk.Dialer {
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
