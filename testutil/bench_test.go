package testutil

import (
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
)

// BenchmarkStart measures from nothing to the first answer: a server is made, a
// client connects over TCP or in memory and reads.
func BenchmarkStart(b *testing.B) {
	for _, bench := range []struct {
		name string
		opts ServerOptions
	}{{"tcp", ServerOptions{}}, {"memory", ServerOptions{NoListen: true}}} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				srv, err := NewServer(&bench.opts)
				if err != nil {
					b.Fatal(err)
				}
				var dialer zk.Dialer = net.DialTimeout
				if bench.opts.NoListen {
					dialer = srv.Dialer()
				}
				conn := benchClient(b, dialer, srv.Addr())
				if _, _, err := conn.Exists("/"); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				conn.Close()
				srv.Close()
				b.StartTimer()
			}
		})
	}
}

func benchClient(b *testing.B, dialer zk.Dialer, addr string) *zk.Conn {
	b.Helper()
	conn, events, err := zk.Connect([]string{addr}, 10*time.Second,
		zk.WithDialer(dialer), zk.WithLogger(quiet{}), zk.WithLogInfo(false))
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for range events {
		}
	}()
	return conn
}

// BenchmarkOperations puts the same load on this server, over TCP and in memory,
// and on a real ZooKeeper: callers on each of 8 clients, as fast as they can.
func BenchmarkOperations(b *testing.B) {
	for _, backend := range []struct {
		name  string
		start func(b *testing.B) (zk.Dialer, string)
	}{
		{"inprocess", func(b *testing.B) (zk.Dialer, string) {
			srv := benchServer(b, ServerOptions{})
			return net.DialTimeout, srv.Addr()
		}},
		{"memory", func(b *testing.B) (zk.Dialer, string) {
			srv := benchServer(b, ServerOptions{NoListen: true})
			return srv.Dialer(), srv.Addr()
		}},
		{"zookeeper", func(b *testing.B) (zk.Dialer, string) {
			// As in production, with the compiler that runs fast.
			ensemble := StartZooKeeperWith(b, 1, EnsembleOptions{JavaOptions: []string{"-XX:TieredStopAtLevel=4"}})
			return net.DialTimeout, ensemble.Servers()[0]
		}},
	} {
		b.Run(backend.name, func(b *testing.B) {
			dialer, addr := backend.start(b)
			var clients []*zk.Conn
			for range 8 {
				conn := benchClient(b, dialer, addr)
				b.Cleanup(conn.Close)
				clients = append(clients, conn)
			}
			if _, err := clients[0].Create("/bench", []byte("data"), 0, everybody); err != nil {
				b.Fatal(err)
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
		})
	}
}

func benchServer(b *testing.B, opts ServerOptions) *Server {
	b.Helper()
	srv, err := NewServer(&opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(srv.Close)
	return srv
}
