package testutil

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"
)

// A session is what the ensemble's leader knows of a client.
type session struct {
	id int64
	// timeout is the one negotiated when the session began, in milliseconds; a
	// connection that resumes it may have negotiated another.
	timeout int32
	// clock is the rate of the client's clock as compared with the ensemble's.
	clock float64
	// expireAt is the tick boundary at which the session is over unless it is
	// heard of before, in milliseconds of the server's clock.
	expireAt int64
	// owner is the member through which the session may write: the one it was
	// last connected to.
	owner *member
	// closing says that the leader has decided that it ends: it hears no more of it.
	closing bool
}

// passwordSeed makes passwords differ from session numbers. It is no secret:
// this server guards nothing.
const passwordSeed = 0x5bd1e9955bd1e995

// passwordOf is the password of a session. It is computed, as ZooKeeper does,
// so that every member knows it.
func passwordOf(id int64) []byte {
	x := uint64(id) ^ passwordSeed
	p := make([]byte, 0, 16)
	for range 2 {
		x ^= x >> 30
		x *= 0xbf58476d1ce4e5b9
		x ^= x >> 27
		x *= 0x94d049bb133111eb
		x ^= x >> 31
		p = binary.BigEndian.AppendUint64(p, x)
	}
	return p
}

// firstSessionID is where a member begins to number its sessions: its own
// number on top, the time below, so that they do not repeat.
func firstSessionID(member int) int64 {
	return int64(uint64(time.Now().UnixMilli())<<24>>8) | int64(member+1)<<56
}

// expiry rounds the end of a timeout up to the next tick, as ZooKeeper does: it
// looks for expired sessions once a tick. Ticks and timeout are counted by the
// ensemble's clock, which for this client may run at another rate than its own.
func (s *Server) expiry(timeout int32, clock float64) int64 {
	tick := s.tick.Milliseconds()
	now := int64(float64(s.now()) / clock)
	return int64(math.Ceil(float64((now+int64(timeout))/tick*tick+tick) * clock))
}

// clockOfClient is called without the lock. Whoever waits here waits for a channel,
// which a bubble of synctest sees, and not for a mutex.
func (s *Server) clockOfClient() float64 {
	s.clocking <- struct{}{}
	defer func() { <-s.clocking }()
	return s.clientClock()
}

// touch notes that the leader has heard of a session.
func (s *Server) touch(x *session, timeout int32) {
	before := x.expireAt
	x.expireAt = s.expiry(timeout, x.clock)
	if x.expireAt < before {
		s.poke() // it was resumed with a shorter timeout
	}
}

// hear notes that a member has heard of a session from its client. It is false
// when the member knows that there is no such session: then the request is
// dropped. Only the leader knows; a follower collects what it hears and passes
// it on with its next answer to the leader's pings.
func (m *member) hear(id int64, timeout int32) bool {
	s := m.srv
	if m != s.leader {
		m.heard[id] = timeout
		return true
	}
	x := s.sessions[id]
	if x == nil || x.closing {
		return false
	}
	s.touch(x, timeout)
	return true
}

// mayWrite is the leader's check of a write that came through a member.
func (s *Server) mayWrite(id int64, m *member) code {
	x := s.sessions[id]
	switch {
	case x == nil || x.closing:
		return codeSessionExpired
	case x.owner != m:
		return codeSessionMoved
	}
	return codeOK
}

// expire ends the sessions whose time is over, those that end at the same tick
// in the order of their numbers.
func (s *Server) expire(now int64) {
	var due []*session
	for _, x := range s.sessions {
		if x.expireAt <= now && !x.closing {
			due = append(due, x)
		}
	}
	slices.SortFunc(due, func(a, b *session) int {
		return cmp.Or(cmp.Compare(a.expireAt, b.expireAt), cmp.Compare(a.id, b.id))
	})
	for _, x := range due {
		s.logInfo("session expired", "session", sessionName(x.id))
		if end := s.endOf(x.id); s.free() {
			s.commit(end)
		} else {
			s.await(end, nil, nil)
		}
	}
}

// endOf is the end of a session, as the leader decides it: one transaction deletes all its
// ephemeral nodes, and the members close its connections as they learn of it.
func (s *Server) endOf(id int64) *txn {
	if x := s.sessions[id]; x != nil {
		x.closing = true
	}
	return &txn{op: OpClose, zxid: s.nextZxid(), time: s.wallTime(), session: id}
}

// endSession ends a session because the test wants it: at once, majority or not. Only where
// writes wait for one it comes behind them, whoever leads then.
func (s *Server) endSession(id int64) {
	x := s.endOf(id)
	if len(s.proposed) == 0 {
		s.commit(x)
		return
	}
	p := s.await(x, nil, nil)
	for i := range p.logged {
		p.logged[i] = true
	}
}

// ExpireSession ends a session as the ensemble does when it has not heard of the
// client for too long: its ephemeral nodes are deleted in one transaction and
// its connection is closed. It is false when there is no such session. An
// ensemble would not do it so early, and a guarantee that rests on the session
// timeout need not hold until the client has heard of it: for an expiry as it
// really happens see Isolate. While writes wait for a majority it waits behind them.
func (s *Server) ExpireSession(id int64) bool {
	s.mu.Lock()
	defer s.unlock()
	if s.closed || s.sessions[id] == nil {
		return false
	}
	s.endSession(id)
	return true
}

// SessionInfo describes a live session.
type SessionInfo struct {
	ID int64
	// Timeout is the negotiated one.
	Timeout time.Duration
	// Member is the index of the member through which the session writes; 0
	// without an ensemble.
	Member int
	// Addr is the client's address there; "" when it is not connected.
	Addr string
	// ExpiresIn is the time left unless the leader hears of the session.
	ExpiresIn time.Duration
	// Ephemerals are the paths of its ephemeral nodes, sorted.
	Ephemerals []string
}

// Connected reports whether the session has a connection at the moment.
func (i SessionInfo) Connected() bool { return i.Addr != "" }

// Sessions lists the live sessions in the order of their IDs.
func (s *Server) Sessions() []SessionInfo {
	s.mu.Lock()
	defer s.unlock()
	return s.sessionInfos()
}

func (s *Server) sessionInfos() []SessionInfo {
	infos := make([]SessionInfo, 0, len(s.sessions))
	for _, x := range s.sessions {
		info := SessionInfo{
			ID:         x.id,
			Timeout:    time.Duration(x.timeout) * time.Millisecond,
			Member:     x.owner.index,
			ExpiresIn:  time.Duration(x.expireAt-s.now()) * time.Millisecond,
			Ephemerals: slices.Sorted(slices.Values(s.tree.ephemeralsOf(x.id))),
		}
		if c := x.owner.bySession[x.id]; c != nil && c.session != 0 {
			info.Addr = c.remote
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b SessionInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos
}
