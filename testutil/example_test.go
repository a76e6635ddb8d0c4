package testutil_test

import (
	"errors"
	"fmt"
	"log"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/zxid"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

type noLog struct{}

func (noLog) Printf(string, ...any) {}

func Example() {
	srv, err := testutil.NewServer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	conn, _, err := zk.Connect([]string{srv.Addr()}, 10*time.Second, zk.WithLogger(noLog{}))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	path, err := conn.Create("/ballot-", []byte("me"), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(path)
	// Output: /ballot-0000000000
}

func ExampleServer_Control() {
	srv, err := testutil.NewServer(nil)
	check(err)
	defer srv.Close()
	conn := connect(srv.Addr())
	defer conn.Close()

	// The node is created, and the answer is lost.
	cancel := srv.Control(testutil.OpCreate, func(r *testutil.Request) testutil.Action {
		fmt.Println(r.Op, r.Path)
		return testutil.LoseReply
	})
	_, err = conn.Create("/a", nil, 0, zk.WorldACL(zk.PermAll))
	fmt.Println(err)
	cancel()

	fmt.Println(exists(conn, "/a"))
	// Output:
	// create /a
	// zk: connection closed
	// true <nil>
}

func ExampleServer_ExpireSession() {
	srv, err := testutil.NewServer(nil)
	check(err)
	defer srv.Close()
	conn := connect(srv.Addr())
	defer conn.Close()
	_, err = conn.Create("/mine", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
	check(err)
	_, _, gone, err := conn.ExistsW("/mine")
	check(err)

	srv.ExpireSession(conn.SessionID())

	// The deletion is told just before the connection ends.
	fmt.Println((<-gone).Type)
	// Output: EventNodeDeleted
}

// connect spares the client a race of its own: its first request for watches reads what its receiver writes.
func connect(addr string) *zk.Conn {
	conn, _, err := zk.Connect([]string{addr}, 10*time.Second, zk.WithLogger(noLog{}), zk.WithDialer(zxid.Dialer(nil)))
	check(err)
	return conn
}

// exists asks again while the client reconnects.
func exists(conn *zk.Conn, path string) (bool, error) {
	for {
		found, _, err := conn.Exists(path)
		if !errors.Is(err, zk.ErrConnectionClosed) && !errors.Is(err, zk.ErrNoServer) {
			return found, err
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A budget for the requests of the program under test.
func ExampleServer_Counts() {
	srv, err := testutil.NewServer(nil)
	check(err)
	defer srv.Close()
	conn := connect(srv.Addr())
	defer conn.Close()
	_, err = conn.Create("/config", nil, 0, zk.WorldACL(zk.PermAll))
	check(err)
	srv.ResetCounts()

	_, _, _, err = conn.GetW("/config")
	check(err)
	_, _, err = conn.Get("/config")
	check(err)
	fmt.Println("reads:", srv.Counts()[testutil.OpGetData], "watches:", srv.Watches())
	// Output: reads: 2 watches: 1
}

func ExampleServer_Sessions() {
	srv, err := testutil.NewServer(nil)
	check(err)
	defer srv.Close()
	conn := connect(srv.Addr())
	defer conn.Close()
	_, err = conn.Create("/mine", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
	check(err)

	for _, s := range srv.Sessions() {
		fmt.Println(s.ID == conn.SessionID(), s.Timeout, s.Connected(), s.Ephemerals)
	}
	// Output: true 10s true [/mine]
}

// The second of two creates is lost on its way; the client cannot tell.
func ExampleNth() {
	srv, err := testutil.NewServer(nil)
	check(err)
	defer srv.Close()
	conn := connect(srv.Addr())
	defer conn.Close()

	defer srv.Control(testutil.OpCreate, testutil.Nth(2, testutil.LoseRequest))()
	for _, path := range []string{"/a", "/b"} {
		_, err := conn.Create(path, nil, 0, zk.WorldACL(zk.PermAll))
		fmt.Println(path, err)
	}
	fmt.Println(exists(conn, "/b"))
	// Output:
	// /a <nil>
	// /b zk: connection closed
	// false <nil>
}

func ExampleFail() {
	srv, err := testutil.NewServer(nil)
	check(err)
	defer srv.Close()
	conn := connect(srv.Addr())
	defer conn.Close()

	defer srv.Control(testutil.OpGetData, testutil.Once(testutil.Fail(zk.ErrNoAuth)))()
	_, _, err = conn.Get("/")
	fmt.Println(err)
	_, _, err = conn.Get("/")
	fmt.Println(err)
	// Output:
	// zk: not authenticated
	// <nil>
}

// An answer that comes only when the test wants it.
func ExampleHoldReply() {
	srv, err := testutil.NewServer(nil)
	check(err)
	defer srv.Close()
	slow, other := connect(srv.Addr()), connect(srv.Addr())
	defer slow.Close()
	defer other.Close()
	_, _, applied, err := other.ExistsW("/a")
	check(err)

	now := make(chan struct{})
	defer srv.Control(testutil.OpCreate, testutil.Once(testutil.HoldReply(now)))()
	answered := make(chan error)
	go func() {
		_, err := slow.Create("/a", nil, 0, zk.WorldACL(zk.PermAll))
		answered <- err
	}()
	fmt.Println((<-applied).Type, "while the answer is held")
	close(now)
	fmt.Println(<-answered)
	// Output:
	// EventNodeCreated while the answer is held
	// <nil>
}

// As after a restart of ZooKeeper, data and sessions are still there.
func ExampleServer_Stop() {
	srv, err := testutil.NewServer(nil)
	check(err)
	defer srv.Close()
	conn := connect(srv.Addr())
	defer conn.Close()
	_, err = conn.Create("/mine", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
	check(err)
	session := conn.SessionID()

	srv.Stop()
	check(srv.Start())
	fmt.Println(exists(conn, "/mine"))
	fmt.Println("the same session:", conn.SessionID() == session)
	// Output:
	// true <nil>
	// the same session: true
}

// A member that has lost the others goes on serving reads for some time.
func ExampleMember() {
	srv, err := testutil.NewServer(&testutil.ServerOptions{Members: 3})
	check(err)
	defer srv.Close()
	here, there := connect(srv.Member(0).Addr()), connect(srv.Member(2).Addr())
	defer here.Close()
	defer there.Close()

	_, _, err = there.Exists("/a") // it is connected
	check(err)
	srv.Member(2).CutOff()
	_, err = here.Create("/a", nil, 0, zk.WorldACL(zk.PermAll))
	check(err)
	found, _, err := there.Exists("/a")
	fmt.Println("cut off:", found, err)

	srv.Member(2).Heal()
	_, err = there.Sync("/a")
	check(err)
	found, _, err = there.Exists("/a")
	fmt.Println("healed:", found, err)
	// Output:
	// cut off: false <nil>
	// healed: true <nil>
}

// In virtual time an hour takes no time.
func ExampleServer_Dialer() {
	_ = func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Close()
			conn, events, err := zk.Connect(srv.Servers(), 10*time.Second, zk.WithDialer(srv.Dialer()))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				conn.Close()
				for range events { // until the client's goroutines have ended
				}
			}()
			time.Sleep(time.Hour)
			if conn.State() != zk.StateHasSession {
				t.Error("the session is lost")
			}
		})
	}
}

// The same test on a real ensemble, if the machine has one installed.
func ExampleStartZooKeeper() {
	_ = func(t *testing.T) {
		ensemble := realzk.StartZooKeeper(t, 3)
		conn, _, err := zk.Connect(ensemble.Servers(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		leader := ensemble.Leader()
		ensemble.Kill(leader)
		if err := ensemble.AwaitServing(30 * time.Second); err != nil {
			t.Error(err)
		}
		ensemble.Restart(leader)
	}
}
