// Command dialleader shows a client that always talks to the present leader,
// without knowing any address: LeaderDialer.DialContext has the shape of
// net.Dialer's, so it fits into http.Transport, gRPC, database drivers. Three
// servers take turns in leading. Without -servers it starts an in-process
// ZooKeeper.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// LeaderDialer dials the leader of an election, whose data is its address.
type LeaderDialer struct {
	net.Dialer

	mu      sync.Mutex
	address string          // "" while there is no leader
	ctx     context.Context // of that address: ends with the next
	end     context.CancelFunc
}

// leaderConn is a connection that is closed when its leader leads no more, so
// that nobody goes on talking to it.
type leaderConn struct {
	net.Conn
	forget func() bool
}

// Close is the user's.
func (c leaderConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// NewLeaderDialer returns once it is known who leads, if anybody does.
func NewLeaderDialer(ctx context.Context, s *election.Session, name string) (*LeaderDialer, error) {
	o, err := election.NewObserver(s, name, nil)
	if err != nil {
		return nil, err
	}
	d := &LeaderDialer{}
	d.ctx, d.end = context.WithCancel(context.Background())
	o.OnNewLeader(func(l election.Leader) { d.set(string(l.Data)) })
	o.OnLeaderData(func(l election.Leader) { d.set(string(l.Data)) })
	o.OnLeaderDeath(func(election.Leader) { d.set("") })
	return d, o.Observe(ctx)
}

func (d *LeaderDialer) set(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end()
	d.address = address
	d.ctx, d.end = context.WithCancel(context.Background())
}

// DialContext waits for a leader, until ctx ends, and dials it, whatever
// address it is given.
func (d *LeaderDialer) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	for {
		d.mu.Lock()
		address, leading := d.address, d.ctx
		d.mu.Unlock()
		if address != "" {
			dialling, cancel := context.WithCancel(ctx)
			forget := context.AfterFunc(leading, cancel) // the next one is not to wait for it
			conn, err := d.Dialer.DialContext(dialling, network, address)
			forget()
			cancel()
			if err == nil {
				return leaderConn{conn, context.AfterFunc(leading, func() { _ = conn.Close() })}, nil
			}
		}
		select { // a leader that does not answer will be replaced, or come back
		case <-leading.Done():
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func main() {
	list := flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelError + 1) // what the library logs
	servers := strings.Split(*list, ",")
	if *list == "" {
		srv, err := testutil.NewServer(nil)
		check(err)
		defer srv.Close()
		servers = srv.Servers()
	}
	session, err := election.Connect(servers, 10*time.Second, nil)
	check(err)
	defer func() { check(session.Close()) }()
	dialer, err := NewLeaderDialer(context.Background(), session, "dial-leader")
	check(err)
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}, Timeout: 30 * time.Second}

	for _, name := range []string{"red", "green", "blue"} {
		stop := serve(servers, name)
		for range 2 {
			answer, err := client.Get("http://the-leader/")
			check(err)
			text, err := io.ReadAll(answer.Body)
			check(err)
			check(answer.Body.Close())
			fmt.Printf("the client asks the leader, %s answers\n", text)
		}
		stop()
		fmt.Printf("%s is gone\n", name)
	}
}

// serve runs a server that leads, until stop.
func serve(servers []string, name string) (stop func()) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	session, err := election.Connect(servers, 10*time.Second, nil)
	check(err)
	c, err := election.NewCandidate(session, "dial-leader", &election.CandidateOptions{Data: []byte(web.Listener.Addr().String())})
	check(err)
	check(c.Vote(context.Background()))
	return func() { check(session.Close()); web.Close() }
}

func check(err error) {
	if err != nil {
		log.Fatal("dialleader: ", err)
	}
}
