package testutil

// A call is one request being handled.
type call struct {
	c         *conn
	handshake bool
	xid       int32
	op        Op
	body      []byte
	action    Action
	clock     float64    // of a new session's client
	who       []identity // whom the client had proved to be when it arrived

	// The rest is of what arrives while the one before it waits for the ensemble: ZooKeeper
	// has that, too, and the member has heard of the session then.
	heard   bool
	unknown bool // heard, and there is no such session: it is dropped
	taken   bool // it is counted, and no control function wants to see it
	early   bool // see pass

	greeting  *greeting // of a handshake that has arrived
	successor *conn     // waits for this, see standBehind
}

func (k *call) decode(frame []byte) {
	if k.handshake {
		k.op, k.body = OpConnect, frame
		return
	}
	d := &decoder{b: frame}
	k.xid, k.op = d.int32(), Op(d.int32())
	k.body = d.b
}

// handle asks the control functions and does as they say. It is false when the
// request waits; then another goroutine goes on with it and with the inbox.
func (k *call) handle(controls []*control, session int64) bool {
	c := k.c
	if len(controls) > 0 {
		r := describe(c.srv.release, k.op, k.xid, k.body)
		r.SessionID, r.Member = session, c.m.index
		for _, control := range controls {
			if a := control.fn(r); k.action.kind == actPass {
				k.action = a
			}
		}
	}
	s := c.srv
	if k.handshake && session == 0 {
		k.clock = s.clockOfClient()
	}
	s.mu.Lock()
	defer s.unlock()
	if k.action.kind == actWait {
		s.spawn(func() {
			if k.action.wait(c.done) {
				k.resume()
			}
		})
		return false
	}
	return k.run()
}

// resume goes on with a request that was to arrive late, and with what is behind it. From
// a client that is isolated it cannot arrive yet.
func (k *call) resume() {
	c, s := k.c, k.c.srv
	s.mu.Lock()
	for c.isolated() && !c.dead {
		changed := s.changed
		s.unlock()
		select {
		case <-changed:
		case <-c.done:
		}
		s.mu.Lock()
	}
	finished := k.run()
	s.unlock()
	if finished {
		c.drain()
	}
}

// run carries a request out, or lets it wait for the ensemble. The caller holds
// the lock.
func (k *call) run() bool {
	c, s := k.c, k.c.srv
	if c.dead {
		c.busy = false
		return false
	}
	switch k.action.kind {
	case actLoseRequest:
		c.kill(false)
		return true
	case actExpireBefore:
		if id := max(c.session, c.claimed); s.sessions[id] != nil {
			s.endSession(id)
		}
		c.kill(false)
		return true
	case actFail:
		k.fail(codeOf(k.action.err))
		return true
	default: // the request is carried out
	}
	if !k.hear() {
		return true // no such session: ZooKeeper drops the request
	}
	return k.proceed()
}

// hear lets the member hear of the session, once for each request. It is false when there
// is no such session.
func (k *call) hear() bool {
	switch {
	case k.heard:
		return !k.unknown
	case k.handshake || !k.op.asksServer():
		return true
	}
	return k.c.m.hear(k.c.session, k.c.timeout)
}

// proceed is run once the member has heard of the request.
func (k *call) proceed() bool {
	c, s := k.c, k.c.srv
	if !c.m.serving() {
		c.kill(true) // a handshake: nobody else is connected here
		return true
	}
	if k.handshake && k.greeting == nil {
		k.greet()
	}
	if !k.ready() {
		k.park()
		return false
	}
	if k.action.kind == actWaitReply {
		h := c.hold()
		s.spawn(func() {
			if k.action.wait(c.done) {
				s.mu.Lock()
				c.release(h)
				s.unlock()
			}
		})
	}
	answer := k.execute
	if k.handshake {
		answer = k.connect
	}
	if answer() {
		k.after()
		if !k.handshake || !c.standBehind() {
			return true
		}
		c.park()
		return false
	}
	// There has to be a majority, or the member to catch up, before it can answer.
	c.park()
	return false
}

// after does what an action wants done behind the answer.
func (k *call) after() {
	c, s := k.c, k.c.srv
	switch k.action.kind {
	case actLoseReply:
		c.kill(false)
	case actCutAfter:
		c.kill(true)
	case actExpireAfter:
		if s.sessions[c.session] != nil {
			s.endSession(c.session)
		}
	default:
	}
}

// ready reports whether the request can be carried out as far as the leader is needed for
// it: then there has to be a way there.
func (k *call) ready() bool { return !k.ordered() || k.c.srv.reaches(k.c.m) }

// ordered reports whether the leader gives the request its place among those of others. So it
// does with the syncs of a follower's clients; to its own clients a sync is a read.
func (k *call) ordered() bool {
	m, s := k.c.m, k.c.srv
	switch {
	case k.handshake:
		return !k.greeting.decided
	case k.op == OpSync:
		return m != s.leader || m.lagging
	}
	return k.op.isWrite() && s.release.knows(k.op)
}

// park lets the request wait until there is a way to the leader.
func (k *call) park() {
	m := k.c.m
	m.waiting = append(m.waiting, k)
	k.c.park()
}
