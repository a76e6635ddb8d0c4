// Package election elects a leader among processes by ZooKeeper, so that
// there are never two, and tells everybody else who it is.
//
// Connect makes a Session, which is one ZooKeeper connection. On it NewCandidate
// makes what wants to lead, and NewObserver what wants to know who leads.
//
//	session, err := election.Connect([]string{"zk1:2181", "zk2:2181", "zk3:2181"}, 10*time.Second, nil)
//	if err != nil {
//		return err
//	}
//	defer session.Close() // steps down, withdraws the ballot, disconnects
//
//	c, err := election.NewCandidate(session, "reports", nil)
//	if err != nil {
//		return err
//	}
//	return c.Run(ctx, func(ctx context.Context, term election.Term) error {
//		return work(ctx, term.Token) // ctx ends the moment that leadership is lost
//	})
//
// Candidate.Run suits a function that only the leader may run.
// Candidate.Campaign blocks until this process leads. Candidate.Vote, with the
// callbacks OnWin, OnLose and OnStepDown, suits a service that switches roles.
// Observer.Observe follows the leader from outside.
//
// Package testutil has a ZooKeeper for tests, in virtual time if wanted; package
// health answers probes over HTTP; package guard closes the session of a process
// that has died; the command zkelect holds elections from the shell.
//
// # The election
//
// A candidate stands by its ballot, an ephemeral, sequential node. The lowest
// ballot is the leader's. Each other candidate watches the next lower one, so
// that a departure wakes its successor and not the crowd.
//
// A candidate leads only under a lease. Heartbeats, small writes that nobody but
// a quorum can answer, show that its session lives, and the lease ends before
// that session can expire.
//
// When it has won, its OnWin functions take over, with a context that ends the
// moment leadership is lost. When they have returned nil the candidate
// acknowledges: it writes the node leader_ack, which holds its data, on the
// condition that its ballot exists. Only then are the OnLose functions of the
// others called, and the OnNewLeader functions of observers, with that data.
//
// When an OnWin function fails nothing is acknowledged. The candidate withdraws
// its ballot, so that the next can try, and votes again after a pause.
//
// Leadership ends by Resign, Close or a Transfer, by a failed takeover, or when the lease,
// the session or the ballot is lost. Then IsLeader is false and the leader's
// context has ended before anything else is done, and the OnStepDown functions
// are called once. A leader that leaves on purpose withdraws its ballot when they
// have returned, or after StepDownTimeout: its work is over before the next
// leader's begins.
//
// After the loss of a session the candidate votes again by itself, until Resign,
// Close, or a refusal by the servers that a caller was told of.
//
// # What is guaranteed
//
// At any time IsLeader is true for at most one candidate of an election, through
// crashes, pauses, partitions and whatever else befalls processes, network and
// servers. OnWin and OnStepDown alternate strictly, and all callbacks of a
// candidate or observer run one at a time, in order. Along the line of leaders the
// fencing token, Term.Token, never falls. An acknowledgement is never written
// without its ballot. Whatever reply is lost, a candidate has at most one ballot
// that lasts, and it is served. After a Close that returned nil no callback runs,
// and neither ballot nor acknowledgement is left (of a session given up before, until it ends).
//
// This assumes:
//
//   - Clocks run at rates that agree within a twelfth of the session timeout T
//     in each T.
//   - SessionOptions.TickTime is not less than the tick of the servers, or else
//     it is left out and T is at least two ticks.
//   - The timeout given to NewSession is the negotiated one, and all servers bound session
//     timeouts alike.
//   - The ensemble's leader pings its followers every half tick, as ZooKeeper's
//     does, and ZooKeeper expires no session before its time. No candidate is the
//     client of a ZooKeeper observer behind a follower's observerMasterPort.
//
// # What is not
//
// Code that was stopped between asking IsLeader and acting acts late: no lease
// can help. Have the store that it writes to refuse tokens lower than the highest
// it has seen, or, for data in the same ZooKeeper, put Term.Guard first in each
// multi.
//
// Nobody leads between the end of a dead leader's lease and the end of its
// session, which ZooKeeper rounds up to its ticks: T after its death, and a
// little. Candidates lead in the order of their ballots, which Priority changes
// among those that wait, as far as it can; a leader stays, but for Transfer. An
// Observer may skip leaders that come and go between two reads, but never the
// present one.
//
// Beyond the guarantee are a ballot deleted by hand (its owner is told and steps
// down, but the next one leads at once), an ensemble that was restored from a
// backup or replaced (tokens go back), a hypervisor that stops machine and clocks
// together, and members that are not this library: with a member of the Ruby zk
// gem, whose layout of nodes this is, an election has the gem's guarantees.
//
// docs/protocol.md in the repository argues why all this holds.
package election
