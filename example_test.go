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

// The examples run on the in-process ZooKeeper of package testutil. A service
// gives Connect the addresses of its ensemble, and no Dialer.

var ctx = context.Background()

func newServer() *testutil.Server {
	srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
	check(err)
	return srv
}

func connect(srv *testutil.Server) *election.Session {
	session, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
		Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
	})
	check(err)
	return session
}

func stand(session *election.Session, opts *election.CandidateOptions) *election.Candidate {
	candidate, err := election.NewCandidate(session, "database_election", opts)
	check(err)
	return candidate
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A master and a replica of a database. When the master resigns the replica
// takes over, and the old master follows it.
func Example() {
	srv := newServer()
	defer srv.Close()

	told := make(chan string, 1)
	var candidates []*election.Candidate
	for _, host := range []string{"dbhost1", "dbhost2"} {
		session := connect(srv)
		defer session.Close()
		c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{
			Data:   []byte(host + ".fqdn.tld:4567"),
			Follow: election.FollowLeader,
		})
		check(err)
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
		check(c.Vote(ctx))
		candidates = append(candidates, c)
	}
	fmt.Println(<-told)
	check(candidates[0].Resign(ctx))
	check(candidates[0].Vote(ctx))
	fmt.Println(<-told)
	check(candidates[0].Close())
	check(candidates[1].Close())

	// Output:
	// dbhost1 becomes the master
	// dbhost2 follows dbhost1.fqdn.tld:4567
	// dbhost1 is the master no more: election: resigned
	// dbhost2 becomes the master
	// dbhost1 follows dbhost2.fqdn.tld:4567
	// dbhost2 is the master no more: election: closed
}

func ExampleConnect() {
	srv, err := testutil.NewServer(nil)
	check(err)
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
	check(err)
	defer session.Close()

	within, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	check(session.AwaitConnected(within))
	fmt.Println("timeout:", session.Timeout())
	fmt.Println("connected:", session.ID() != 0 && session.Conn().State() == zk.StateHasSession)
	// Output:
	// timeout: 10s
	// connected: true
}

// A service that has a connection already shares it, and goes on owning it.
func ExampleNewSession() {
	srv := newServer()
	defer srv.Close()
	const timeout = 4 * time.Second
	conn, events, err := zk.Connect(srv.Servers(), timeout, zk.WithDialer(srv.Dialer()), zk.WithLogInfo(false),
		zk.WithLogger(log.New(os.Stderr, "", 0)))
	check(err)
	go func() {
		for range events { // the service's own business
		}
	}()
	defer conn.Close()

	session, err := election.NewSession(conn, timeout, nil)
	check(err)
	defer session.Close()
	_, err = stand(session, nil).Campaign(ctx)
	fmt.Println(err)
	// Output: <nil>
}

// The gem's members vote again at each new connection. Here that is needed only
// for candidates that are to come back after Resign or a failed takeover.
func ExampleSession_OnConnected() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, nil)

	voted := make(chan error)
	cancel := session.OnConnected(func() { voted <- c.Vote(ctx) })
	defer cancel()
	fmt.Println(<-voted, c.Voted())
	// Output: <nil> true
}

func ExampleCandidate_Campaign() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, &election.CandidateOptions{Data: []byte("dbhost1"), Root: election.DefaultRoot})

	term, err := c.Campaign(ctx)
	check(err)
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

// A job that only one process runs at a time.
func ExampleCandidate_Run() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, nil)

	err := c.Run(ctx, func(ctx context.Context, _ election.Term) error {
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
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, nil)

	handle := func(request string) {
		if !c.IsLeader() { // cheap enough for every request
			fmt.Println(request, "refused: not the leader")
			return
		}
		fmt.Println(request, "served")
	}
	handle("the first request")
	_, err := c.Campaign(ctx)
	check(err)
	handle("the second request")
	// Output:
	// the first request refused: not the leader
	// the second request served
}

func ExampleCandidate_Resign() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, nil)
	cancel := c.OnStepDown(func(_ context.Context, _ election.Term, cause error) {
		fmt.Println("resigned:", errors.Is(cause, election.ErrResigned))
	})

	_, err := c.Campaign(ctx)
	check(err)
	check(c.Resign(ctx)) // OnStepDown has returned, and the ballot is gone
	fmt.Println("voted:", c.Voted())
	cancel() // of the callback
	check(c.Vote(ctx))
	fmt.Println("voted:", c.Voted())
	// Output:
	// resigned: true
	// voted: false
	// voted: true
}

func ExampleCandidate_OnTakeoverError() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, &election.CandidateOptions{
		HotStandby:      true,
		TakeoverTimeout: time.Minute,
		StepDownTimeout: 30 * time.Second,
		ACL:             zk.WorldACL(zk.PermAll),
	})
	c.OnWin(func(context.Context, election.Term) error { return errors.New("the disk is full") })
	told := make(chan error, 1)
	c.OnTakeoverError(func(_ election.Term, err error) { told <- err })

	_, err := c.Campaign(ctx)
	fmt.Println(errors.Is(err, election.ErrTakeoverFailed))
	fmt.Println(<-told)
	// Output:
	// true
	// election: takeover failed: the disk is full
}

// The leader tells observers of its new address.
func ExampleCandidate_Proclaim() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, &election.CandidateOptions{Data: []byte("port 4567")})
	err := c.Proclaim(ctx, []byte("port 4568"))
	fmt.Println(errors.Is(err, election.ErrNotLeader))
	_, err = c.Campaign(ctx)
	check(err)

	o, err := election.NewObserver(session, c.Name(), nil)
	check(err)
	news := make(chan election.Leader, 1)
	o.OnLeaderData(func(l election.Leader) { news <- l })
	check(o.Observe(ctx))
	check(c.Proclaim(ctx, []byte("port 4568")))
	fmt.Printf("%s\n", (<-news).Data)
	// Output:
	// true
	// port 4568
}

// Data in the same ZooKeeper is safe from a leader of the past.
func ExampleTerm_Guard() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, nil)
	term, err := c.Campaign(ctx)
	check(err)

	write := func(path string) {
		_, err := session.Conn().Multi(term.Guard(), &zk.CreateRequest{Path: path, Acl: zk.WorldACL(zk.PermAll)})
		fmt.Println(path, err)
	}
	write("/by-the-leader")
	check(c.Resign(ctx))
	write("/too-late")
	// Output:
	// /by-the-leader <nil>
	// /too-late zk: node does not exist
}

// What anybody may ask of an election, a candidate or an observer.
func ExampleBase() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	o, err := election.NewObserver(session, "jobs/nightly", &election.ObserverOptions{Root: "/my/elections"})
	check(err)
	look := o.Base // a Candidate has one, too
	where := func(b *election.Base) { fmt.Println(b.Name(), b.RootVotePath(), b.LeaderAckPath()) }
	where(look)
	_, err = look.Leader(ctx)
	fmt.Println(errors.Is(err, election.ErrNoLeader))

	leads := make(chan election.Leader)
	cancel := look.OnLeaderAck(func(l election.Leader) { leads <- l })
	defer cancel()
	c, err := election.NewCandidate(session, "jobs/nightly", &election.CandidateOptions{Root: "/my/elections", Data: []byte("host1")})
	check(err)
	check(c.Vote(ctx))

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
	// jobs/nightly /my/elections/jobs__nightly /my/elections/jobs__nightly/leader_ack
	// true
	// host1 leads, by session: true, for 0s
	// true <nil>
	// host1 <nil>
	// true <nil>
}

func ExampleBase_Ballots() {
	srv := newServer()
	defer srv.Close()
	var last *election.Candidate
	for _, host := range []string{"host1", "host2", "host3"} {
		session := connect(srv)
		defer session.Close()
		last = stand(session, &election.CandidateOptions{Data: []byte(host), Follow: election.FollowNextNode})
		check(last.Vote(ctx))
	}

	ballots, err := last.Ballots(ctx)
	check(err)
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
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	o, err := election.NewObserver(session, "database_election", nil)
	check(err)
	defer func(o *election.Observer) { check(o.Close()) }(o)
	events := make(chan string, 10)
	o.OnNewLeader(func(l election.Leader) { events <- fmt.Sprintf("reconnect to %s", l.Data) })
	o.OnLeaderDeath(func(l election.Leader) { events <- fmt.Sprintf("pause, no leader (it was %q)", l.Data) })
	check(o.Observe(ctx))
	fmt.Println(<-events)
	alive, known := o.LeaderAlive()
	fmt.Println("alive:", alive, "known:", known)

	master := connect(srv)
	check(stand(master, &election.CandidateOptions{Data: []byte("dbhost1")}).Vote(ctx))
	fmt.Println(<-events)
	check(master.Close())
	fmt.Println(<-events)
	// Output:
	// pause, no leader (it was "")
	// alive: false known: true
	// reconnect to dbhost1
	// pause, no leader (it was "dbhost1")
}

func ExampleMetrics() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, &election.CandidateOptions{Metrics: &election.Metrics{ // contrib/prometheus has the real thing
		Standing:    func(name string, stands bool) { fmt.Println("standing", name, stands) },
		Leading:     func(name string, leads bool) { fmt.Println("leading", name, leads) },
		TakingOver:  func(name string, since time.Time) { fmt.Println("taking over", name, !since.IsZero()) },
		TakenOver:   func(name string, took time.Duration) { fmt.Println("taken over", name, took < time.Minute) },
		SteppedDown: func(name string, cause error) { fmt.Println("stepped down", name, cause) },
		Lost:        func(name string) { fmt.Println("lost", name) },
		MovedToEnd:  func(name string) { fmt.Println("made way", name) },
		// These are the Session's.
		LeaseRenewed: func(margin time.Duration) { fmt.Println("renewed with some left", margin > 0) },
		SessionLost:  func() { fmt.Println("session lost") },
	}})
	_, err := c.Campaign(ctx)
	check(err)
	check(c.Close())
	// Output:
	// standing database_election true
	// leading database_election true
	// taking over database_election true
	// taken over database_election true
	// taking over database_election false
	// standing database_election false
	// leading database_election false
	// stepped down database_election election: closed
}

// What a probe or a dashboard shows of a candidate.
func ExampleCandidate_Status() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	check(session.AwaitConnected(ctx))
	c := stand(session, &election.CandidateOptions{Retry: time.Hour}) // after a takeover that failed
	show := func() {
		s := c.Status()
		fmt.Printf("%s: standing %v, leads %v, connected %v\n", s.Phase, s.Standing, s.Leads, s.Connected)
		switch {
		case s.Absence != nil:
			fmt.Println("  does not stand:", s.Absence)
			fmt.Println("  tries again by itself:", !s.RetryAt.IsZero())
		case !s.TakingOverSince.IsZero():
			fmt.Println("  takes over for", time.Since(s.TakingOverSince).Round(time.Hour))
		case !s.AcknowledgedAt.IsZero():
			fmt.Println("  in front:", s.InFront)
		}
		if s.LastError != nil {
			fmt.Println("  last error:", s.LastError, time.Since(s.LastErrorAt) < time.Hour)
		}
	}
	show()
	_, err := c.Campaign(ctx)
	check(err)
	show()
	check(c.Resign(ctx))
	show()
	// Output:
	// idle: standing false, leads false, connected true
	//   does not stand: election: nobody has asked for the vote yet
	//   tries again by itself: false
	// leading: standing true, leads true, connected true
	//   in front: 0
	// idle: standing false, leads false, connected true
	//   does not stand: election: resigned
	//   tries again by itself: false
}

// A process that is told to end has so much time for all of it.
func ExampleSession_Shutdown() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	c := stand(session, nil)
	c.OnStepDown(func(_ context.Context, _ election.Term, cause error) { fmt.Println("stepped down:", cause) })
	_, err := c.Campaign(ctx)
	check(err)

	grace, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	check(session.Shutdown(grace))
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
	srv := newServer()
	defer srv.Close()
	kept := bookkeeper{new(atomic.Int64)}
	session, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
		Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler), Guard: kept,
	})
	check(err)
	defer session.Close()
	check(session.AwaitConnected(ctx))
	fmt.Println(kept.held.Load() == session.ID())
	// Output:
	// true
}

// The errors of bad input harm nothing, and are told apart by errors.Is.
func Example_errors() {
	srv := newServer()
	defer srv.Close()
	session := connect(srv)

	is := func(what string, err, target error) { fmt.Println(what, errors.Is(err, target)) }
	_, err := election.NewCandidate(session, "..", nil)
	is("ErrInvalidName", err, election.ErrInvalidName)
	_, err = election.NewCandidate(session, strings.Repeat("n", election.MaxNameSize+1), nil)
	is("ErrInvalidName", err, election.ErrInvalidName)
	_, err = election.NewCandidate(session, "jobs", &election.CandidateOptions{Root: "relative"})
	is("ErrInvalidPath", err, election.ErrInvalidPath)
	_, err = election.NewCandidate(session, "jobs", &election.CandidateOptions{Data: make([]byte, election.MaxDataSize+1)})
	is("ErrDataTooLarge", err, election.ErrDataTooLarge)

	// Those of ZooKeeper stay reachable.
	_, err = session.Conn().Create("/private", nil, 0, zk.DigestACL(zk.PermAll, "somebody", "else"))
	check(err)
	c, err := election.NewCandidate(session, "jobs", &election.CandidateOptions{Root: "/private"})
	check(err)
	is("zk.ErrNoAuth", c.Vote(ctx), zk.ErrNoAuth)

	// So do those that go-zookeeper has no name for.
	const quotaExceeded = election.ErrorCode(-125)
	enforced := srv.Control(testutil.OpCreate, func(*testutil.Request) testutil.Action {
		return testutil.Fail(testutil.ErrorCode(quotaExceeded))
	})
	is(quotaExceeded.Error(), stand(session, nil).Vote(ctx), quotaExceeded)
	enforced()

	// An election that is open to others is no place for a private candidate.
	open := stand(session, nil)
	check(open.Vote(ctx))
	private := stand(session, &election.CandidateOptions{ACL: zk.DigestACL(zk.PermAll, "user", "password")})
	is("ErrOpenElection", private.Vote(ctx), election.ErrOpenElection)

	// The sequence numbers of one election are used up in the end.
	check(open.Resign(ctx))
	check(srv.SetSequence(open.RootVotePath(), 1<<31-1))
	is("ErrSequenceExhausted", open.Vote(ctx), election.ErrSequenceExhausted)

	check(session.Close())
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
			return "an operator wants another leader"
		case errors.Is(cause, election.ErrTakeoverFailed):
			return "out for CandidateOptions.Retry"
		case errors.Is(cause, election.ErrResigned):
			return "out until Vote is called"
		case errors.Is(cause, election.ErrTickTime): // of Vote
			return "correct SessionOptions.TickTime, or ask for a longer session timeout"
		case errors.Is(cause, election.ErrCallbackRunning):
			return "a callback hangs: the process had better end"
		}
		return "the end"
	}
	srv := newServer()
	defer srv.Close()
	session := connect(srv)
	defer session.Close()
	c := stand(session, nil)
	told := make(chan string, 2) // for the end of this example, too
	c.OnStepDown(func(_ context.Context, _ election.Term, cause error) { told <- advice(cause) })
	term, err := c.Campaign(ctx)
	check(err)
	check(session.Conn().Delete(term.Ballot, -1))
	fmt.Println(<-told)
	fmt.Println(advice(election.ErrClosed))
	// Output:
	// an operator wants another leader
	// the end
}
