package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// server is a follower and the ensemble's leader, as the argument for the
// lease describes them: requests take time, the follower tells the leader of
// its clients' signs of life only with its answers to the leader's pings, every
// half tick, and the leader expires a session T after it last heard of it.
type server struct {
	rule  Rule
	heard Instant   // newest sign of life that the follower knows
	told  Instant   // newest that the leader knows
	pings []Instant // when the leader's pings were answered; one each half tick
}

// at moves the server's time on: every half tick the leader learns what the
// follower has heard.
func (s *server) at(t Instant) {
	for len(s.pings) == 0 || s.pings[len(s.pings)-1]+s.rule.Tick/2 <= t {
		next := Instant(0)
		if n := len(s.pings); n > 0 {
			next = s.pings[n-1] + s.rule.Tick/2
		}
		s.pings = append(s.pings, next)
		s.told = s.heard
	}
}

// expires is when the leader ends the session at the earliest.
func (s *server) expires() Instant { return s.told + s.rule.Timeout }

// A process beats every T/8, is stopped for a while with an answer or a watch
// event unread in its socket, and goes on: a heartbeat is answered within
// milliseconds. The lease must never reach past the session's end. The simpler
// rule, valid until s + T/2 after any answered heartbeat, does: it is the
// negative control.
func TestLeaseRuleAfterStop(t *testing.T) {
	const T, tick = 4 * time.Second, 2 * time.Second
	rule := NewRule(T, tick)
	broken := 0
	for stop := 100 * time.Millisecond; stop < 2*T; stop += 50 * time.Millisecond {
		for phase := time.Duration(0); phase < tick; phase += 100 * time.Millisecond {
			s := &server{rule: rule, pings: []Instant{-phase}}
			heard := newContacts(T)
			heard.establish(0)
			now, previous := Instant(0), Instant(-1)
			var until Instant
			beat := func() {
				sent := now
				s.at(now)
				now += 2 * time.Millisecond
				if now >= s.expires() {
					return // the session is gone: no answer
				}
				s.heard = sent
				heard.add(sent, now)
				if previous >= 0 {
					if end, ok := rule.end(heard, previous); ok {
						until = max(until, end)
					}
				}
				previous = sent
				// Whatever comes now, the lease ends before the session can.
				require.LessOrEqual(t, until, s.expires(), "stop %v, phase %v: the lease ends after the session", stop, phase)
				if simple := sent + T/2; simple > s.expires() {
					broken++
				}
			}
			pause := rule.oneAtATime(2 * time.Millisecond).pause
			for range 20 {
				beat()
				now += pause
			}
			// The session would end at s.expires() if nothing more is heard.
			now += stop
			for range 3 {
				beat()
				now += time.Millisecond
			}
		}
	}
	require.NotZero(t, broken, "the simpler rule was not caught: the model is too kind")
	t.Logf("the simpler rule outlives the session in %d cases", broken)
}

// The rule by itself.
func TestLeaseRuleEnd(t *testing.T) {
	const T = 12 * time.Second
	rule := NewRule(T, 0)
	second := time.Second
	require.Equal(t, T/2, rule.Tick)
	require.Equal(t, 11*second, rule.Duration())
	// Half a tick and a hundredth of T, by a clock that is a twelfth too fast.
	require.Equal(t, 3380*time.Millisecond, rule.pingPeriod())
	for _, c := range []struct {
		name        string
		contacts    []contact
		established Instant // negative: the handshake does not count
		previous    Instant
		want        Instant // 0: no lease
	}{
		{"nothing heard", nil, -1, 10 * second, 0},
		{"only the handshake", nil, 2 * second, 10 * second, 13 * second},
		{"answered a ping period before", []contact{{6 * second, 6620 * time.Millisecond}}, -1, 10 * second, 17 * second},
		{"answered a moment too late", []contact{{6 * second, 6620*time.Millisecond + 1}}, -1, 10 * second, 0},
		{"the newest that is old enough", []contact{{1 * second, 2 * second}, {5 * second, 6 * second}, {8 * second, 9 * second}}, -1, 10 * second, 16 * second},
		{"the handshake is newer", []contact{{1 * second, 2 * second}}, 4 * second, 10 * second, 15 * second},
	} {
		heard := newContacts(T)
		if c.established >= 0 {
			heard.establish(c.established)
		}
		for _, x := range c.contacts {
			heard.add(x.sent, x.answered)
		}
		got, ok := rule.end(heard, c.previous)
		assert.Equal(t, c.want != 0, ok, c.name)
		if ok {
			assert.Equal(t, c.want, got, c.name)
		}
	}
}

func TestLeaseRuleNext(t *testing.T) {
	const T = 12 * time.Second
	rule := NewRule(T, 0)
	const second, ms = time.Second, time.Millisecond
	for _, c := range []struct {
		name     string
		contacts []contact
		previous Instant // answered a tenth of a second later
		answered bool
		until    Instant
		now      Instant
		want     Instant
	}{
		{"the first", nil, 0, false, 0, 5 * second, 5 * second},
		{"in good time", nil, 5 * second, true, 15 * second, 6 * second, 6790 * ms},
		{"one more makes it", []contact{{1 * second, 1500 * ms}, {5 * second, 5 * second}}, 5 * second, true, 0, 5 * second, 5 * second},
		{"nothing old enough: when the oldest is", []contact{{4 * second, 4 * second}, {5 * second, 5 * second}}, 5 * second, true, 0, 5 * second, 7380 * ms},
		{"there is little of a lease: the pace is kept", []contact{{4 * second, 4 * second}, {5 * second, 5 * second}}, 5 * second, true, 6500 * ms, 5100 * ms, 6790 * ms},
		{"that is now", []contact{{4 * second, 4 * second}, {5 * second, 5 * second}}, 5 * second, true, 0, 8 * second, 8 * second},
	} {
		heard := newContacts(T)
		for _, x := range c.contacts {
			heard.add(x.sent, x.answered)
		}
		assert.Equal(t, c.want, rule.next(heard, c.previous, c.previous+100*ms, c.answered, c.until, c.now), c.name)
	}
}

// The slower the answers, the shorter the pause; where one heartbeat at a time would
// leave too little of the lease, they overlap. What the lease stands on must be younger
// than the lease lasts: that holds up to a delay of 0.17 T, and with a short tick
// beyond it.
func TestLeaseRulePace(t *testing.T) {
	const T = 24 * time.Second
	for _, c := range []struct {
		tick, delay time.Duration
		pause       time.Duration
		overlap     bool
		keeps       bool
	}{
		{0, 0, 3380 * time.Millisecond, false, true},
		{0, T / 32, 2253333334, false, true},
		{0, T / 16, 677500000, false, true},
		{0, T / 12, 0, false, true},
		{0, T / 9, 0, false, true},
		{0, T / 8, 0, true, true},
		{0, T * 2 / 13, 0, true, true},
		{0, T / 6, 0, true, true},
		{0, T * 12 / 100, 525333334, false, true},
		{0, T * 122 / 1000, 0, true, true},
		{0, T * 17 / 100, 0, true, true},
		{0, T * 18 / 100, 0, false, false},
		{0, T / 5, 0, false, false},
		{T / 6, 0, 3 * time.Second, false, true},
		{T / 6, T / 8, 0, false, true},
		{T / 6, T / 6, 0, false, true},
		{T / 6, T / 5, 0, true, true},
		{T / 6, T / 4, 0, false, false},
		{T, 0, 3315 * time.Millisecond, false, true},
		{T, T / 32, 0, true, true},
	} {
		rule := NewRule(T, c.tick)
		p := rule.pace(c.delay, c.delay)
		assert.Equal(t, c.overlap, p.overlaps, "tick %v, delay %v", c.tick, c.delay)
		assert.Equal(t, c.keeps, p.age < rule.Duration(), "tick %v, delay %v: %v old", c.tick, c.delay, p.age)
		if c.overlap {
			assert.Equal(t, T/32, p.pause)
			continue
		}
		assert.Equal(t, c.pause, p.pause, "tick %v, delay %v", c.tick, c.delay)
		most := 8 * (p.pause + c.delay)
		if c.delay > T/32 {
			most = 12 * (p.pause + c.delay)
		}
		assert.GreaterOrEqual(t, most, T, "tick %v, delay %v: more heartbeats in T than eight, or twelve", c.tick, c.delay)
	}
	rule := NewRule(T, 0)
	assert.True(t, rule.pace(T/100, T/6).overlaps, "the next answer can take as long as the slowest of late")
	assert.True(t, rule.pace(T/100, T/2).overlaps)
	assert.False(t, rule.pace(T/2, T/2).overlaps)
	assert.Equal(t, rule.oneAtATime(T/2), rule.pace(T/2, T/100), "the next one is sent at once")
}

func TestFeasible(t *testing.T) {
	const T = 12 * time.Second
	for tick, want := range map[time.Duration]bool{0: true, time.Second: true, T / 2: true, T: true, T + time.Second: false, 2 * T: false} {
		assert.Equal(t, want, NewRule(T, tick).Feasible(), "tick %v", tick)
	}
}
