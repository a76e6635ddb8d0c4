package testutil

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/zkelection/election/internal/port"
)

// A member is one server of the ensemble. Without an ensemble there is one, and
// it leads.
type member struct {
	srv   *Server
	index int // constant

	// The rest is guarded by the server's mutex.
	ln        net.Listener
	port      port.Port // claimed until the server is closed; none with NoListen
	addr      string
	clients   map[*conn]struct{} // connections that are not dead
	bySession map[int64]*conn
	watches   *watches
	// tree is what this member serves: the server's own while the member is in
	// step, a copy when it is not.
	tree *tree
	// backlog holds what was committed since the member fell out of step.
	backlog []*proposal
	// waiting are the writes, syncs and handshakes that have no way to the leader, in order. They
	// go there though the connection may have ended by then, unless the member gives up.
	waiting []*call
	heard   map[int64]int32 // sessions and timeouts to pass on to the leader
	upAt    int64           // when it began to follow its leader, or to lead
	downAt  int64           // when it was stopped, -1 while it runs
	cutAt   int64           // when it was cut off, -1 while it is not
	lagging bool
	refuses bool  // follows no leader, so it has no clients and takes none
	epoch   int64 // of the leader that it follows, or followed last
	floor   int64 // what it shows for a zxid until there is a newer one, see zxid
	nextID  int64
	dials   int
	packets packetCount
}

// A proposal is a committed transaction that a member has yet to apply, and the
// request of a client of this member that asked for it, with its answer, if one did. A
// sync has its place among them, and no transaction.
type proposal struct {
	x      *txn
	k      *call
	answer func()
}

func newMember(s *Server, index int) *member {
	m := &member{
		srv: s, index: index, tree: s.tree, downAt: 0, cutAt: -1, refuses: true,
		clients: make(map[*conn]struct{}), bySession: make(map[int64]*conn),
		watches: newWatches(s.release), heard: make(map[int64]int32),
		nextID: firstSessionID(index),
	}
	if !s.listen {
		// A multicast address of the block for documentation: no TCP connection is made
		// to one, so that who forgets the Dialer meets no other ZooKeeper, and hears of
		// it at once.
		m.addr = fmt.Sprintf("233.252.0.%d:2181", index+1)
	}
	return m
}

func (m *member) down() bool { return m.downAt >= 0 }

// connected reports whether the member can talk to the other members.
func (m *member) connected() bool { return !m.down() && m.cutAt < 0 }

// zxid is what the member shows as that of its state. A new leader counts the beginning of its
// epoch as one. (So does a follower that has been sent a whole tree, which is not modelled:
// the others bring theirs up to date, and learn of the epoch with the first transaction.)
func (m *member) zxid() int64 { return max(m.tree.lastZxid, m.floor) }

// serving reports whether the member has, or may have, clients.
func (m *member) serving() bool { return !m.refuses }

// inStep reports whether the member applies transactions as they are committed.
func (m *member) inStep() bool { return m.connected() && !m.lagging && !m.refuses }

// canCommit reports whether writes are possible: the leader reaches a majority.
func (s *Server) canCommit() bool {
	return s.leader != nil && s.leader.connected() && s.connected() > len(s.members)/2
}

// connected counts the members that can talk to each other.
func (s *Server) connected() int {
	n := 0
	for _, m := range s.members {
		if m.connected() {
			n++
		}
	}
	return n
}

// setPulse says from when the time to the leader's next ping counts. How late that
// is the clock's goroutine asks, which does not hold the lock meanwhile.
func (s *Server) setPulse(from int64) {
	s.pulseFrom, s.nextPulse = from, -1
}

// delayPulse says how late the next ping is.
func (s *Server) delayPulse(delay time.Duration) {
	s.nextPulse = s.pulseFrom + max(1, s.tick.Milliseconds()/2) + max(0, delay.Milliseconds())
}

// pulseUnknown reports whether nobody has said yet how late the next ping is.
func (s *Server) pulseUnknown() bool { return len(s.members) > 1 && s.leader != nil && s.nextPulse < 0 }

// pulseIfDue is the leader's ping: the followers that it reaches answer with the
// sessions that they have heard of since the last one.
func (s *Server) pulseIfDue(now int64) {
	if len(s.members) == 1 || s.nextPulse < 0 || now < s.nextPulse {
		return
	}
	s.setPulse(now)
	s.relay()
}

// relay lets the followers that the leader reaches pass on whom they heard.
func (s *Server) relay() {
	if s.leader == nil || !s.leader.connected() {
		return
	}
	for _, m := range s.members {
		if m == s.leader || !m.connected() {
			continue
		}
		for id, timeout := range m.heard {
			if x := s.sessions[id]; x != nil && !x.closing {
				s.touch(x, timeout)
			}
		}
		clear(m.heard)
	}
}

// giveUpMembers lets syncLimit ticks pass: then a member that is cut off drops
// its clients, and an ensemble that cannot commit drops all and elects again.
func (s *Server) giveUpMembers(now int64) {
	limit := syncLimit * s.tick.Milliseconds()
	for _, m := range s.members {
		if m.cutAt >= 0 && !m.refuses && now >= m.cutAt+limit {
			m.giveUp()
		}
	}
	if at, ok := s.leaderGivesUpAt(); ok && now >= at {
		s.loseLeader((*member).serving)
	}
}

// loseLeader makes the members that notice it drop their clients, and elect.
func (s *Server) loseLeader(notices func(*member) bool) {
	s.leader, s.gone = nil, nil
	for _, m := range s.members {
		if notices(m) {
			m.giveUp()
		}
	}
	s.quorumChanged()
}

// seesTheEnd reports whether a member notices at once that the leader's connection to it has
// ended: nobody sees anything who is cut off.
func (m *member) seesTheEnd() bool { return m.connected() && m.serving() }

// leaderGivesUpAt is when the leader will have lost its majority, or the majority its
// leader. It counts on a member that is cut off for syncLimit ticks; of one that was
// stopped it sees the connection end, unless a cut was in between, and it looks at the
// connections once a tick.
func (s *Server) leaderGivesUpAt() (at int64, ok bool) {
	tick := s.tick.Milliseconds()
	if s.gone != nil {
		return s.gone.cutAt + syncLimit*tick, true
	}
	if s.leader == nil {
		return 0, false
	}
	var lost []int64
	for _, m := range s.members {
		if m == s.leader {
			continue
		}
		var ends []int64
		if m.down() && !m.cutBefore(m.downAt) && !s.leader.cutBefore(m.downAt) {
			ends = append(ends, m.downAt+tick)
		}
		for _, cut := range []int64{m.cutAt, s.leader.cutAt} {
			if cut >= 0 {
				ends = append(ends, cut+syncLimit*tick)
			}
		}
		if len(ends) > 0 {
			lost = append(lost, slices.Min(ends))
		}
	}
	slices.Sort(lost)
	enough := len(s.members) - len(s.members)/2
	if len(lost) < enough {
		return 0, false
	}
	return lost[enough-1], true
}

func (m *member) cutBefore(at int64) bool { return m.cutAt >= 0 && m.cutAt <= at }

func (s *Server) membersDue(at func(int64)) {
	if len(s.members) == 1 {
		return
	}
	if s.leader != nil && s.nextPulse >= 0 {
		at(s.nextPulse)
	}
	limit := syncLimit * s.tick.Milliseconds()
	for _, m := range s.members {
		if m.cutAt >= 0 && !m.refuses {
			at(m.cutAt + limit)
		}
	}
	if t, ok := s.leaderGivesUpAt(); ok {
		at(t)
	}
}

// elect makes the first member that can talk to a majority the leader, or who has logged
// more than that one, in a new epoch, with every session's whole timeout before it.
func (s *Server) elect() {
	if s.connected() <= len(s.members)/2 {
		return
	}
	s.leader = s.longestLog()
	s.inherit()
	if len(s.members) > 1 {
		s.epoch++
		s.zxid = s.epoch << 32
		s.leader.floor = s.zxid
		s.logInfo("member leads", "member", s.leader.index, "epoch", s.epoch)
	}
	s.setPulse(s.now())
	s.sweepsFrom = s.now()
	s.setSweep()
	for _, x := range s.sessions {
		x.closing = false // the other leader has not brought it to an end
		s.touch(x, x.timeout)
		x.owner = s.leader
	}
}

// quorumChanged is called when a member can talk to the others again or not any
// more. Without a leader a majority elects one, as soon as it knows; a member that
// reaches the leader follows it.
func (s *Server) quorumChanged() {
	if s.leader == nil && s.gone == nil {
		s.elect()
	}
	if s.leader != nil && s.leader.connected() {
		for _, m := range s.members {
			if m.refuses && m.connected() {
				m.rejoin()
			}
		}
	}
	s.spread()
	s.commitProposed()
	s.goOn()
	s.poke()
}

// stop ends the member's process: it leaves nothing behind but the tree, which
// the others have too, and its log.
func (m *member) stop() {
	if m.down() {
		return
	}
	m.closeListener()
	m.giveUp()
	m.downAt = m.srv.now()
}

// giveUp drops the clients and takes no more until the member is in the
// ensemble again.
func (m *member) giveUp() {
	m.log("member gives up its clients")
	m.dropClients()
	m.refuses = true
	m.backlog, m.waiting = nil, nil
	for _, p := range m.srv.proposed {
		if p.k != nil && p.k.c.m == m {
			p.k = nil // it begins anew, and knows of no request
		}
	}
	clear(m.heard)
}

func (m *member) log(message string) { m.srv.logInfo(message, "member", m.index) }

// rejoin lets a member without clients follow the leader, caught up with it.
func (m *member) rejoin() {
	m.refuses = false
	m.upAt, m.packets = m.srv.now(), packetCount{} // as those of a server that begins anew
	m.epoch = m.srv.epoch
	if m != m.srv.leader {
		m.floor = 0
	}
	m.tree = m.srv.tree
	if m.lagging {
		m.tree = m.tree.clone()
	}
}

// fallBehind gives the member its own copy of the tree.
func (m *member) fallBehind() {
	if m.tree == m.srv.tree {
		m.tree = m.tree.clone()
	}
}

// catchUp applies what the member missed, event by event, and lets it share the
// tree again.
func (m *member) catchUp() {
	if !m.inStep() || m.tree == m.srv.tree {
		return
	}
	backlog := m.backlog
	m.backlog = nil
	for _, p := range backlog {
		if p.x != nil {
			m.tree.apply(p.x, m.watches.fire)
		}
		if p.k != nil {
			p.k.turn()
			p.answer()
			p.k.finish()
		}
		if p.x != nil {
			m.committed(p.x)
		}
	}
	m.tree = m.srv.tree
}

// committed is what a member does beyond the tree when it applies a transaction:
// it closes the connection of a session that has ended. A follower counts as heard
// of a session that begins, with the timeout that it had then: whoever the session is
// with, and however late the follower learns of it.
func (m *member) committed(x *txn) {
	if x.op == OpConnect && m != m.srv.leader {
		m.heard[x.session] = x.timeout
	}
	if x.op != OpClose {
		return
	}
	delete(m.heard, x.session)
	if c := m.bySession[x.session]; c != nil && !c.closing {
		c.kill(true)
	}
}

func (m *member) dropClients() {
	for c := range m.clients {
		c.kill(false)
	}
}

func (m *member) openListener() error {
	if !m.srv.listen || m.ln != nil {
		return nil
	}
	var ln net.Listener
	var err error
	if m.port.Address == "" {
		m.port, ln, err = port.Listen("127.0.0.1")
	} else {
		ln, err = m.port.ListenAgain()
	}
	if err != nil {
		return fmt.Errorf("testutil: %w", err)
	}
	m.ln, m.addr = ln, ln.Addr().String()
	m.srv.spawn(func() { m.accept(ln) })
	return nil
}

func (m *member) closeListener() {
	if m.ln != nil {
		_ = m.ln.Close()
		m.ln = nil
	}
}

func (m *member) accept(ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		if !m.serve(nc) {
			_ = nc.Close()
		}
	}
}

// dial connects in memory.
func (m *member) dial(timeout time.Duration) (net.Conn, error) {
	if err := m.srv.reach(m.Addr(), timeout); err != nil {
		return nil, err
	}
	m.srv.mu.Lock()
	m.dials++
	client := pipeAddr("127.0.0.1:" + strconv.Itoa(m.dials))
	addr := m.addr
	m.srv.unlock()
	clientEnd, serverEnd := newPipe(client, pipeAddr(addr))
	if !m.serve(serverEnd) {
		return nil, refused(addr)
	}
	return clientEnd, nil
}
