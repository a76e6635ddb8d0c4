package election

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/zkelection/election/testutil"
)

// What happens in the simulation.

// simFault is one kind of fault, or of use; weight is how often it comes.
type simFault struct {
	name   string
	weight int
	strike func(s *simulation)
}

var simFaults = []simFault{
	{"pause", 6, (*simulation).pause},
	{"cut off member", 5, (*simulation).cutOff},
	{"member lags", 2, (*simulation).lag},
	{"lost vote amid lag", 1, (*simulation).loseVote},
	{"far away", 3, (*simulation).moveAway},
	{"isolate", 3, (*simulation).isolateOne},
	{"isolate all", 1, (*simulation).isolateEverybody},
	{"expire", 2, (*simulation).expire},
	{"drop connections", 2, (*simulation).drop},
	{"restart", 2, (*simulation).restart},
	{"flaky", 3, (*simulation).flaky},
	{"lost replies", 3, (*simulation).loseReplies},
	{"refused watches", 1, (*simulation).refuseWatches},
	{"cut off at the claim", 6, (*simulation).layAmbush},
	{"delete a ballot", 1, (*simulation).deleteBallot},
	{"delete the acknowledgement", 1, (*simulation).deleteAck},
	{"slow callback", 3, (*simulation).slowCallback},
	{"failing takeover", 1, (*simulation).failTakeover},
	{"resign", 3, (*simulation).resignAndVote},
	{"close", 2, (*simulation).closeOne},
	{"close session", 1, (*simulation).closeSession},
	{"join", 1, (*simulation).join},
	{"proclaim", 2, (*simulation).proclaimData},
	{"campaign", 1, (*simulation).campaignBriefly},
	{"run", 1, (*simulation).runBriefly},
	{"look up", 1, (*simulation).lookUp},
	{"transfer", 4, (*simulation).passLeadership},
	{"set the priority", 2, (*simulation).changePriority},
	{"stand while", 2, (*simulation).standBriefly},
}

func (s *simulation) strike() {
	if len(s.faults) > 0 && len(s.cast) > 0 {
		f := drawFault(s.rng, s.faults)
		s.count[f.name]++
		f.strike(s)
	}
	s.sample()
}

// throttled is the answer of a server that has too much to do, which comes
// before anything else is looked at.
var throttled = testutil.Fail(testutil.ErrorCode(-127))

// pause stops a process: its connection holds everything back, and then gives
// it all at once.
func (s *simulation) pause() {
	p := s.someone().p
	d := s.awhile()
	s.note("FAULT: %s pauses for %v", p.name, d)
	p.gate.shut()
	s.lasts(d, func() {
		p.gate.open()
		s.note("%s goes on", p.name)
	})
}

// moveAway makes a process's answers slow, without holding one up behind another.
func (s *simulation) moveAway() {
	p := s.someone().p
	d, most := s.between(s.timeout, 6*s.timeout), s.between(s.timeout/16, s.timeout/4)
	s.note("FAULT: answers to %s take up to %v for %v", p.name, most, d)
	p.farness.most.Store(int64(most))
	s.lasts(d, func() {
		p.farness.most.Store(0)
		s.note("%s is near again", p.name)
	})
}

func (s *simulation) cutOff() {
	i := s.rng.IntN(len(s.srv.Servers()))
	if len(s.srv.Servers()) == 1 {
		return
	}
	d := s.between(0, 8*s.trial.tick)
	if s.rng.IntN(2) == 0 {
		d = s.awhile()
	}
	throttles := s.rng.IntN(3) == 0
	s.note("FAULT: member %d is cut off for %v, throttles: %v", i, d, throttles)
	s.srv.Member(i).CutOff()
	cancel := func() {}
	if throttles {
		cancel = s.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
			if r.Member != i || r.Op == testutil.OpConnect || r.Op == testutil.OpPing || r.Op == testutil.OpClose {
				return testutil.Pass
			}
			if r.Op == testutil.OpSetWatches {
				s.refusesWatches(r)
			}
			return throttled
		})
	}
	s.lasts(d, func() {
		cancel()
		s.srv.Member(i).Heal()
		s.note("member %d is healed", i)
	})
}

func (s *simulation) lag() {
	i := s.rng.IntN(len(s.srv.Servers()))
	if len(s.srv.Servers()) == 1 {
		return
	}
	d := s.between(0, s.timeout)
	s.note("FAULT: member %d lags for %v", i, d)
	s.srv.Member(i).Lag()
	s.lasts(d, func() {
		s.srv.Member(i).CatchUp()
		s.note("member %d has caught up", i)
	})
}

// loseVote lets a candidate vote, and loses the reply to that while the other
// members lag: the list that it reads after it has connected again may be from
// before its own ballot.
func (s *simulation) loseVote() {
	if len(s.srv.Servers()) == 1 {
		return
	}
	a, d := s.someone(), s.between(0, s.timeout)
	s.note("FAULT: %s is to lose the reply to its vote, and members lag for %v", a.name, d)
	var lagging []int
	for i := range s.srv.Servers() {
		if i != s.srv.Leader() {
			lagging = append(lagging, i)
		}
	}
	var once sync.Once
	cancel := s.srv.Control(testutil.OpCreate, func(r *testutil.Request) (action testutil.Action) {
		if dataOf(r.Data) == a.name {
			once.Do(func() {
				for _, i := range lagging {
					s.srv.Member(i).Lag()
				}
				action = testutil.LoseReply
			})
		}
		return action
	})
	s.call(func() {
		_ = a.resign(s.timeout)
		_ = a.vote(s.timeout)
	})
	s.lasts(d, func() {
		cancel()
		for _, i := range lagging {
			s.srv.Member(i).CatchUp()
		}
		s.note("members have caught up")
	})
}

func (s *simulation) isolateOne() {
	p := s.someone().p
	id := p.session.ID()
	if id == 0 {
		return
	}
	d := s.awhile()
	s.note("FAULT: %s is isolated for %v", p.name, d)
	heal := s.srv.Isolate(id)
	s.lasts(d, func() { heal(); s.note("%s is back", p.name) })
}

func (s *simulation) isolateEverybody() {
	d := s.awhile()
	s.note("FAULT: all are isolated for %v", d)
	heal := s.srv.IsolateAll()
	s.lasts(d, func() { heal(); s.note("all are back") })
}

func (s *simulation) expire() {
	p := s.someone().p
	id := p.session.ID()
	s.excuse(id)
	s.note("FAULT: session %s of %s expires early", sessionName(id), p.name)
	s.srv.ExpireSession(id)
}

func (s *simulation) drop() {
	s.note("FAULT: all connections are cut")
	s.srv.DropConnections()
}

func (s *simulation) restart() {
	s.mu.Lock()
	down := s.stopped
	s.mu.Unlock()
	if down {
		return
	}
	d := s.awhile()
	s.note("FAULT: the servers stop for %v", d)
	s.stop()
	s.lasts(d, s.start)
}

// flaky lets some requests meet faults for a while.
func (s *simulation) flaky() {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(s.rng.Uint64(), 0))
	share, d := 3+rng.IntN(20), s.between(0, s.timeout)
	s.note("FAULT: one request in %d meets a fault for %v", share, d)
	cancel := s.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(share) > 0 {
			return testutil.Pass
		}
		long := time.Duration(rng.Int64N(int64(s.timeout)))
		what, action := "", testutil.Pass
		switch rng.IntN(7) {
		case 0:
			what, action = "request lost", testutil.LoseRequest
		case 1:
			what, action = "reply lost", testutil.LoseReply
			s.loses(r)
		case 2:
			what, action = "connection cut", testutil.CutAfter
		case 3:
			what, action = "request delayed", testutil.Delay(long)
		case 4:
			what, action = "reply delayed", testutil.DelayReply(long)
		case 5:
			s.excuse(r.SessionID)
			what, action = "expired after", testutil.ExpireAfter
		case 6:
			if r.Op == testutil.OpConnect {
				return testutil.Pass // it would say that the session has expired
			}
			what, action = "throttled", throttled
			if r.Op == testutil.OpSetWatches {
				s.refusesWatches(r)
			}
		}
		s.note("%s: %v %s of %s", what, r.Op, r.Path, sessionName(r.SessionID))
		return action
	})
	s.lasts(d, cancel)
	s.lasts(d+s.timeout, func() {}) // the last delay is over by then
}

// loseReplies loses the reply to a request of some kind, or to two, and does what
// brings such a request about.
func (s *simulation) loseReplies() {
	kind, n := simWrites[s.rng.IntN(len(simWrites))], 1+s.rng.IntN(2)
	d := s.between(s.timeout/2, 2*s.timeout)
	s.note("FAULT: %d replies are to be lost within %v: %s", n, d, kind)
	var mu sync.Mutex
	cancel := s.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
		if s.kindOf(r) != kind {
			return testutil.Pass
		}
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 {
			return testutil.Pass
		}
		s.loses(r)
		s.note("reply lost: %v of %s", r.Op, sessionName(r.SessionID))
		return testutil.LoseReply
	})
	s.lasts(d, cancel)
	switch kind {
	case "ballot", "acknowledgement", "leader's withdrawal", "withdrawal":
		s.resignAndVote()
	case "proclaimed acknowledgement", "proclaimed ballot":
		s.proclaimData()
	case "handshake":
		s.srv.DropConnections()
	}
}

// refuseWatches cuts all connections, and refuses for a while to set watches again.
func (s *simulation) refuseWatches() {
	d := s.between(0, s.timeout)
	s.note("FAULT: the servers set no watches again for %v", d)
	cancel := s.srv.Control(testutil.OpSetWatches, func(r *testutil.Request) testutil.Action {
		s.refusesWatches(r)
		return throttled
	})
	s.srv.DropConnections()
	s.lasts(d, cancel)
}

// refusesWatches notes that watches are about to be refused. A caller's client does not ask for them again, as a Session's
// own connection does, and they are silent as long as the connection lasts: what they were to tell a periodic recheck
// finds.
func (s *simulation) refusesWatches(r *testutil.Request) {
	s.meets("watches refused")
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.processes, func(p *process) bool { return p.caller != nil && p.caller.SessionID() == r.SessionID }) {
		s.deaf = true
	}
}

// simAmbush is what is to happen when the next candidate begins to lead.
type simAmbush struct{ delay, lasts time.Duration }

// layAmbush has the next that claims cut off soon after, with its member: what it
// was told last is then all that its lease rests on. The leader may resign for that.
func (s *simulation) layAmbush() {
	ambush := &simAmbush{s.between(0, s.trial.tick), s.awhile()}
	window := s.between(s.timeout, 2*s.timeout)
	s.note("FAULT: who claims within %v is cut off %v later for %v", window, ambush.delay, ambush.lasts)
	s.chaosMu.Lock()
	s.ambush = ambush
	s.chaosMu.Unlock()
	s.lasts(window, func() {
		s.chaosMu.Lock()
		s.ambush = nil
		s.chaosMu.Unlock()
	})
	s.lasts(window+ambush.delay+ambush.lasts+time.Millisecond, func() {})
	if s.rng.IntN(4) == 0 {
		return
	}
	// Just behind a ping, so that the next may come too late for the successor.
	a, behind := s.someone(), s.between(0, s.timeout/50)
	for _, other := range s.cast {
		if other.IsLeader() {
			a = other
		}
	}
	s.call(func() {
		time.Sleep(s.pings.untilNext() + behind)
		s.note("%s resigns %v behind a ping", a.name, behind)
		_ = a.resign(s.timeout)
		time.Sleep(ambush.lasts)
		_ = a.vote(s.timeout)
	})
	s.lasts(2*s.timeout+ambush.lasts, func() {})
}

// spring is called when a candidate begins to lead.
func (s *simulation) spring(a *actor, session int64) {
	s.chaosMu.Lock()
	ambush := s.ambush
	s.ambush = nil
	s.chaosMu.Unlock()
	if ambush == nil {
		return
	}
	s.meets("cut off at the claim")
	s.call(func() {
		time.Sleep(ambush.delay)
		s.seenMu.Lock()
		i := s.seen.member[session]
		s.seenMu.Unlock()
		s.note("%s is cut off with member %d", a.p.name, i)
		s.srv.Member(i).CutOff()
		heal := s.srv.Isolate(session)
		time.Sleep(ambush.lasts)
		heal()
		s.srv.Member(i).Heal()
		s.note("%s and member %d are back", a.p.name, i)
		s.sample()
	})
}

// deleteBallot does what an operator may do. Who is told of it too late may lead
// beside the next, which is no fault of ours.
func (s *simulation) deleteBallot() {
	path := s.someone().VotePath()
	found, _ := s.look()
	for _, b := range found.ballots {
		if b.path == path {
			s.excuse(b.session)
			s.mistake(b, found.ballots)
			s.deleteByHand(path, "ballot deleted by hand")
		}
	}
}

func (s *simulation) deleteAck() {
	s.deleteByHand(s.path+"/leader_ack", "acknowledgement deleted by hand")
}

func (s *simulation) deleteByHand(path, situation string) {
	p := s.someone().p
	s.note("FAULT: %s deletes %s by hand", p.name, path)
	s.call(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		defer cancel()
		if p.session.retry(ctx, deleteNode(path)) == nil {
			s.meets(situation)
		}
	})
	s.lasts(s.timeout, func() {})
}

func (s *simulation) slowCallback() {
	a := s.someone()
	what := a.name + []string{" wins", " steps down"}[s.rng.IntN(2)]
	d := s.awhile()
	s.note("FAULT: the next time that %s takes %v", what, d)
	s.chaosMu.Lock()
	defer s.chaosMu.Unlock()
	s.slow[what] = d
}

func (s *simulation) failTakeover() {
	a := s.someone()
	s.note("FAULT: the next takeover of %s fails", a.name)
	s.chaosMu.Lock()
	s.fail[a.name] = true
	s.chaosMu.Unlock()
	s.lasts(s.awhile(), func() {
		s.chaosMu.Lock()
		delete(s.fail, a.name)
		s.chaosMu.Unlock()
		s.call(func() { _ = a.vote(s.timeout) })
	})
}

func (s *simulation) resignAndVote() {
	a, patience, d := s.someone(), s.awhile(), s.awhile()
	s.note("%s resigns", a.name)
	s.call(func() { s.note("%s has resigned: %v", a.name, a.resign(patience)) })
	s.lasts(d, func() {
		s.note("%s votes", a.name)
		s.call(func() { _ = a.vote(patience) })
	})
}

// dismiss takes a candidate out of the cast.
func (s *simulation) dismiss(a *actor) {
	s.cast = slices.DeleteFunc(s.cast, func(b *actor) bool { return a == b })
}

func (s *simulation) closeOne() {
	a := s.someone()
	s.dismiss(a)
	s.note("%s closes", a.name)
	s.call(func() { a.close(false) })
	again := a.p
	if s.rng.IntN(2) == 0 {
		again = nil
	}
	s.lasts(s.awhile(), func() {
		if again != nil && again.isClosing() {
			again = nil
		}
		s.enlist(again)
	})
}

func (s *simulation) closeSession() {
	p := s.someone().p
	if p.hasWitness() {
		return
	}
	for _, a := range *p.actors.Load() {
		a.want(false)
		s.dismiss(a)
	}
	p.setClosing()
	s.note("%s closes", p.name)
	s.call(func() { s.note("%s has closed: %v", p.name, p.end()) })
	s.lasts(s.awhile(), func() { s.enlist(nil) })
}

func (s *simulation) join() {
	if len(s.cast) < 6 {
		s.enlist(nil)
	}
}

func (s *simulation) proclaimData() {
	a := s.someone()
	data := fmt.Sprintf("%s|%d", a.name, s.rng.IntN(1000))
	s.mu.Lock()
	s.asked[data] = true
	s.mu.Unlock()
	limit := s.awhile()
	s.note("%s proclaims %s", a.name, data)
	s.call(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		s.note("%s has proclaimed: %v", a.name, a.Proclaim(ctx, []byte(data)))
	})
}

func (s *simulation) campaignBriefly() {
	a, limit := s.someone(), s.awhile()
	s.note("%s campaigns for %v", a.name, limit)
	s.call(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		_, err := a.Campaign(ctx)
		s.note("%s has campaigned: %v", a.name, err)
	})
	s.lasts(limit, func() {})
}

func (s *simulation) runBriefly() {
	a, limit, linger := s.someone(), s.awhile(), s.between(0, s.timeout/2)
	s.note("%s runs for %v", a.name, limit)
	s.call(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		s.note("%s has run: %v", a.name, a.run(ctx, linger))
	})
	s.lasts(limit+linger+s.timeout, func() {})
}

// passLeadership asks somebody to pass leadership to somebody, once in a while twice.
func (s *simulation) passLeadership() {
	for range 1 + s.rng.IntN(2) {
		by, to, limit := s.someone(), s.cast[s.rng.IntN(len(s.cast))], s.between(s.timeout/4, 3*s.timeout)
		s.note("%s asks for a transfer to %s for %v", by.name, to.name, limit)
		s.call(func() {
			ctx, cancel := s.untilEnding(limit)
			defer cancel()
			s.note("%s has asked for a transfer to %s: %v", by.name, to.name, by.transfer(ctx, to))
		})
	}
}

// untilEnding is a context that ends after a time, and with the faults.
func (s *simulation) untilEnding(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	go func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (s *simulation) changePriority() {
	a, priority, limit := s.someone(), s.rng.IntN(19)-9, s.awhile()
	s.note("%s changes its priority to %d", a.name, priority)
	s.call(func() {
		ctx, cancel := s.untilEnding(limit)
		defer cancel()
		_ = a.SetPriority(ctx, priority)
	})
}

// standBriefly lets a candidate stand while it is ready, which it is not always.
func (s *simulation) standBriefly() {
	a, limit, every := s.someone(), s.awhile(), s.between(s.timeout/16, s.timeout/2)
	lags := rand.New(rand.NewPCG(s.rng.Uint64(), 3))
	s.note("%s stands while it is ready for %v", a.name, limit)
	s.call(func() {
		ctx, cancel := s.untilEnding(limit)
		defer cancel()
		s.note("%s has stood while it was ready: %v", a.name, a.standWhile(ctx, every, func() bool { return lags.IntN(2) == 0 }))
	})
	s.lasts(limit+s.timeout/2, func() { s.call(func() { _ = a.vote(s.timeout) }) })
}

func (s *simulation) lookUp() {
	a, limit := s.someone(), s.awhile()
	s.call(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		_, _ = a.LeaderSync(ctx)
		_, _ = a.Ballots(ctx)
	})
}

func (p *process) isClosing() bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.closing
}

func (p *process) setClosing() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.closing = true
}

// hasWitness reports whether an observer lives in this process.
func (p *process) hasWitness() bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return slices.ContainsFunc(p.w.witnesses, func(v *witness) bool { return v.p == p })
}
