package testutil

import "slices"

// A greeting is what a handshake asks for.
type greeting struct {
	timeout     int32
	session     int64 // to be taken up again; 0 for a new one
	hasReadOnly bool
	// decided says that the member needs nobody to answer it: it is refused, if the connection still lives.
	decided bool
}

// greet does with a handshake what a member does by itself, whether or not it has a way to the leader.
func (k *call) greet() {
	c, m, s := k.c, k.c.m, k.c.srv
	g := &greeting{}
	k.greeting = g
	d := &decoder{b: k.body}
	d.int32() // the protocol's version
	seen := d.int64()
	g.timeout = min(max(d.int32(), s.minTimeout), s.maxTimeout)
	g.session = d.int64()
	password := d.bytes()
	g.hasReadOnly = len(d.b) > 0
	switch {
	case d.err != nil:
		s.logWarn("malformed handshake", "client", c.remote, "error", d.err)
		c.kill(false)
	case seen > m.zxid():
		s.logInfo("client has seen more than this member", "client", c.remote, "session", sessionName(g.session))
		c.kill(false)
	}
	if c.dead {
		g.decided = true
		return
	}
	c.timeout = g.timeout
	if g.session == 0 {
		return
	}
	if old := m.bySession[g.session]; old != nil {
		old.kill(false)
	}
	g.decided = string(password) != string(passwordOf(g.session))
	if !g.decided {
		m.bySession[g.session] = c // whoever comes for it next closes this one
	}
}

// connect answers the handshake: a session begins or goes on here. It is false
// when the answer has to wait for this member to catch up.
func (k *call) connect() bool {
	c, m, s, g := k.c, k.c.m, k.c.srv, k.greeting
	if g.decided && c.dead {
		return true
	}
	if g.session != 0 || g.decided {
		k.resumeSession()
		return true
	}
	id := m.nextID
	m.nextID++
	s.sessions[id] = &session{id: id, timeout: g.timeout, clock: k.clock, owner: m, expireAt: s.expiry(g.timeout, k.clock)}
	s.poke()
	c.bind(id)
	s.logInfo("session begins", "session", sessionName(id), "timeout", g.timeout, "client", c.remote)
	return k.propose(&txn{op: OpConnect, zxid: s.nextZxid(), time: s.wallTime(), session: id, timeout: g.timeout}, func(result) {
		k.noteAnswer(OpConnect.short())
		c.welcome(g.hasReadOnly)
	})
}

// bind makes the connection that of a session, unless it has ended by now.
func (c *conn) bind(id int64) {
	c.session = id
	if !c.dead {
		c.m.bySession[id] = c
	}
}

func (k *call) resumeSession() {
	c, m, s, g := k.c, k.c.m, k.c.srv, k.greeting
	x := s.sessions[g.session]
	if g.decided || x == nil || x.closing {
		s.logInfo("no such session", "session", sessionName(g.session), "client", c.remote)
		c.timeout = 0
		c.welcome(g.hasReadOnly)
		c.kill(true)
		return
	}
	s.touch(x, c.timeout)
	x.owner = m
	// A follower passes the question on, and counts it as no sign of life of its own.
	c.bind(g.session)
	s.logInfo("session resumed", "session", sessionName(g.session), "client", c.remote)
	c.welcome(g.hasReadOnly)
}

// standBehind has a connection that has taken up a session wait for what that one has asked of this member and is
// not answered: ZooKeeper keeps the requests of a session in order, whichever connection they come by. It is false when
// there is nothing to wait for.
func (c *conn) standBehind() bool {
	last := c.m.hanging(c.session)
	if last == nil || c.dead {
		return false
	}
	last.successor = c
	return true
}

// hanging is the last request of a session that waits at this member for the ensemble, nil for none.
func (m *member) hanging(id int64) *call {
	its := func(k *call) bool { return k != nil && !k.handshake && k.c.m == m && k.c.session == id }
	for _, k := range slices.Backward(m.waiting) {
		if its(k) {
			return k
		}
	}
	for _, p := range slices.Backward(m.srv.proposed) {
		if its(p.k) {
			return p.k
		}
	}
	for _, p := range slices.Backward(m.backlog) {
		if its(p.k) {
			return p.k
		}
	}
	return nil
}

// welcome answers the handshake; without a session it says that it is gone.
func (c *conn) welcome(hasReadOnly bool) {
	password := make([]byte, 16)
	if c.session != 0 {
		password = passwordOf(c.session)
	}
	e := &encoder{b: make([]byte, 4, 64)}
	e.int32(0) // the protocol's version
	e.int32(c.timeout)
	e.int64(c.session)
	e.bytes(password)
	if hasReadOnly {
		e.bool(false)
	}
	c.send(e.frame())
}
