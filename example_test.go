package election_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
	"github.com/zkelection/election/guard"
	"github.com/zkelection/election/testutil"
)

// A master and a replica of a database. When the master resigns the replica
// takes over, and the old master follows it.
func Example() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	told := make(chan string, 1)
	var candidates []*election.Candidate
	for _, host := range []string{"dbhost1", "dbhost2"} {
		session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer session.Close()
		c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{
			Data:   []byte(host + ".fqdn.tld:4567"),
			Follow: election.FollowLeader,
		})
		if err != nil {
			log.Fatal(err)
		}
		c.OnWin(func(_ context.Context, _ election.Term) error {
			fmt.Println(host, "becomes the master")
			return nil
		})
		c.OnLose(func(_ context.Context, leader election.Leader) {
			told <- fmt.Sprintf("%s follows %s", host, leader.Data)
		})
		c.OnStepDown(func(_ context.Context, _ election.Term, cause error) {
			fmt.Println(host, "is the master no more:", cause)
		})
		if err := c.Vote(ctx); err != nil {
			log.Fatal(err)
		}
		candidates = append(candidates, c)
	}
	fmt.Println(<-told)
	if err := candidates[0].Resign(ctx); err != nil {
		log.Fatal(err)
	}
	if err := candidates[0].Vote(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-told)
	if err := candidates[0].Close(); err != nil {
		log.Fatal(err)
	}
	if err := candidates[1].Close(); err != nil {
		log.Fatal(err)
	}

	// Output:
	// dbhost1 becomes the master
	// dbhost2 follows dbhost1.fqdn.tld:4567
	// dbhost1 is the master no more: election: resigned
	// dbhost2 becomes the master
	// dbhost1 follows dbhost2.fqdn.tld:4567
	// dbhost2 is the master no more: election: closed
}

func ExampleConnect() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	session, err := election.Connect([]string{srv.Addr()}, 10*time.Second, &election.SessionOptions{
		Auth:     []election.Auth{{Scheme: "digest", Credentials: []byte("user:password")}},
		TickTime: 2 * time.Second, // the servers' tickTime
		Dialer: func(network, address string, timeout time.Duration) (net.Conn, error) {
			return net.DialTimeout(network, address, timeout) // or tls.DialWithDialer
		},
		HostProvider: nil, // the default resolves names anew for each connection
		Metrics:      nil, // contrib/prometheus has one
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()

	within, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := session.AwaitConnected(within); err != nil {
		log.Fatal(err)
	}
	fmt.Println("timeout:", session.Timeout())
	now := session.Connection()
	fmt.Println("connected:", now.Connected, now.Server == srv.Addr(), time.Since(now.Since) < time.Minute)
	fmt.Println("session:", session.ID() != 0 && session.Conn().State() == zk.StateHasSession)
	// Output:
	// timeout: 10s
	// connected: true true true
	// session: true
}

// A service that has a connection already shares it, and goes on owning it.
func ExampleNewSession() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	const timeout = 4 * time.Second
	conn, events, err := zk.Connect(srv.Servers(), timeout, zk.WithLogInfo(false))
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for range events { // the service's own business
		}
	}()
	defer conn.Close()

	session, err := election.NewSession(conn, timeout, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Campaign(ctx)
	fmt.Println(err)
	// Output: <nil>
}

// The gem's members vote again at each new connection. Here that is needed only
// for a candidate that is to come back after Resign, at the next new session.
func ExampleSession_OnConnected() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}

	voted := make(chan error)
	cancel := session.OnConnected(func() { voted <- c.Vote(ctx) })
	defer cancel()
	fmt.Println(<-voted, c.Voted())
	// Output: <nil> true
}

func ExampleCandidate_Campaign() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{Data: []byte("dbhost1"), Root: election.DefaultRoot})
	if err != nil {
		log.Fatal(err)
	}

	term, err := c.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("leads:", c.IsLeader())
	fmt.Println("by its ballot:", term.Ballot == c.VotePath())
	if present, ok := c.Term(); ok {
		fmt.Println("this term:", present == term, term.Token > 0)
	}
	fmt.Println("for sure for", time.Until(c.LeaseUntil()) > time.Second)
	fmt.Println("in good health:", c.Healthy(5*time.Second) == nil)
	// Output:
	// leads: true
	// by its ballot: true
	// this term: true true
	// for sure for true
	// in good health: true
}

// A database that takes its time to shut down: who watches over that is told until
// when nobody else leads.
func ExampleCandidate_ExclusiveUntil() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{StepDownTimeout: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	c.OnStepDown(func(context.Context, election.Term, error) {
		fmt.Println("shutting down, and leads no more:", c.LeaseUntil().IsZero())
		fmt.Println("nobody else leads:", time.Until(c.ExclusiveUntil()) > time.Second)
	})

	if _, err := c.Campaign(ctx); err != nil {
		log.Fatal(err)
	}
	if err := c.Resign(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("others may lead:", c.ExclusiveUntil().IsZero())
	// Output:
	// shutting down, and leads no more: true
	// nobody else leads: true
	// others may lead: true
}

// A job that only one process runs at a time.
func ExampleCandidate_Run() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}

	err = c.Run(ctx, func(ctx context.Context, _ election.Term) error {
		fmt.Println("leads:", c.IsLeader() && ctx.Err() == nil)
		// ctx ends when leadership does: then return, Run contends again.
		// Returning while leading ends Run.
		return errors.New("the work went wrong")
	})
	fmt.Println(err)
	fmt.Println("leads:", c.IsLeader())
	// Output:
	// leads: true
	// the work went wrong
	// leads: false
}

func ExampleCandidate_IsLeader() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}

	handle := func(request string) {
		if !c.IsLeader() { // cheap enough for every request
			fmt.Println(request, "refused: not the leader")
			return
		}
		fmt.Println(request, "served")
	}
	handle("the first request")
	_, err = c.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}
	handle("the second request")
	// Output:
	// the first request refused: not the leader
	// the second request served
}

func ExampleCandidate_Resign() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}
	cancel := c.OnStepDown(func(_ context.Context, _ election.Term, cause error) {
		fmt.Println("resigned:", errors.Is(cause, election.ErrResigned))
	})

	_, err = c.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Resign(ctx); err != nil { // OnStepDown has returned, and the ballot is gone
		log.Fatal(err)
	}
	fmt.Println("voted:", c.Voted())
	cancel() // of the callback
	if err := c.Vote(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("voted:", c.Voted())
	// Output:
	// resigned: true
	// voted: false
	// voted: true
}

func ExampleCandidate_OnTakeoverError() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{
		HotStandby:      true,
		TakeoverTimeout: time.Minute,
		StepDownTimeout: 30 * time.Second,
		ACL:             zk.WorldACL(zk.PermAll),
	})
	if err != nil {
		log.Fatal(err)
	}
	c.OnWin(func(context.Context, election.Term) error { return errors.New("the disk is full") })
	told := make(chan error, 1)
	c.OnTakeoverError(func(_ election.Term, err error) { told <- err })

	_, err = c.Campaign(ctx)
	fmt.Println(errors.Is(err, election.ErrTakeoverFailed))
	fmt.Println(<-told)
	// Output:
	// true
	// election: takeover failed: the disk is full
}

// The leader tells observers of its new address.
func ExampleCandidate_Proclaim() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{Data: []byte("port 4567")})
	if err != nil {
		log.Fatal(err)
	}
	err = c.Proclaim(ctx, []byte("port 4568"))
	fmt.Println(errors.Is(err, election.ErrNotLeader))
	_, err = c.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}

	o, err := election.NewObserver(session, c.Name(), nil)
	if err != nil {
		log.Fatal(err)
	}
	news := make(chan election.Leader, 1)
	o.OnLeaderData(func(l election.Leader) { news <- l })
	if err := o.Observe(ctx); err != nil {
		log.Fatal(err)
	}
	if err := c.Proclaim(ctx, []byte("port 4568")); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", (<-news).Data)
	// Output:
	// true
	// port 4568
}

// An operator passes leadership on to a candidate of choice.
func ExampleCandidate_Transfer() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	leads := make(chan string, 3)
	for _, name := range []string{"a", "b"} { // two processes, each with a session
		session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer session.Close()
		c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{Data: []byte(name)})
		if err != nil {
			log.Fatal(err)
		}
		c.OnWin(func(context.Context, election.Term) error { leads <- name; return nil })
		c.OnStepDown(func(_ context.Context, _ election.Term, cause error) {
			if errors.Is(cause, election.ErrTransferred) {
				leads <- name + " has passed it on"
			}
		})
		if err := c.Vote(ctx); err != nil {
			log.Fatal(err)
		}
	}

	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	operator, err := election.NewCandidate(session, "database_election", nil) // does not stand
	if err != nil {
		log.Fatal(err)
	}
	ballots, err := operator.Ballots(ctx)
	if err != nil {
		log.Fatal(err)
	}
	err = operator.Transfer(ctx, ballots[1])
	switch {
	case errors.Is(err, election.ErrTransferBlocked): // it came to nothing: the text says how far it came
		log.Fatal(err)
	case errors.Is(err, election.ErrTransferTargetGone), errors.Is(err, election.ErrTransferUnderWay):
		log.Fatal(err)
	case err != nil:
		log.Fatal(err)
	}
	for range 3 {
		fmt.Println(<-leads)
	}
	// Output:
	// a
	// a has passed it on
	// b
}

// A replica stands aside while it lags, and is preferred when it does not.
func ExampleCandidate_StandWhile() {
	ctx, cancel := context.WithCancel(context.Background())
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{Priority: 5})
	if err != nil {
		log.Fatal(err)
	}
	c.OnWin(func(context.Context, election.Term) error {
		fmt.Println("leads")
		cancel() // enough for an example
		return nil
	})
	var behind atomic.Int64
	behind.Store(2)
	err = c.StandWhile(ctx, func(context.Context) error {
		if n := behind.Add(-1); n > 0 {
			return fmt.Errorf("%d transactions behind", n)
		}
		return nil
	}, 100*time.Millisecond)
	fmt.Println(errors.Is(err, context.Canceled))
	fmt.Println(c.SetPriority(context.Background(), -1)) // from now on the others first
	// Output:
	// leads
	// true
	// <nil>
}

// Data in the same ZooKeeper is safe from a leader of the past.
func ExampleTerm_Guard() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}
	term, err := c.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}

	write := func(path string) {
		_, err := session.Conn().Multi(term.Guard(), &zk.CreateRequest{Path: path, Acl: zk.WorldACL(zk.PermAll)})
		fmt.Println(path, err)
	}
	write("/by-the-leader")
	if err := c.Resign(ctx); err != nil {
		log.Fatal(err)
	}
	write("/too-late")
	// Output:
	// /by-the-leader <nil>
	// /too-late zk: node does not exist
}

// What anybody may ask of an election, a candidate or an observer.
func ExampleBase() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	var o *election.Observer // or an *election.Candidate
	o, err = election.NewObserver(session, "jobs/nightly", &election.ObserverOptions{Root: "/my/elections"})
	if err != nil {
		log.Fatal(err)
	}
	look := o.Base
	where := func(b *election.Base) {
		fmt.Println(b.Name(), b.RootVotePath(), b.LeaderAckPath(), b.Session() == session)
	}
	where(look)
	_, err = look.Leader(ctx)
	fmt.Println(errors.Is(err, election.ErrNoLeader))

	leads := make(chan election.Leader)
	cancel := look.OnLeaderAck(func(l election.Leader) { leads <- l })
	defer cancel()
	c, err := election.NewCandidate(session, "jobs/nightly", &election.CandidateOptions{Root: "/my/elections", Data: []byte("host1")})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Vote(ctx); err != nil {
		log.Fatal(err)
	}

	leader := <-leads
	fmt.Printf("%s leads, by session: %v, for %v\n", leader.Data, leader.SessionID == session.ID(),
		time.Since(leader.Since).Round(time.Minute))
	acked, err := look.LeaderAcked(ctx)
	fmt.Println(acked, err)
	data, err := look.LeaderData(ctx)
	fmt.Printf("%s %v\n", data, err)
	again, err := look.LeaderSync(ctx)
	fmt.Println(again.Zxid == leader.Zxid, err)
	// Output:
	// jobs/nightly /my/elections/jobs__nightly /my/elections/jobs__nightly/leader_ack true
	// true
	// host1 leads, by session: true, for 0s
	// true <nil>
	// host1 <nil>
	// true <nil>
}

func ExampleBase_Ballots() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	var last *election.Candidate
	for _, host := range []string{"host1", "host2", "host3"} {
		session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer session.Close()
		last, err = election.NewCandidate(session, "database_election", &election.CandidateOptions{
			Data: []byte(host), Follow: election.FollowNextNode, // the default
		})
		if err != nil {
			log.Fatal(err)
		}
		if err := last.Vote(ctx); err != nil {
			log.Fatal(err)
		}
	}

	ballots, err := last.Ballots(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for i, b := range ballots {
		later := i == 0 || b.Sequence > ballots[i-1].Sequence && b.Token > ballots[i-1].Token
		fmt.Printf("%s %v %v\n", b.Data, later, b.Path == last.VotePath())
	}
	// Output:
	// host1 true false
	// host2 true false
	// host3 true true
}

// A client that goes where the leader is.
func ExampleObserver() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	o, err := election.NewObserver(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer o.Close()
	events := make(chan string, 10)
	o.OnNewLeader(func(l election.Leader) { events <- fmt.Sprintf("reconnect to %s", l.Data) })
	o.OnLeaderDeath(func(l election.Leader) { events <- fmt.Sprintf("pause, no leader (it was %q)", l.Data) })
	if err := o.Observe(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-events)
	alive, known := o.LeaderAlive()
	fmt.Println("alive:", alive, "known:", known)
	if time.Since(o.ConfirmedAt()) > time.Minute {
		log.Fatal("the observer has been without a connection: this may be long over")
	}

	master, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	c, err := election.NewCandidate(master, "database_election", &election.CandidateOptions{Data: []byte("dbhost1")})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Vote(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-events)
	if err := master.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-events)
	// Output:
	// pause, no leader (it was "")
	// alive: false known: true
	// reconnect to dbhost1
	// pause, no leader (it was "dbhost1")
}

// The candidates of a session inherit its metrics. contrib/prometheus has the
// real thing.
func ExampleMetrics() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	session, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{Metrics: &election.Metrics{
		Standing:     func(name string, stands bool) { fmt.Println("standing", name, stands) },
		Leading:      func(name string, leads bool) { fmt.Println("leading", name, leads) },
		TakingOver:   func(name string, since time.Time) { fmt.Println("taking over", name, !since.IsZero()) },
		TakenOver:    func(name string, took time.Duration) { fmt.Println("taken over", name, took < time.Minute) },
		SteppedDown:  func(name string, cause error) { fmt.Println("stepped down", name, cause) },
		Lost:         func(name string) { fmt.Println("lost", name) },
		MovedToEnd:   func(name string) { fmt.Println("made way", name) },
		LeaseRenewed: func(time.Duration) {}, // several times in each session timeout
		SessionLost:  func() { fmt.Println("session lost") },
		Connected:    func(connected bool) { fmt.Println("connected", connected) },
	}})
	if err != nil {
		log.Fatal(err)
	}
	if err := session.AwaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Campaign(ctx); err != nil {
		log.Fatal(err)
	}
	if err := session.Close(); err != nil { // and its candidates
		log.Fatal(err)
	}
	// Output:
	// connected true
	// standing database_election true
	// leading database_election true
	// taking over database_election true
	// taken over database_election true
	// taking over database_election false
	// standing database_election false
	// leading database_election false
	// stepped down database_election election: closed
	// connected false
}

// What a probe or a dashboard shows of a candidate.
func ExampleCandidate_Status() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	if err := session.AwaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{
		Retry: time.Hour, // after a takeover that failed
	})
	if err != nil {
		log.Fatal(err)
	}
	show := func() {
		s := c.Status()
		fmt.Printf("%s: standing %v, leads %v, connected %v\n", s.Phase, s.Standing, s.Leads,
			s.Connected && s.Server == srv.Addr() && time.Since(s.ConnectionSince) < time.Minute)
		switch {
		case s.Absence != nil:
			fmt.Println("  does not stand:", s.Absence)
			fmt.Println("  tries again by itself:", !s.RetryAt.IsZero())
		case !s.TakingOverSince.IsZero():
			fmt.Println("  takes over for", time.Since(s.TakingOverSince).Round(time.Hour))
		case !s.AcknowledgedAt.IsZero():
			fmt.Println("  in front:", s.InFront)
		}
		if s.LeaderKnown { // while it stands, with FollowLeader; otherwise while it leads
			fmt.Println("  somebody has acknowledged:", s.LeaderAlive)
		}
		if s.LastError != nil {
			fmt.Println("  last error:", s.LastError, time.Since(s.LastErrorAt) < time.Hour)
		}
	}
	show()
	_, err = c.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}
	show()
	if err := c.Resign(ctx); err != nil {
		log.Fatal(err)
	}
	show()
	// Output:
	// idle: standing false, leads false, connected true
	//   does not stand: election: nobody has asked for the vote yet
	//   tries again by itself: false
	// leading: standing true, leads true, connected true
	//   in front: 0
	//   somebody has acknowledged: true
	// idle: standing false, leads false, connected true
	//   does not stand: election: resigned
	//   tries again by itself: false
}

// A process that is told to end has so much time for all of it.
func ExampleSession_Shutdown() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}
	c.OnStepDown(func(_ context.Context, _ election.Term, cause error) { fmt.Println("stepped down:", cause) })
	_, err = c.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}

	grace, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	if err := session.Shutdown(grace); err != nil {
		log.Fatal(err)
	}
	// Output:
	// stepped down: election: closed
}

// bookkeeper is a Guard that only writes down what it is told to hold.
type bookkeeper struct{ held *atomic.Int64 }

func (b bookkeeper) Hold(_ any, session *guard.Session) {
	if session != nil {
		b.held.Store(session.ID)
	}
}

// A service gives what guard.Start returns instead: a process beside it, which
// closes its session when it has died.
func ExampleGuard() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	kept := bookkeeper{new(atomic.Int64)}
	session, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
		Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler), Guard: kept,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	if err := session.AwaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(kept.held.Load() == session.ID())
	// Output:
	// true
}

// The errors of bad input harm nothing, and are told apart by errors.Is.
func Example_errors() {
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}

	is := func(what string, err, target error) { fmt.Println(what, errors.Is(err, target)) }
	_, err = election.NewCandidate(session, "..", nil)
	is("ErrInvalidName", err, election.ErrInvalidName)
	_, err = election.NewCandidate(session, strings.Repeat("n", election.MaxNameSize+1), nil)
	is("ErrInvalidName", err, election.ErrInvalidName)
	_, err = election.NewCandidate(session, "jobs", &election.CandidateOptions{Root: "relative"})
	is("ErrInvalidPath", err, election.ErrInvalidPath)
	_, err = election.NewCandidate(session, "jobs", &election.CandidateOptions{Data: make([]byte, election.MaxDataSize+1)})
	is("ErrDataTooLarge", err, election.ErrDataTooLarge)

	// Those of ZooKeeper stay reachable.
	_, err = session.Conn().Create("/private", nil, 0, zk.DigestACL(zk.PermAll, "somebody", "else"))
	if err != nil {
		log.Fatal(err)
	}
	c, err := election.NewCandidate(session, "jobs", &election.CandidateOptions{Root: "/private"})
	if err != nil {
		log.Fatal(err)
	}
	is("zk.ErrNoAuth", c.Vote(ctx), zk.ErrNoAuth)

	// So do those that go-zookeeper has no name for.
	const quotaExceeded = election.ErrorCode(-125)
	enforced := srv.Control(testutil.OpCreate, func(*testutil.Request) testutil.Action {
		return testutil.Fail(testutil.ErrorCode(quotaExceeded))
	})
	limited, err := election.NewCandidate(session, "limited", nil)
	if err != nil {
		log.Fatal(err)
	}
	is(quotaExceeded.Error(), limited.Vote(ctx), quotaExceeded)
	enforced()

	// An election that is open to others is no place for a private candidate.
	open, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := open.Vote(ctx); err != nil {
		log.Fatal(err)
	}
	private, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{ACL: zk.DigestACL(zk.PermAll, "user", "password")})
	if err != nil {
		log.Fatal(err)
	}
	is("ErrOpenElection", private.Vote(ctx), election.ErrOpenElection)

	// The sequence numbers of one election are used up in the end.
	if err := open.Resign(ctx); err != nil {
		log.Fatal(err)
	}
	if err := srv.SetSequence(open.RootVotePath(), 1<<31-1); err != nil {
		log.Fatal(err)
	}
	is("ErrSequenceExhausted", open.Vote(ctx), election.ErrSequenceExhausted)

	if err := session.Close(); err != nil {
		log.Fatal(err)
	}
	is("ErrClosed", open.Vote(ctx), election.ErrClosed)
	// Output:
	// ErrInvalidName true
	// ErrInvalidName true
	// ErrInvalidPath true
	// ErrDataTooLarge true
	// zk.ErrNoAuth true
	// quota exceeded (-125) true
	// ErrOpenElection true
	// ErrSequenceExhausted true
	// ErrClosed true
}

// The causes of a step-down that are no decision of this process, and what
// they call for.
func Example_causes() {
	advice := func(cause error) string {
		switch {
		case errors.Is(cause, election.ErrLeaseLapsed), errors.Is(cause, election.ErrSessionLost):
			return "cut off, or too slow: the candidate votes again by itself"
		case errors.Is(cause, election.ErrBallotDeleted):
			return "somebody deletes ballots: find out who"
		case errors.Is(cause, election.ErrTakeoverFailed):
			return "out for CandidateOptions.Retry"
		case errors.Is(cause, election.ErrResigned):
			return "out until Vote is called"
		case errors.Is(cause, election.ErrTransferred):
			return "passed on: it stands at the end of the line"
		case errors.Is(cause, election.ErrTickTime): // of Vote
			return "correct SessionOptions.TickTime, or ask for a longer session timeout"
		case errors.Is(cause, election.ErrCallbackRunning):
			return "a callback hangs: the process had better end"
		}
		return "the end"
	}
	ctx := context.Background()
	srv, err := testutil.NewServer(nil) // in the place of your ensemble
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	c, err := election.NewCandidate(session, "database_election", nil)
	if err != nil {
		log.Fatal(err)
	}
	told := make(chan string, 2) // for the end of this example, too
	c.OnStepDown(func(_ context.Context, _ election.Term, cause error) { told <- advice(cause) })
	term, err := c.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := session.Conn().Delete(term.Ballot, -1); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-told)
	fmt.Println(advice(election.ErrClosed))
	// Output:
	// somebody deletes ballots: find out who
	// the end
}
