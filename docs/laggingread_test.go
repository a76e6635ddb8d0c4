package docs_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/virtualtime"
)

// TestLaggingRead reads through a server that has fallen behind: it shows the
// past, without an error, until a sync has brought it up to date.
func TestLaggingRead(t *testing.T) {
	virtualtime.Test(t, &testutil.ServerOptions{Members: 3}, func(t *testing.T, srv *testutil.Server) {
		connect := func(member testutil.Member) *zk.Conn {
			conn, events, err := zk.Connect([]string{member.Addr()}, 10*time.Second, zk.WithDialer(member.Dialer()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				conn.Close()
				for range events { // until the client's goroutines have ended
				}
			})
			for event := range events { // a server that lags begins no session
				if event.State == zk.StateHasSession {
					break
				}
			}
			return conn
		}
		writer, reader := connect(srv.Member(0)), connect(srv.Member(1))
		if _, err := writer.Create("/config", []byte("old"), 0, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}

		srv.Member(1).Lag()
		if _, err := writer.Set("/config", []byte("new"), -1); err != nil {
			t.Fatal(err)
		}
		if data, _, err := reader.Get("/config"); err != nil || string(data) != "old" {
			t.Fatalf("read %q, %v", data, err)
		}

		synced := make(chan error, 1)
		go func() {
			_, err := reader.Sync("/config")
			synced <- err
		}()
		synctest.Wait() // the sync waits for the server to catch up
		srv.Member(1).CatchUp()
		if err := <-synced; err != nil {
			t.Fatal(err)
		}
		if data, _, err := reader.Get("/config"); err != nil || string(data) != "new" {
			t.Errorf("after a sync: read %q, %v", data, err)
		}
	})
}
