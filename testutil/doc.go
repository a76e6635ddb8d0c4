// Package testutil gives a test a ZooKeeper inside its own process, in pure Go.
//
// # The server in the process
//
// NewServer starts a server in well under a millisecond. It speaks ZooKeeper's
// wire protocol, so unmodified clients of any language work on it over TCP:
//
//	srv, err := testutil.NewServer(nil)
//	defer srv.Close()
//	conn, _, err := zk.Connect([]string{srv.Addr()}, 10*time.Second)
//
// It behaves as ZooKeeper 3.9 does, or as 3.8 when ServerOptions.Release says so,
// and a conformance test compares it with both, answer by answer: zxids and every field of a Stat, sequence numbers and the
// end of their counter, ephemeral nodes, sessions that expire at whole ticks and
// move between connections, watches and the order of their events, multis that
// are all or nothing, access rights, size limits, requests that no client sends, and the order in which children
// are listed, which is no order to rely on. Three members are compared with an ensemble of 3.9. It is for tests, examples and
// trying things out. It keeps nothing on disk, guards nothing, and is not for
// production: run a real ensemble there.
//
// # Virtual time
//
// Dialer connects in memory, without sockets. Inside testing/synctest the server
// and its clients then live in virtual time: an hour of heartbeats, expiries and
// failovers takes milliseconds, and a test knows to the tick when what happens.
//
//	virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
//		conn, events, err := zk.Connect([]string{srv.Addr()}, 10*time.Second, zk.WithDialer(srv.Dialer()))
//		time.Sleep(time.Hour)
//	})
//
// Package virtualtime, below this one, is the set-up. Without it: the server must
// be made inside the bubble, with NoListen, and closed before its end. So must the
// client in any case, whose event channel is to be drained until it closes.
//
// # Faults
//
// Control sees each request before it is applied and decides its fate: Pass,
// LoseRequest, LoseReply, CutAfter, Fail, Delay, Hold, DelayReply, HoldReply,
// ExpireBefore, ExpireAfter. A function can be written for one request among
// many: it is told the operation, path, session and content.
//
//	// The first answer to a create is lost, though the node is created.
//	srv.Control(testutil.OpCreate, testutil.Once(testutil.LoseReply))
//
// ExpireSession ends a session as the ensemble would, Isolate lets nothing pass
// between a client and the server (IsolateAll: anybody), DropConnections cuts everybody, Stop and
// Start are a restart with the data kept. Counts tells how many requests of each
// kind have come, to hold a program to a budget; Sessions, Watches and Dump show
// what there is.
//
// With Members: 3 the server is an ensemble as its clients see it. Member(i) can
// be killed and started again, which makes a rolling restart; it can be cut off
// from the others, then it goes on answering reads and pings for 5 ticks while its
// clients' sessions expire elsewhere; or it can lag and show the past. A write that
// hangs for want of a majority survives as it does in ZooKeeper, see Member. Elections
// among the members take no time, and no messages: what passes between the servers
// is not modelled beyond what clients can notice.
//
// # What is left out
//
// SASL (answered as by a ZooKeeper that has none configured), X.509, TLS and
// quotas; reconfiguration (answered with ReconfigDisabled);
// read-only mode and local sessions; request throttling; the admin server, JMX
// and metrics beyond a short mntr; four-letter words other than ruok, isro, srvr,
// stat, mntr, conf, cons, crst, srst, wchs, wchp, wchc, dump and envi. Operations that are not known are
// answered with Unimplemented, and the connection closes; so is createSession (-10) of a
// client that has a session, which ZooKeeper answers with another handshake. (A
// connection that has watched a null path is closed at its end, by 3.8 never.) Nodes with a time to
// live work as with zookeeper.extendedTypesEnabled=true. Watch events are kept
// from clients that may not read the node, as since 3.8.4 and in Debian's 3.8.0.
//
// Some things are simpler than they are. A connection that brings no handshake is
// closed after 10 s; ZooKeeper looks at such connections every 10 s, and so takes 10
// to 20 s from the last byte. In an ensemble of 3.9 a write that cannot be read is
// answered with MarshallingError and that is all; the real one proposes it under a zxid
// that has been used, and commits nothing from then on. What a client sends behind a
// write that hangs is passed on as it comes in, as in the real one, but for what a
// control function is to see, and what is behind that. A leader without a majority deletes no
// containers. The word dump lists the
// connections without the times at which ZooKeeper would look at them.
//
// A connection that is silent is closed for that only before its handshake, and ZooKeeper
// closes any that has been silent for its session's timeout, such as one whose session
// has moved to another member. Started a second time ZooKeeper has read its nodes from a
// snapshot, and may list the children of a node that once had more of them in
// another order.
//
// # The real one
//
// Package realzk, below this one, starts a real ZooKeeper from a local installation,
// so that the same test can run on both.
package testutil
