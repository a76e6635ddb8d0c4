// Command agent is one process of a chaos run: a candidate or an observer that
// writes down on its standard output, event by event, what it believes. It ends
// when its standard input does, so that none outlives the test.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
	"github.com/zkelection/election/guard"
	"github.com/zkelection/election/internal/monotonic"
	"github.com/zkelection/election/proof/chaos/internal/history"
)

// contender is what all kinds of candidates have in common.
type contender interface {
	// leads reports whether it claims to lead, under which token, and until
	// when, on the clock of the history; 0 when it claims no end.
	leads() (token, until int64, leads bool)
	// server is the address of the node that it is connected to, or "".
	server() string
	voted() bool
	// resign withdraws, vote comes back, close is for good.
	resign()
	vote()
	close()
	// transfer asks for leadership to move to the candidate called so.
	transfer(to string)
}

type options struct {
	name     string
	mode     string
	servers  []string
	timeout  time.Duration
	tick     time.Duration
	election string
	hot      bool
	follow   bool
	poke     string
	dialer   zk.Dialer
	guard    *guard.Guard
	out      *history.Writer
}

func main() {
	var (
		o       options
		servers = flag.String("servers", "", "the nodes, HOST:PORT each, with commas")
		local   = flag.String("local", "", "the address to connect from")
		patient = flag.Bool("patient", false, "never give up a connection for want of an answer")
		guarded = flag.Bool("guard", false, "have a guard close the session when this process dies")
		every   = flag.Duration("every", 3*time.Millisecond, "time between samples")
	)
	flag.StringVar(&o.name, "name", "agent", "what the process is called in the history, and its data")
	flag.StringVar(&o.mode, "mode", "candidate", "candidate, observer, naive (trusts the connection) or simple (lease of half the timeout after any heartbeat)")
	flag.DurationVar(&o.timeout, "timeout", 4*time.Second, "session timeout")
	flag.DurationVar(&o.tick, "tick", 0, "tickTime of the servers, if it is to be known")
	flag.StringVar(&o.election, "election", "chaos", "name of the election")
	flag.BoolVar(&o.hot, "hot", false, "HotStandby")
	flag.BoolVar(&o.follow, "follow-leader", false, "FollowLeader")
	flag.StringVar(&o.poke, "poke", "", "a node to watch, so that the test can leave unread data in the socket")
	flag.Parse()
	// The guard is this program again, with the same flags, and connects from the same address.
	guard.Init(func() (zk.Dialer, error) { return dialer(*local, false), nil })
	o.servers = strings.Split(*servers, ",")
	o.dialer = dialer(*local, *patient)
	if *guarded {
		var err error
		if o.guard, err = guard.Start(&guard.Options{Logger: logger()}); err != nil {
			fail(err)
		}
	}
	o.out = history.NewWriter(os.Stdout, o.name)
	o.out.Write(history.Event{Kind: history.Start})

	if o.mode == "observer" {
		observe(o)
		return
	}
	var c contender
	var err error
	if o.mode == "candidate" {
		c, err = newCandidate(o)
	} else {
		c, err = newSimple(o)
	}
	if err != nil {
		fail(err)
	}
	go sample(c, o.out, *every)
	obey(c, o.out)
}

// obey does what the lines of standard input say.
func obey(c contender, out *history.Writer) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, to, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "transfer":
			go c.transfer(to)
		case "resign":
			out.Write(history.Event{Kind: history.Release})
			c.resign()
		case "vote":
			c.vote()
		case "close":
			out.Write(history.Event{Kind: history.Release})
			c.close()
			return
		}
	}
}

// sample asks whether the candidate leads, again and again, and tells what it
// was told. The time is read on both sides of the question: whoever reads the
// history then knows when the process was stopped in between.
func sample(c contender, out *history.Writer, every time.Duration) {
	led, voted, server := false, false, ""
	for {
		before := monotonic.Now()
		token, until, leads := c.leads()
		after := monotonic.Now()
		switch {
		case leads:
			out.Write(history.Event{At: before, After: after, Kind: history.True, Token: token, Until: until})
		case led:
			out.Write(history.Event{At: before, After: after, Kind: history.False})
		}
		led = leads
		if now := c.voted(); now != voted {
			voted = now
			kind := history.Unvoted
			if voted {
				kind = history.Voted
			}
			out.Write(history.Event{Kind: kind})
		}
		if now := c.server(); now != server {
			server = now
			out.Write(history.Event{Kind: history.Server, Text: server})
		}
		time.Sleep(every)
	}
}

// candidate is the library's.
type candidate struct {
	*election.Candidate
	session *election.Session
	out     *history.Writer
}

func newCandidate(o options) (*candidate, error) {
	session, err := election.Connect(o.servers, o.timeout, &election.SessionOptions{
		Dialer: o.dialer, TickTime: o.tick, Logger: logger(), Guard: o.guard,
	})
	if err != nil {
		return nil, err
	}
	follow := election.FollowNextNode
	if o.follow {
		follow = election.FollowLeader
	}
	c := &candidate{session: session, out: o.out}
	c.Candidate, err = election.NewCandidate(session, o.election, &election.CandidateOptions{
		Data: []byte(o.name), Follow: follow, HotStandby: o.hot,
		// Of the rest the candidate's callbacks tell.
		Metrics: &election.Metrics{TakenOver: func(string, time.Duration) {
			term, _ := c.Term()
			o.out.Write(history.Event{Kind: history.Acked, Token: term.Token})
		}},
	})
	if err != nil {
		return nil, err
	}
	c.OnWin(func(_ context.Context, term election.Term) error {
		o.out.Write(history.Event{Kind: history.Win, Token: term.Token})
		return nil
	})
	c.OnStepDown(func(_ context.Context, term election.Term, cause error) {
		if errors.Is(cause, election.ErrTransferred) {
			o.out.Write(history.Event{Kind: history.PassesOn, Token: term.Token})
		}
		o.out.Write(history.Event{Kind: history.StepDown, Token: term.Token, Text: cause.Error()})
	})
	if o.poke != "" {
		session.OnConnected(func() { go watchPoke(session.Conn(), o.poke) })
	}
	go c.vote()
	return c, nil
}

func (c *candidate) leads() (token, until int64, leads bool) {
	if !c.IsLeader() {
		return 0, 0, false
	}
	term, _ := c.Term()
	// What is left of the lease is added to a time that is no later than that
	// of its reading, so that the end is never too late.
	now := monotonic.Now()
	return term.Token, now + int64(time.Until(c.LeaseUntil())), true
}

func (c *candidate) server() string {
	if conn := c.session.Conn(); conn.State() == zk.StateHasSession {
		return conn.Server()
	}
	return ""
}

func (c *candidate) voted() bool { return c.Voted() }

func (c *candidate) vote() {
	if err := c.Vote(context.Background()); err != nil {
		fail(err)
	}
}

func (c *candidate) resign() {
	if err := c.Resign(context.Background()); err != nil {
		fail(err)
	}
}

// transfer writes down what was asked and what it was told. A target that does not
// stand is not asked for.
func (c *candidate) transfer(to string) {
	ballots, err := c.Ballots(context.Background())
	at := slices.IndexFunc(ballots, func(b election.Ballot) bool { return string(b.Data) == to })
	if err != nil || at < 0 {
		c.out.Write(history.Event{Kind: history.Answered, Text: history.NotKnown})
		return
	}
	c.out.Write(history.Event{Kind: history.Asked, Text: to, Token: ballots[at].Token})
	err = c.Transfer(context.Background(), ballots[at])
	outcome := history.NotKnown
	switch {
	case err == nil:
		outcome = history.Done
	// The texts are what an operator goes by, too.
	case strings.Contains(err.Error(), "may still happen"), strings.Contains(err.Error(), "had begun to step down"):
		outcome = history.MayHappen
	case errors.Is(err, election.ErrTransferBlocked), errors.Is(err, election.ErrTransferTargetGone), errors.Is(err, election.ErrTransferUnderWay):
		outcome = history.Nothing
	}
	c.out.Write(history.Event{Kind: history.Answered, Text: outcome})
	logger().Info("agent: transfer", "to", to, "outcome", outcome, "error", err)
}

func (c *candidate) close() { _ = c.session.Close() } // no server may be there

// watchPoke watches a node for as long as the session lives. What comes of it
// does not matter: that something does, while the process is stopped, does.
func watchPoke(conn *zk.Conn, path string) {
	session := conn.SessionID()
	for conn.SessionID() == session {
		_, _, watch, err := conn.ExistsW(path)
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		<-watch
	}
}

func observe(o options) {
	session, err := election.Connect(o.servers, o.timeout, &election.SessionOptions{Dialer: o.dialer, Logger: logger()})
	if err != nil {
		fail(err)
	}
	observer, err := election.NewObserver(session, o.election, nil)
	if err != nil {
		fail(err)
	}
	observer.OnNewLeader(func(l election.Leader) {
		o.out.Write(history.Event{Kind: history.NewLeader, Token: l.Zxid, Text: string(l.Data)})
	})
	observer.OnLeaderDeath(func(l election.Leader) {
		o.out.Write(history.Event{Kind: history.LeaderDeath, Token: l.Zxid, Text: string(l.Data)})
	})
	if err := observer.Observe(context.Background()); err != nil {
		fail(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		continue
	}
	_ = session.Close() // the process ends
}

// dialer connects from an address of the process's own, so that the network
// can tell it from the others.
func dialer(local string, patient bool) zk.Dialer {
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		d := net.Dialer{Timeout: timeout}
		if local != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(local)}
		}
		conn, err := d.Dial(network, address)
		if err == nil && patient {
			conn = patientConn{conn}
		}
		return conn, err
	}
}

// patientConn has no deadlines. After a stop the client otherwise gives up its
// connection more often than not, by a race of timers; without them it goes on
// with what it finds in the socket, which is the harder case.
type patientConn struct{ net.Conn }

func (patientConn) SetDeadline(time.Time) error      { return nil }
func (patientConn) SetReadDeadline(time.Time) error  { return nil }
func (patientConn) SetWriteDeadline(time.Time) error { return nil }

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func fail(err error) {
	slog.Error("agent", "error", err)
	os.Exit(1)
}
