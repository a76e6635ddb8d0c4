package testutil

import (
	"cmp"
	"errors"
	"slices"
)

// propose has a decision committed, and answers once this member has applied it. It is
// false when that is not now.
func (k *call) propose(x *txn, answer func(result)) bool {
	s := k.c.srv
	if s.free() {
		return k.commit(x, answer)
	}
	s.await(x, k, answer)
	return false
}

// sync is answered once this member has applied what was proposed before.
func (k *call) sync(answer func(result)) bool {
	s := k.c.srv
	if len(s.proposed) == 0 {
		return k.commit(nil, answer)
	}
	s.await(nil, k, answer)
	return false
}

// commit commits a decision, or nothing for a sync, and answers if this member applies it at
// once. Of a connection that has ended nobody waits for an answer, but the next one of its session may wait for its turn.
func (k *call) commit(x *txn, answer func(result)) bool {
	c, m := k.c, k.c.m
	now := m.inStep() || !m.serving()
	var r result
	if x != nil {
		r = c.srv.commit(x)
	} else if !now {
		m.backlog = append(m.backlog, &proposal{})
	}
	if now {
		k.turn()
		answer(r)
		return true
	}
	p := m.backlog[len(m.backlog)-1]
	p.k, p.answer = k, func() { answer(r) }
	return false
}

// turn takes an early write out of the inbox, where it is the first by now.
func (k *call) turn() {
	if k.early && !k.c.dead {
		k.c.inbox = k.c.inbox[1:]
	}
}

// finish goes on with the connection once a request that has waited is answered.
func (k *call) finish() {
	k.c.parked = false
	k.after()
	k.c.next()
	k.over()
}

// over lets the connection go on that has taken up the session and stood behind this request.
func (k *call) over() {
	if c := k.successor; c != nil {
		k.successor, c.parked = nil, false
		c.next()
	}
}

// execute carries out a request of a connection that has a session. It is false
// when the answer has to wait for this member to catch up.
func (k *call) execute() bool {
	c := k.c
	if !c.srv.release.knows(k.op) {
		k.refuseUnknown()
		return true
	}
	if !k.op.isWrite() && k.op.asksServer() && c.m == c.srv.leader && c.srv.mayWrite(c.session, c.m) == codeSessionMoved {
		c.kill(true) // the leader looks at requests that change nothing, too
		return true
	}
	switch k.op {
	case OpPing:
		k.reply(codeOK, nil)
	case OpAuth:
		k.authenticate()
	case OpSASL:
		d := &decoder{b: k.body}
		if token := d.bytes(); token == nil {
			c.kill(false)
			return true
		}
		// Without a SASL configuration the answer is an empty token.
		e := newReply(k.xid, 0, codeOK)
		e.bytes(nil)
		c.answer(k.xid, e)
	case OpClose:
		return k.closeSession()
	case OpCreate, OpCreate2, OpCreateContainer, OpCreateTTL, OpDelete, OpSetData, OpSetACL, OpCheck,
		OpMulti, OpReconfig, OpDeleteContainer:
		return k.write()
	case OpSync:
		answer := func(result) { k.reply(k.read(&decoder{b: k.body})) }
		if k.ordered() {
			return k.sync(answer)
		}
		answer(result{})
	case OpExists, OpGetData, OpGetACL, OpGetChildren, OpGetChildren2, OpMultiRead, OpSetWatches,
		OpSetWatches2, OpGetEphemerals, OpGetAllChildrenNumber, OpAddWatch, OpCheckWatches, OpRemoveWatches,
		OpWhoAmI:
		k.reply(k.read(&decoder{b: k.body}))
	default: // it is not known
	}
	return true
}

// refuseUnknown is the answer to an operation that there is not.
func (k *call) refuseUnknown() {
	c := k.c
	c.srv.logWarn("operation not known", "op", k.op, "client", c.remote)
	c.answer(k.xid, newReply(k.xid, -1, codeUnimplemented))
	c.kill(true)
}

// reply answers a request with the header's zxid as this member has it.
func (k *call) reply(err code, body func(*encoder)) {
	c := k.c
	xid := k.xid
	if k.op == OpPing {
		xid = -2 // whatever it was
	}
	e := newReply(xid, c.m.zxid(), err)
	if body != nil {
		body(e)
	}
	name := k.op.short()
	if k.op.isWrite() && err != codeOK && body == nil {
		name = "NA" // it is refused as one of which nothing is known any more
	}
	k.noteAnswer(name)
	c.answer(xid, e)
}

// noteAnswer notes what the four-letter words tell of the last answer. To them auth and SASL
// are none.
func (k *call) noteAnswer(name string) {
	c := k.c
	if k.xid >= 0 {
		c.stats.lastXid = k.xid
	}
	c.stats.lastZxid, c.stats.lastOp, c.stats.lastReply = c.m.zxid(), name, c.srv.wallTime()
}

func (k *call) authenticate() {
	c := k.c
	d := &decoder{b: k.body}
	d.int32() // the type of the packet, always 0
	scheme, credentials := d.nullableString(), d.bytes()
	err := codeOK
	switch {
	case d.err != nil:
		c.srv.logWarn("malformed auth", "client", c.remote, "error", d.err)
		c.kill(false)
		return
	case scheme == "digest" && credentials != nil:
		id := digestOf(string(credentials))
		if c.srv.super != "" && id.id == c.srv.super {
			c.prove(superUser)
		}
		c.prove(id)
	case scheme != "ip":
		err = codeAuthFailed
	}
	c.answer(k.xid, newReply(k.xid, 0, err))
	if err != codeOK {
		c.kill(true)
	}
}

// prove adds an identity to those of the connection.
func (c *conn) prove(id identity) {
	for _, known := range c.who {
		if known == id {
			return
		}
	}
	c.who = append(slices.Clone(c.who), id)
	slices.SortStableFunc(c.who, func(a, b identity) int { return cmp.Compare(a.bucket(), b.bucket()) })
}

func (k *call) closeSession() bool {
	c, s := k.c, k.c.srv
	id := c.session
	// It is closed below, behind the answer.
	if c.m.bySession[id] == c {
		delete(c.m.bySession, id)
	}
	s.logInfo("session closes", "session", sessionName(id))
	return k.propose(s.endOf(id), func(result) {
		k.reply(codeOK, nil)
		c.kill(true)
	})
}

// write has a request decided, committed and answered.
func (k *call) write() bool {
	c, m, s := k.c, k.c.m, k.c.srv
	if k.op != OpMulti && (k.op == OpReconfig || s.release.readsBeforeZxid()) && !k.wellFormed() {
		k.reply(codeMarshallingError, nil)
		return true
	}
	d := &decoder{b: k.body}
	var ops []write
	var reads bool
	var failed error
	if k.op == OpMulti {
		if ops, reads, failed = decodeMulti(s.release, d); errors.Is(failed, errNullACL) {
			k.reply(codeMarshallingError, nil)
			return true
		}
	}
	p := &preparer{
		release: s.release, tree: s.newest(), leaving: s.leaving, who: k.who, session: c.session, zxid: s.nextZxid(), now: s.wallTime(),
		check: func() code { return s.mayWrite(c.session, m) },
	}
	var x *txn
	switch k.op {
	case OpMulti:
		null := hasNullPath(ops)
		if failed == nil && null && s.release.losesWhatItStumblesOver() {
			// ZooKeeper stumbles over a null path between taking a zxid and making
			// a transaction for it.
			k.reply(codeMarshallingError, func(e *encoder) { e.multiResults(nil) })
			return true
		}
		if failed != nil || reads || null {
			x = p.failed(codeMarshallingError)
		} else {
			x = p.prepareMulti(ops)
		}
	case OpReconfig:
		x = p.failed(codeReconfigDisabled)
	default:
		w := decodeWrite(k.op, d)
		switch {
		case k.op == OpDeleteContainer && !s.release.deletesContainersOfClients():
			x = p.failed(codeBadArguments)
		case d.err != nil:
			x = p.failed(codeMarshallingError)
		default:
			x = p.prepare(w)
		}
	}
	return k.propose(x, k.answerWrite)
}

// proposable reports whether what is ordered gets a place, and not at once an answer.
func (k *call) proposable() bool {
	release := k.c.srv.release
	switch k.op {
	case OpSync, OpClose:
		return true
	case OpMulti:
		ops, _, failed := decodeMulti(release, &decoder{b: k.body})
		return !errors.Is(failed, errNullACL) && (failed != nil || !release.losesWhatItStumblesOver() || !hasNullPath(ops))
	default:
		return k.op != OpReconfig && !release.readsBeforeZxid() || k.wellFormed()
	}
}

func hasNullPath(ops []write) bool {
	return slices.ContainsFunc(ops, func(w write) bool { return w.path == nullText })
}

// wellFormed reports whether a write's body is what its operation says.
func (k *call) wellFormed() bool {
	d := &decoder{b: k.body}
	if k.op == OpReconfig {
		for range 3 {
			d.bytes()
		}
		d.int64()
	} else if w := decodeWrite(k.op, d); k.op == OpDeleteContainer && w.path == nullText {
		return false
	}
	return d.err == nil
}

func (k *call) answerWrite(r result) {
	c := k.c
	moved := r.err == codeSessionMoved
	for _, sub := range r.ops {
		moved = moved || sub.err == codeSessionMoved
	}
	if moved {
		// The client has another connection; this one is closed without an answer to
		// this, but with those that are under way.
		c.kill(true)
		return
	}
	if r.err != codeOK {
		k.reply(r.err, nil)
		return
	}
	if k.op == OpCheck {
		// ZooKeeper 3.8 fails to write the answer of a check that is not within a
		// multi, and sends none.
		k.noteAnswer(k.op.short())
		return
	}
	k.reply(codeOK, func(e *encoder) {
		switch k.op {
		case OpCreate:
			e.string(r.path)
		case OpCreate2, OpCreateContainer, OpCreateTTL:
			e.string(r.path)
			e.stat(&r.stat)
		case OpSetData, OpSetACL:
			e.stat(&r.stat)
		case OpMulti:
			e.multiResults(r.ops)
		default: // a delete's answer is its header
		}
	})
}

// fail answers a request with an error that a control function wants.
func (k *call) fail(err code) {
	c, s := k.c, k.c.srv
	if k.handshake {
		d := &decoder{b: k.body}
		d.take(24)
		d.bytes()
		c.welcome(len(d.b) > 0)
		c.kill(true)
		return
	}
	k.hear()
	if k.op.isWrite() && s.canCommit() && c.m.inStep() {
		s.commit(&txn{op: opError, zxid: s.nextZxid(), time: s.wallTime(), session: c.session, err: err})
	}
	k.reply(err, nil)
}
