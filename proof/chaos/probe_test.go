//go:build linux

package chaos

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/zkelection/election/proof/chaos/internal/history"
)

// probe finds out when the ensemble has a quorum: to create a session is a
// write, and each node is asked for one a few times a second, on a connection
// of its own so that no client's reconnecting delays the answer. It is over when
// stop, which may be called again, returns.
func probe(f *fleet, servers []string) (stop func()) {
	done := make(chan struct{})
	var probes sync.WaitGroup
	for _, server := range servers {
		probes.Go(func() {
			ticker := time.NewTicker(250 * time.Millisecond)
			defer ticker.Stop()
			for {
				select {
				case <-done:
					return
				case <-ticker.C:
					if commits(server) {
						f.note(history.Event{Who: "probe", Kind: history.Commit, Text: server})
					}
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(done); probes.Wait() })
}

// commits reports whether a node created a session at once.
func commits(server string) bool {
	const limit = 500 * time.Millisecond
	conn, err := net.DialTimeout("tcp", server, limit)
	if err != nil {
		return false
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(limit)) != nil {
		return false
	}
	if _, err := conn.Write(handshake(0)); err != nil {
		return false
	}
	answer := make([]byte, 4+16)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return false
	}
	if binary.BigEndian.Uint64(answer[12:]) == 0 {
		return false
	}
	closeSession := []byte{0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5}
	if _, err := conn.Write(closeSession); err == nil {
		_, _ = io.Copy(io.Discard, conn) // until the node has closed it; the deadline bounds this
	}
	return true
}

// handshake is the first frame of a connection: for a new session when session
// is 0, and else to go on with one, under a password that is a guess.
func handshake(session int64) []byte {
	hello := binary.BigEndian.AppendUint32(nil, 44)
	hello = binary.BigEndian.AppendUint32(hello, 0)    // protocol version
	hello = binary.BigEndian.AppendUint64(hello, 0)    // last zxid seen
	hello = binary.BigEndian.AppendUint32(hello, 1000) // session timeout
	hello = binary.BigEndian.AppendUint64(hello, uint64(session))
	hello = binary.BigEndian.AppendUint32(hello, 16) // length of the password
	return append(hello, make([]byte, 16)...)
}
