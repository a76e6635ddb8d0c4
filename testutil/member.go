package testutil

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// A member is one server of the ensemble. Without an ensemble there is one, and
// it leads.
type member struct {
	srv   *Server
	index int // constant

	// The rest is guarded by the server's mutex.
	ln        net.Listener
	addr      string
	clients   map[*conn]struct{} // connections that are not dead
	bySession map[int64]*conn
	watches   *watches
	// tree is what this member serves: the server's own while the member is in
	// step, a copy when it is not.
	tree *tree
	// backlog holds what was committed since the member fell out of step.
	backlog []*proposal
	heard   map[int64]int32 // sessions and timeouts to pass on to the leader
	cutAt   int64           // when it was cut off, -1 while it is not
	lagging bool
	refuses bool // has given up its clients and takes no new ones
	nextID  int64
	dials   int
}

// A proposal is a committed transaction that a member has yet to apply, and the
// answer to the client of this member that asked for it, if one did.
type proposal struct {
	x       *txn
	deliver func()
}

func newMember(s *Server, index int) *member {
	m := &member{
		srv: s, index: index, tree: s.tree, cutAt: -1,
		clients: make(map[*conn]struct{}), bySession: make(map[int64]*conn),
		watches: newWatches(), heard: make(map[int64]int32),
		nextID: firstSessionID(index),
	}
	if !s.listen {
		m.addr = fmt.Sprintf("127.0.0.%d:2181", index+1)
	}
	return m
}

// serving tells whether the member has, or may have, clients.
func (m *member) serving() bool { return !m.srv.stopped && !m.refuses }

// inStep tells whether the member applies transactions as they are committed.
func (m *member) inStep() bool { return m.cutAt < 0 && !m.lagging && !m.refuses }

// canCommit tells whether writes are possible: the leader reaches a majority.
func (s *Server) canCommit() bool {
	return s.leader != nil && s.leader.cutAt < 0 && s.connected() > len(s.members)/2
}

// connected counts the members that can talk to each other.
func (s *Server) connected() int {
	n := 0
	for _, m := range s.members {
		if m.cutAt < 0 {
			n++
		}
	}
	return n
}

// untilPulse is the time from one of the leader's pings to the next, in
// milliseconds.
func (s *Server) untilPulse() int64 {
	return max(1, s.tick.Milliseconds()/2) + max(0, s.pingDelay().Milliseconds())
}

// pulseIfDue is the leader's ping: the followers that it reaches answer with the
// sessions that they have heard of since the last one.
func (s *Server) pulseIfDue(now int64) {
	if len(s.members) == 1 || now < s.nextPulse {
		return
	}
	s.nextPulse = now + s.untilPulse()
	s.relay()
}

// relay lets the followers that the leader reaches pass on whom they heard.
func (s *Server) relay() {
	if s.leader == nil || s.leader.cutAt >= 0 {
		return
	}
	for _, m := range s.members {
		if m == s.leader || m.cutAt >= 0 {
			continue
		}
		for id, timeout := range m.heard {
			if x := s.sessions[id]; x != nil {
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
	if s.noQuorumAt < 0 || s.leader == nil || now < s.noQuorumAt+limit {
		return
	}
	for _, m := range s.members {
		m.giveUp()
	}
	s.leader = nil
	s.elect()
}

func (s *Server) membersDue(at func(int64)) {
	if len(s.members) == 1 {
		return
	}
	at(s.nextPulse)
	limit := syncLimit * s.tick.Milliseconds()
	for _, m := range s.members {
		if m.cutAt >= 0 && !m.refuses {
			at(m.cutAt + limit)
		}
	}
	if s.noQuorumAt >= 0 && s.leader != nil {
		at(s.noQuorumAt + limit)
	}
}

// elect makes the first member that can talk to a majority the leader, in a new
// epoch, with every session's whole timeout before it.
func (s *Server) elect() {
	if s.connected() <= len(s.members)/2 {
		return
	}
	for _, m := range s.members {
		if m.cutAt < 0 {
			m.rejoin()
			if s.leader == nil {
				s.leader = m
			}
		}
	}
	if len(s.members) > 1 {
		s.epoch++
		s.zxid = s.epoch << 32
		s.log.Info("member leads", "member", s.leader.index, "epoch", s.epoch)
	}
	s.noQuorumAt = -1
	for _, x := range s.sessions {
		s.touch(x, x.timeout)
		x.owner = s.leader
	}
	s.broadcast()
}

// quorumChanged notes since when writes are impossible, or lets them go on.
func (s *Server) quorumChanged() {
	switch {
	case s.leader == nil:
		s.elect()
	case s.canCommit():
		s.noQuorumAt = -1
	case s.noQuorumAt < 0:
		s.noQuorumAt = s.now()
	}
	s.broadcast()
	s.poke()
}

// giveUp drops the clients and takes no more until the member is in the
// ensemble again.
func (m *member) giveUp() {
	m.log("member gives up its clients")
	m.dropClients()
	m.refuses = true
	m.backlog = nil
}

func (m *member) log(message string) { m.srv.log.Info(message, "member", m.index) }

// rejoin brings a member without clients back into step.
func (m *member) rejoin() {
	m.refuses = m.cutAt >= 0
	m.backlog = nil
	clear(m.heard)
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
		m.tree.apply(p.x, m.watches.fire)
		if p.deliver != nil {
			p.deliver()
		}
		m.committed(p.x)
	}
	m.tree = m.srv.tree
	m.srv.broadcast()
}

// committed is what a member does beyond the tree when it applies a transaction:
// it closes the connection of a session that has ended.
func (m *member) committed(x *txn) {
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
	if !m.srv.listen {
		return nil
	}
	ln, err := listenOn(m.addr)
	if err != nil {
		return err
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
	m.srv.mu.Unlock()
	clientEnd, serverEnd := newPipe(client, pipeAddr(addr))
	if !m.serve(serverEnd) {
		return nil, refused(addr)
	}
	return clientEnd, nil
}
