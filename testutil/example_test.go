package testutil_test

import (
	"fmt"
	"log"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/testutil"
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
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	conn, _, err := zk.Connect([]string{srv.Addr()}, 10*time.Second, zk.WithLogger(noLog{}))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	// The node is created, and the answer is lost.
	cancel := srv.Control(testutil.OpCreate, func(r *testutil.Request) testutil.Action {
		fmt.Println(r.Op, r.Path)
		return testutil.LoseReply
	})
	_, err = conn.Create("/a", nil, 0, zk.WorldACL(zk.PermAll))
	fmt.Println(err)
	cancel()

	exists, _, err := conn.Exists("/a")
	fmt.Println(exists, err)
	// Output:
	// create /a
	// zk: connection closed
	// true <nil>
}

func ExampleServer_ExpireSession() {
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
	if _, err := conn.Create("/mine", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
		log.Fatal(err)
	}
	_, _, gone, err := conn.ExistsW("/mine")
	if err != nil {
		log.Fatal(err)
	}

	srv.ExpireSession(conn.SessionID())

	// The deletion is told just before the connection ends.
	fmt.Println((<-gone).Type)
	// Output: EventNodeDeleted
}
