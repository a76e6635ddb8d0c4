//go:build linux

package guard_test

import (
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/guard"
)

// The tests run their own binary as the service that dies, and as its guard: in both it then has what a change to this
// package's files does to it.

func init() {
	if os.Getenv(serviceVariable) != "" {
		runtime.LockOSThread() // so that main is on the main thread, and can end it
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(serviceVariable) == "" {
		guard.Init(nil)
		slog.SetDefault(slog.New(slog.DiscardHandler))
		os.Exit(m.Run())
	}
	c := readConfiguration()
	if !c.NoInit {
		guard.Init(func() (zk.Dialer, error) {
			if !c.OwnDialer {
				return nil, nil
			}
			return func(network, address string, timeout time.Duration) (net.Conn, error) {
				return net.DialTimeout(network, c.Elsewhere[address], timeout)
			}, nil
		})
	}
	serve(c)
}
