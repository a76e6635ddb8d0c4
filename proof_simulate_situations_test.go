package election

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zkelection/election/testutil"
)

// What all schedules of a simulation together must have met, each so many times
// in a thousand schedules, or they prove less than is thought. The numbers are
// about a third of what was counted when they were written down.
var simSituations = map[string]float64{
	"lapse and return":                       120,
	"lost reply: ballot":                     5,
	"lost reply: acknowledgement":            7,
	"lost reply: leader's withdrawal":        6,
	"lost reply: withdrawal":                 6,
	"lost reply: proclaimed acknowledgement": 4,
	"lost reply: proclaimed ballot":          3,
	"lost reply: heartbeat":                  11,
	"lost reply: count":                      7,
	"lost reply: handshake":                  20,
	"takeover on one pair of heartbeats":     570,
	"takeover on a late pair":                200,
	"takeover by a hot standby":              120,
	"takeover on heartbeats that overlap":    55,
	"takeover on a caller's connection":      400,
	"takeover failed":                        3,
	"session resumed on another member":      580,
	"watches refused":                        200,
	"ballot deleted by hand":                 20,
	"acknowledgement deleted by hand":        15,
	"another member leads":                   20,
	"cut off at the claim":                   100,
	"callbacks overdue":                      4,
	"a leader of the past may not write":     400,
	"step-down: resigned":                    170,
	"step-down: closed":                      590,
	"step-down: lease lapsed":                200,
	"step-down: session lost":                35,
	"step-down: ballot deleted":              13,
	"step-down: takeover failed":             3,
	"step-down: passed on":                   30,
	"transfer":                               60,
	"transfer blocked":                       4,
	"transfer taken back":                    4,
	"transfer's target gone":                 4,
	"another transfer under way":             40,
	"transfer ended":                         8,
	"not ready":                              100,
	"moved for priority":                     200,
	"lost reply: move":                       1,
	"lost reply: request for a transfer":     0.5,
}

// doubtful and sure are how often a situation has to come about. Where doubtful is
// asked for and there are fewer, the run goes on until sure is; a situation is missed
// only then. Five where fifteen are to be expected are fewer than a third by a chance
// of one in some hundred, and how many schedules a time suffices for, and so which
// situations are asked for, is the machine's to say. Thirty where ninety are to be
// expected is no chance any more, although they come in clusters.
const (
	doubtful = 5
	sure     = 30
)

// checkSituations fails a run that has missed one. A run of few schedules may
// well miss the rare ones, so each is asked for only where many are to be expected.
func checkSituations(t *testing.T, met map[string]int, schedules int) {
	t.Helper()
	for _, complaint := range missedSituations(met, schedules) {
		t.Error(complaint)
	}
	if schedules > 0 {
		t.Logf("situations: %v", met)
	}
}

func missedSituations(met map[string]int, schedules int) (complaints []string) {
	for situation := range met {
		if _, known := simSituations[situation]; !known {
			complaints = append(complaints, "no such situation: "+situation)
		}
	}
	for situation := range simSituations {
		if hardlyMet(situation, met, schedules, sure) {
			complaints = append(complaints, "the simulation is blind: it has hardly met "+situation)
		}
	}
	slices.Sort(complaints)
	return complaints
}

// hardlyMet is whether a situation is asked for least times or more, and has come about less often.
func hardlyMet(situation string, met map[string]int, schedules int, least float64) bool {
	want := simSituations[situation] * float64(schedules) / 1000
	return want >= least && float64(met[situation]) < want
}

// schedulesToBeSure is how many schedules have to be run before missedSituations
// knows whether one is missed that is in doubt; 0 if none is.
func schedulesToBeSure(met map[string]int, schedules int) (enough int) {
	for situation, often := range simSituations {
		if hardlyMet(situation, met, schedules, doubtful) {
			enough = max(enough, int(math.Ceil(1000*sure/often)))
		}
	}
	return enough
}

// simSeen is what situations are told apart by.
type simSeen struct {
	member map[int64]int         // that a session was last heard on
	beats  map[int64][]time.Time // the last heartbeats of a session
	leader int                   // the member that leads
	lapsed map[*actor]int64      // the token under which a lease has lapsed
}

// watchSituations begins to count them.
func (s *simulation) watchSituations() {
	s.seen = simSeen{member: make(map[int64]int), beats: make(map[int64][]time.Time), lapsed: make(map[*actor]int64)}
	s.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
		s.notice(r)
		return testutil.Pass
	})
	s.onClaim = s.noticeClaim
}

func (s *simulation) notice(r *testutil.Request) {
	if r.Op == testutil.OpConnect {
		return
	}
	beats := isHeartbeat(r)
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	if last, known := s.seen.member[r.SessionID]; known && last != r.Member {
		s.meets("session resumed on another member")
	}
	s.seen.member[r.SessionID] = r.Member
	if beats {
		all := s.seen.beats[r.SessionID]
		s.seen.beats[r.SessionID] = append(all[max(0, len(all)-3):], time.Now())
	}
	if isMove(r) && r.Ops[0].Op == testutil.OpCheck && len(r.Ops) == 4 {
		s.meets("moved for priority")
	}
	if leader := s.srv.Leader(); leader >= 0 && leader != s.seen.leader {
		s.seen.leader = leader
		s.meets("another member leads")
	}
}

func (s *simulation) noticeClaim(a *actor, session int64) {
	if a.p.caller != nil {
		s.meets("takeover on a caller's connection")
	}
	s.seenMu.Lock()
	var recent []time.Time
	for _, at := range s.seen.beats[session] {
		if time.Since(at) < s.timeout {
			recent = append(recent, at)
		}
	}
	s.seenMu.Unlock()
	if n := len(recent); n == 4 && recent[3].Sub(recent[0]) < s.timeout/8 {
		s.meets("takeover on heartbeats that overlap")
	}
	switch n := len(recent); {
	case n == 2:
		s.meets("takeover on one pair of heartbeats")
	case n == 3 && recent[2].Sub(recent[0]) >= s.trial.tick/2 && recent[2].Sub(recent[1]) < s.trial.tick/8:
		// The first is all that the lease rests on: the others came together,
		// as soon as it was old enough.
		s.meets("takeover on a late pair")
	case n > 3 && a.hotStandby:
		s.meets("takeover by a hot standby")
	}
	s.spring(a, session)
}

// noticeWin and noticeStepDown are called by the candidates' callbacks.
func (s *simulation) noticeWin(a *actor, term Term) {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	if token, lapsed := s.seen.lapsed[a]; lapsed && token == term.Token {
		s.meets("lapse and return")
	}
	delete(s.seen.lapsed, a)
}

func (s *simulation) noticeStepDown(a *actor, term Term, cause error) {
	for name, known := range map[string]error{
		"resigned": ErrResigned, "closed": ErrClosed, "lease lapsed": ErrLeaseLapsed, "session lost": ErrSessionLost,
		"ballot deleted": ErrBallotDeleted, "takeover failed": ErrTakeoverFailed,
		"passed on": ErrTransferred,
	} {
		if errors.Is(cause, known) {
			s.meets("step-down: " + name)
		}
	}
	if errors.Is(cause, ErrLeaseLapsed) {
		s.seenMu.Lock()
		defer s.seenMu.Unlock()
		s.seen.lapsed[a] = term.Token
	}
}

// loses counts a reply that is about to be lost.
func (s *simulation) loses(r *testutil.Request) {
	if kind := s.kindOf(r); kind != "" {
		s.meets("lost reply: " + kind)
	}
}

// simWrites are the kinds of requests that change something.
var simWrites = []string{
	"ballot", "acknowledgement", "leader's withdrawal", "withdrawal",
	"proclaimed acknowledgement", "proclaimed ballot", "heartbeat", "count", "handshake", "move", "request for a transfer",
}

// kindOf tells them apart; "" for the others.
func (s *simulation) kindOf(r *testutil.Request) string {
	ballot, ack := s.path+"/ballot", s.path+"/leader_ack"
	switch {
	case r.Op == testutil.OpConnect:
		return "handshake"
	case r.Op == testutil.OpCreate && strings.HasPrefix(r.Path, ballot):
		return "ballot"
	case r.Op == testutil.OpDelete && strings.HasPrefix(r.Path, ballot):
		return "withdrawal"
	case isHeartbeat(r):
		return "heartbeat"
	}
	if isMove(r) {
		return "move"
	}
	for _, op := range r.Ops {
		switch {
		case op.Op == testutil.OpCheck:
		case strings.HasPrefix(op.Path, s.path+"/"+transferName):
			return "request for a transfer"
		case op.Path == s.counter.path:
			return "count"
		case op.Op == testutil.OpCreate && op.Path == ack:
			return "acknowledgement"
		case op.Op == testutil.OpCreate && strings.HasPrefix(op.Path, ballot):
			return "ballot" // with the election's node
		case op.Op == testutil.OpSetData && op.Path == ack:
			return "proclaimed acknowledgement"
		case op.Op == testutil.OpSetData && strings.HasPrefix(op.Path, ballot):
			return "proclaimed ballot"
		case op.Op == testutil.OpDelete && strings.HasPrefix(op.Path, ballot):
			return "leader's withdrawal"
		}
	}
	return ""
}

func isHeartbeat(r *testutil.Request) bool {
	return r.Op == testutil.OpMulti && len(r.Ops) == 1 && r.Ops[0].Op == testutil.OpCheck
}
