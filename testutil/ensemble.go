package testutil

import (
	"net"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"
)

// A Member is one server of an ensemble, as its clients see it. The first one
// leads in the beginning.
//
// A member that is cut off from the others behaves as ZooKeeper's: it goes on
// serving reads and pings from its last state, a write hangs, and behind a
// hanging write so do the reads and pings of the same session; whom it hears
// from, the leader does not learn. After 5 ticks it closes its connections and
// refuses new ones until it is healed. When the leader is cut off, or no
// majority is left, writes hang on all members; after 5 ticks the ensemble
// drops all clients, and a majority that can talk elects another leader at once.
//
// A write that hangs is not lost with its connection. What waits at a member that is
// cut off goes to the leader when it is healed in time. What has reached a leader
// without a majority it has decided, in the order of arrival, and so it decides the
// end of sessions whose time is over: it becomes true when there is a majority again,
// also after an election, if one of those leads whom it has reached. Of the members
// that can talk the one that has the most of it is elected, else the first.
//
// A member that follows no leader still listens. It answers four-letter words, those
// that are about its state by saying that it does not serve, and closes a connection
// at its handshake.
type Member struct{ m *member }

// Member gives the i-th member of the ensemble, from 0.
func (s *Server) Member(i int) Member { return Member{s.members[i]} }

// Leader is the index of the member that leads, -1 while none does.
func (s *Server) Leader() int {
	s.mu.Lock()
	defer s.unlock()
	return slices.Index(s.members, s.leader)
}

// Addr is the member's host and port, see Server.Addr.
func (m Member) Addr() string { return m.m.Addr() }

// Addr does not change once the server has been made.
func (m *member) Addr() string {
	m.srv.mu.Lock()
	defer m.srv.unlock()
	return m.addr
}

// Dialer connects to this member in memory, whatever the address, see
// Server.Dialer.
func (m Member) Dialer() zk.Dialer {
	return func(_, _ string, timeout time.Duration) (net.Conn, error) { return m.m.dial(timeout) }
}

// Stop kills the member: its connections are cut, and its port refuses new ones.
// When it led, the others see it at once: they drop their clients, and elect
// another leader, if they are a majority. When it followed, they go on; a leader
// that is left without a majority gives up within a tick. Of a member that is cut
// off the others see nothing: they go on as if it were only that, for 5 ticks from
// the cut or until it is healed.
func (m Member) Stop() {
	s := m.m.srv
	s.mu.Lock()
	defer s.unlock()
	if m.m.down() || s.closed {
		return
	}
	m.m.log("member stopped")
	m.m.stop()
	switch {
	case m.m != s.leader:
		s.quorumChanged()
	case m.m.cutAt < 0:
		s.loseLeader((*member).seesTheEnd)
	default:
		s.leader, s.gone = nil, m.m
		s.quorumChanged()
	}
}

// Start ends Stop: the member listens under the address that it had, and serves
// as soon as it follows a leader, caught up with it. It fails when another program
// has taken the port meanwhile, or the server is closed.
func (m Member) Start() error {
	s := m.m.srv
	s.mu.Lock()
	defer s.unlock()
	if !m.m.down() {
		return nil
	}
	m.m.log("member started")
	return s.start([]*member{m.m})
}

// CutOff separates the member from the other members, not from its clients.
func (m Member) CutOff() {
	s := m.m.srv
	s.mu.Lock()
	defer s.unlock()
	if m.m.cutAt >= 0 || s.closed {
		return
	}
	m.m.log("member cut off")
	m.m.fallBehind()
	m.m.cutAt = s.now()
	s.quorumChanged()
}

// Heal ends CutOff. A member that still serves goes on where it stood: it
// applies what it missed, and the writes that hung go through, those of clients that
// have gone included.
func (m Member) Heal() {
	s := m.m.srv
	s.mu.Lock()
	defer s.unlock()
	if m.m.cutAt < 0 || s.closed {
		return
	}
	m.m.log("member healed")
	m.m.cutAt = -1
	if s.gone == m.m {
		s.loseLeader((*member).seesTheEnd) // its connections end now
	}
	if m.m.serving() && (s.leader == nil || m.m.epoch != s.epoch) {
		// The leader that it followed was stopped meanwhile, and another may lead by now.
		m.m.giveUp()
	}
	// What was committed meanwhile is older than what is committed now.
	m.m.catchUp()
	s.commitProposed()
	if s.canCommit() {
		// The leader has gone on looking for expired sessions. Its pings were
		// on their way meanwhile, in front of everything else on the same
		// stream, and so were the answers to them: they arrive first.
		s.expire(s.now())
		s.relay()
	}
	s.quorumChanged()
}

// Lag lets the member fall behind: it does not apply what is committed, so its
// clients read the past, and the answers to their writes and syncs wait. It
// stays in touch with the leader. CatchUp ends it.
func (m Member) Lag() {
	s := m.m.srv
	s.mu.Lock()
	defer s.unlock()
	if s.closed || m.m.lagging {
		return
	}
	m.m.fallBehind()
	m.m.lagging = true
}

// CatchUp ends Lag: the member applies what it missed.
func (m Member) CatchUp() {
	s := m.m.srv
	s.mu.Lock()
	defer s.unlock()
	if s.closed || !m.m.lagging {
		return
	}
	m.m.lagging = false
	m.m.catchUp()
}
