package testutil

// A proposed is a write that the leader has decided, and cannot commit for want of a
// majority, or a sync behind one. As in ZooKeeper a write is in the logs of those whom it
// has reached: whoever of them leads next makes it true, whether or not somebody still
// waits for the answer. Those of the server are guarded by its mutex, and empty while the
// leader has a majority.
type proposed struct {
	x *txn // nil for a sync
	// k is the request, to be answered when it is committed under the leader that has decided
	// it; nil where there is none.
	k      *call
	answer func(result)
	// logged says, by member, who has it in its log.
	logged []bool
}

// newest is the tree as the leader's decisions will have made it, but for what it does not judge by: see foresee.
func (s *Server) newest() *tree {
	if len(s.proposed) > 0 {
		return s.ahead
	}
	return s.tree
}

// free reports whether what the leader decides can be committed at once.
func (s *Server) free() bool { return s.canCommit() && len(s.proposed) == 0 }

// await puts a decision behind those that wait for a majority.
func (s *Server) await(x *txn, k *call, answer func(result)) *proposed {
	if len(s.proposed) == 0 {
		s.ahead, s.leaving = s.tree.clone(), make(map[string]int)
	}
	if x != nil {
		s.foresee(x)
	}
	p := &proposed{x, k, answer, make([]bool, len(s.members))}
	s.proposed = append(s.proposed, p)
	s.spread()
	return p
}

// foresee makes a decision true in the tree by which the leader judges those behind it. That is not all of it: rights
// count once they are in the real tree, and a parent has the children that go with their sessions until then.
func (s *Server) foresee(x *txn) {
	switch {
	case x.op == OpSetACL && x.err == codeOK:
		kept := *x
		kept.acl = s.ahead.nodes[x.path].acl
		x = &kept
	case x.op == OpClose:
		for _, path := range s.ahead.ephemeralsOf(x.session) {
			parent, _, _ := splitPath(path)
			s.leaving[parent]++
		}
	}
	s.ahead.apply(x, func(event) {})
}

// spread lets the followers that the leader reaches log what it has proposed.
func (s *Server) spread() {
	for _, m := range s.members {
		if !s.reaches(m) {
			continue
		}
		for _, p := range s.proposed {
			p.logged[m.index] = true
		}
	}
}

// reaches reports whether a member leads or can talk to who does.
func (s *Server) reaches(m *member) bool {
	return s.leader != nil && (m == s.leader || m.connected() && s.leader.connected())
}

// commitProposed commits what waits for a majority, if there is one, in the order in which it
// was decided.
func (s *Server) commitProposed() {
	if !s.canCommit() {
		return
	}
	for len(s.proposed) > 0 {
		p := s.proposed[0]
		s.proposed = s.proposed[1:]
		switch {
		case p.k != nil:
			if p.k.commit(p.x, p.answer) {
				p.k.finish()
			}
		case p.x != nil:
			s.commit(p.x)
		}
	}
	s.ahead, s.leaving = nil, nil
}

// longestLog is the member, among those that can talk to each other, that has logged the most
// of what waits: it is elected. Of several it is the first.
func (s *Server) longestLog() *member {
	var best *member
	most := 0
	for _, m := range s.members {
		if !m.connected() {
			continue
		}
		n := 0
		for _, p := range s.proposed {
			if p.logged[m.index] {
				n++
			}
		}
		if best == nil || n > most {
			best, most = m, n
		}
	}
	return best
}

// inherit commits what the new leader finds in its log. The rest is lost, with the sessions
// that would have begun.
func (s *Server) inherit() {
	found := s.proposed
	s.proposed, s.ahead, s.leaving = nil, nil, nil
	for _, p := range found {
		switch {
		case p.x == nil:
		case p.logged[s.leader.index]:
			s.commit(p.x)
		case p.x.op == OpConnect:
			delete(s.sessions, p.x.session)
		}
	}
}

// goOn lets the requests that waited for a way to the leader arrive there, those of each
// member in the order in which they came.
func (s *Server) goOn() {
	for _, m := range s.members {
		for len(m.waiting) > 0 && s.reaches(m) {
			k := m.waiting[0]
			m.waiting = m.waiting[1:]
			switch {
			case !k.early:
				k.c.parked = false
				if k.proceed() {
					k.c.next()
					k.over()
				}
			case k.execute():
				k.finish()
			}
		}
	}
}

// What a client sends behind a write that waits for the ensemble ZooKeeper passes on as it
// comes in, and answers in its turn. So a write in the inbox may be early: it has been decided,
// or is on its way to the leader, while what is before it has not been answered.

// pass passes on a write that is in the inbox.
func (k *call) pass() {
	m := k.c.m
	k.early = true
	if m.srv.reaches(m) {
		k.execute()
	} else {
		m.waiting = append(m.waiting, k)
	}
}

// next answers what the inbox has behind a request that has waited, up to an early write,
// before anything else is committed, and lets the connection go on if there is none.
func (c *conn) next() {
	for len(c.inbox) > 0 && c.inbox[0].taken() {
		k := c.inbox[0].k
		if k.early {
			c.parked = true
			return
		}
		c.inbox = c.inbox[1:]
		if !k.unknown && !k.execute() {
			c.parked = true
			return
		}
	}
	c.srv.spawn(c.drain)
}
