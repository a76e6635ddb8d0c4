package testutil_test

import (
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

type silent struct{}

func (silent) Printf(string, ...any) {}

// benchBackends are this server, over TCP and in memory, and the real one. Each gives its address and how to dial it.
var benchBackends = []struct {
	name  string
	start func(b *testing.B) (dialer zk.Dialer, addr string, stop func())
}{
	{"tcp", func(b *testing.B) (zk.Dialer, string, func()) { return benchServer(b, testutil.ServerOptions{}) }},
	{"memory", func(b *testing.B) (zk.Dialer, string, func()) {
		return benchServer(b, testutil.ServerOptions{NoListen: true})
	}},
	{"zookeeper", func(b *testing.B) (zk.Dialer, string, func()) {
		// As in production, with the compiler that runs fast.
		ensemble := realzk.StartZooKeeperWith(b, 1, realzk.EnsembleOptions{JavaOptions: []string{"-XX:TieredStopAtLevel=4"}})
		return net.DialTimeout, ensemble.Servers()[0], ensemble.Close
	}},
}

func benchServer(b *testing.B, opts testutil.ServerOptions) (dialer zk.Dialer, addr string, stop func()) {
	b.Helper()
	srv, err := testutil.NewServer(&opts)
	require.NoError(b, err)
	if opts.NoListen {
		return srv.Dialer(), srv.Addr(), srv.Close
	}
	return net.DialTimeout, srv.Addr(), srv.Close
}

func benchClient(b *testing.B, dialer zk.Dialer, addr string) *zk.Conn {
	b.Helper()
	conn, events, err := zk.Connect([]string{addr}, 10*time.Second, zk.WithDialer(dialer), zk.WithLogger(silent{}), zk.WithLogInfo(false),
		zk.WithMaxBufferSize(64<<10), zk.WithMaxConnBufferSize(64<<10))
	require.NoError(b, err)
	go func() {
		for range events {
		}
	}()
	return conn
}

// BenchmarkStart measures from nothing to the first answer: a server is started, a client connects and reads.
func BenchmarkStart(b *testing.B) {
	for _, backend := range benchBackends {
		b.Run(backend.name, func(b *testing.B) {
			for b.Loop() {
				dialer, addr, stop := backend.start(b)
				conn := benchClient(b, dialer, addr)
				_, _, err := conn.Exists("/")
				require.NoError(b, err)
				b.StopTimer()
				conn.Close()
				stop()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkOperations puts the same load on all: 32 callers, as fast as they can, on one connection and on 50.
func BenchmarkOperations(b *testing.B) {
	for _, backend := range benchBackends {
		for _, connections := range []int{1, 50} {
			b.Run(fmt.Sprintf("%s/connections=%d", backend.name, connections), func(b *testing.B) {
				dialer, addr, stop := backend.start(b)
				b.Cleanup(stop)
				benchOperations(b, dialer, addr, connections)
			})
		}
	}
}

func benchOperations(b *testing.B, dialer zk.Dialer, addr string, connections int) {
	var clients []*zk.Conn
	for range connections {
		conn := benchClient(b, dialer, addr)
		b.Cleanup(conn.Close)
		clients = append(clients, conn)
	}
	everybody := zk.WorldACL(zk.PermAll)
	_, err := clients[0].Create("/bench", []byte("data"), 0, everybody)
	require.NoError(b, err)
	for i := range 100 {
		_, err := clients[0].Create(fmt.Sprint("/bench/child-", i), nil, 0, everybody)
		require.NoError(b, err)
	}
	var number atomic.Int64
	for _, op := range []struct {
		name string
		do   func(conn *zk.Conn, n int64) error
	}{
		{"get", func(conn *zk.Conn, _ int64) error {
			_, _, err := conn.Get("/bench")
			return err
		}},
		{"children", func(conn *zk.Conn, _ int64) error {
			_, _, err := conn.Children("/bench")
			return err
		}},
		{"set", func(conn *zk.Conn, _ int64) error {
			_, err := conn.Set("/bench", []byte("data"), -1)
			return err
		}},
		{"createdelete", func(conn *zk.Conn, n int64) error {
			path := "/bench/" + strconv.FormatInt(n, 10)
			if _, err := conn.Create(path, nil, zk.FlagEphemeral, everybody); err != nil {
				return err
			}
			return conn.Delete(path, -1)
		}},
		{"multi", func(conn *zk.Conn, _ int64) error {
			_, err := conn.Multi(&zk.CheckVersionRequest{Path: "/", Version: -1})
			return err
		}},
	} {
		b.Run(op.name, func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				conn := clients[int(number.Add(1))%len(clients)]
				for pb.Next() {
					if err := op.do(conn, number.Add(1)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}
