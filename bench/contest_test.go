//go:build linux

package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/bench/internal/packets"
	"github.com/zkelection/election/bench/internal/report"
	"github.com/zkelection/election/internal/monotonic"
	"github.com/zkelection/election/testutil/realzk"
)

const (
	// long is the timeout of most sessions: what candidates do by the clock falls between few of the measurements.
	long = 30 * time.Second
	// settle is for what clients do by themselves once they are connected.
	settle = 200 * time.Millisecond
	// rest is for the client's beginning on the one new session of a series, so that joining is measured and not that.
	rest = 10 * time.Millisecond
)

// scale is how much is measured.
type scale struct {
	ns       []int
	warmups  int             // failovers of each contestant that are not counted: virtual machines learn
	rounds   int             // turns of each contestant
	series   int             // failovers in a turn, after a first one that is not counted
	joins    func(n int) int // rounds of joining
	counted  int             // failovers whose packets are counted
	idle     time.Duration   // in which packets are counted while nothing happens
	kills    int
	stops    int
	together bool          // stop the server for all at once
	timeout  time.Duration // of the sessions whose end is waited for
	apart    time.Duration
	warmJoin int
}

var full = scale{
	ns: []int{2, 10, 100, 500}, warmups: 30, rounds: 6, series: 10, counted: 20, idle: 3 * time.Second, kills: 15, stops: 3, timeout: 2 * time.Second,
	joins: func(n int) int { return map[int]int{2: 20, 10: 20, 100: 10, 500: 3}[n] }, apart: 50 * time.Millisecond, warmJoin: 3,
}

var smoke = scale{
	ns: []int{2, 10}, warmups: 2, rounds: 2, series: 3, counted: 3, idle: settle, kills: 1, stops: 1, together: true, timeout: 4 * time.Second,
	joins: func(int) int { return 2 }, apart: 50 * time.Millisecond, warmJoin: 1,
}

// contest is a run.
type contest struct {
	t       *testing.T
	scale   scale
	with    *contestants
	machine report.Machine
	rows    map[string][]*report.Row // by what they show, one for each N
}

const (
	failover = "clean failover, in a series: to OnWin"
	toAck    = "the same, to the acknowledgement"
	perFail  = "packets of a failover"
	joinOne  = "one joins behind N - 1, on a new session"
	perJoin  = "packets of that, and of the session's beginning"
	joinAll  = "all join at once, on new sessions"
	placeAll = "the same, until each has its place, and knows no leader yet"
	perAll   = "packets of that for each, until all know the leader"
	atIdle   = "packets a second while nothing happens, T = 30 s"
	stopped  = "server stopped for 2.5 T and continued, the session over: leads again after"
	killed   = "kill -9 of the leader: until the next leads"
)

// shown is the order of the rows in the table.
var shown = []string{failover, toAck, perFail, joinOne, perJoin, joinAll, placeAll, perAll, atIdle, stopped, killed}

// row finds or makes the row of that name, and looks at the machine's load.
func (c *contest) row(what string, n int, unit report.Unit, goals ...report.Goal) *report.Row {
	var found *report.Row
	for _, r := range c.rows[what] {
		if r.N == n {
			found = r
		}
	}
	if found == nil {
		found = &report.Row{What: what, N: n, Unit: unit, Goals: goals}
		c.rows[what] = append(c.rows[what], found)
	}
	average := loadAverage(c.t)
	found.Load.See(average)
	c.machine.During.See(average)
	return found
}

func loadAverage(t *testing.T) float64 {
	text, err := os.ReadFile("/proc/loadavg")
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(text), " ")
	average, err := strconv.ParseFloat(first, 64)
	require.NoError(t, err)
	return average
}

// zookeeper starts one server, with the compiler that runs fast, as in production.
func (c *contest) zookeeper() *realzk.Ensemble {
	e := realzk.StartZooKeeperWith(c.t, 1, realzk.EnsembleOptions{TickTime: tick, JavaOptions: []string{"-XX:TieredStopAtLevel=4", "-Xmx1g"}})
	return e
}

// all starts every contestant, with n candidates each.
func (c *contest) all(server, path string, n int) (all []*process, err error) {
	for _, name := range report.Contestants {
		p, err := c.with.start(name, server, path, long, n)
		if err != nil {
			killAll(all)
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// turns calls fn for each contestant, in another order each round.
func turns(all []*process, round int, fn func(p *process) error) error {
	for i := range all {
		if err := fn(all[(i+round)%len(all)]); err != nil {
			return err
		}
	}
	return nil
}

// afresh gives those that do not stand new sessions, but not Curator's: to its latch the age of a session is all one, and
// closing one stops all the clients in its process for 0.1 s (see there).
func afresh(p *process) error {
	if p.name == report.Curator {
		return nil
	}
	return p.renew()
}

// times measures joining and failovers with n candidates.
func (c *contest) times(zookeeper *realzk.Ensemble, n int) error {
	all, err := c.all(zookeeper.Servers()[0], fmt.Sprintf("/times%d", n), n)
	if err != nil {
		return err
	}
	defer func() { killAll(all) }()

	goal := func(of string) report.Goal { return report.Goal{Of: of, AtMost: 1, ToFloor: true} }
	warm := c.scale.warmJoin
	if n > 100 {
		warm = min(warm, 1) // so many are enough for a virtual machine to learn
	}
	for round := range warm + c.scale.joins(n) {
		err := turns(all, round, func(p *process) error {
			if err := afresh(p); err != nil {
				return err
			}
			time.Sleep(settle)
			took, placed, err := p.join()
			if err != nil {
				return err
			}
			if round >= warm {
				c.row(joinAll, n, report.Seconds, goal(report.Hot), goal(report.Cold)).Add(p.name, took)
				if placed > 0 {
					c.row(placeAll, n, report.Seconds, goal(report.Hot), goal(report.Cold)).Add(p.name, placed)
				}
			}
			return p.leave()
		})
		if err != nil {
			return err
		}
	}

	if err := turns(all, 0, func(p *process) error { _, _, err := p.join(); return err }); err != nil {
		return err
	}
	one := func(p *process) (led, acked, joined float64, err error) {
		began := time.Now()
		if led, acked, err = p.resign(); err != nil {
			return 0, 0, 0, err
		}
		if err := afresh(p); err != nil {
			return 0, 0, 0, err
		}
		time.Sleep(rest)
		if joined, _, err = p.join(); err != nil {
			return 0, 0, 0, err
		}
		time.Sleep(c.scale.apart - time.Since(began))
		return led, acked, joined, nil
	}
	if err := turns(all, 0, func(p *process) error {
		for range c.scale.warmups {
			if _, _, _, err := one(p); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for round := range c.scale.rounds {
		err := turns(all, round, func(p *process) error {
			for i := range 1 + c.scale.series {
				led, acked, joined, err := one(p)
				if err != nil {
					return err
				}
				if i == 0 {
					continue // it comes after a while in which nothing happened
				}
				c.row(failover, n, report.Seconds, goal(report.Hot)).Add(p.name, led)
				if acked > 0 {
					c.row(toAck, n, report.Seconds, goal(report.Hot)).Add(p.name, acked)
				}
				c.row(joinOne, n, report.Seconds, goal(report.Hot), goal(report.Cold)).Add(p.name, joined)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return turns(all, 0, (*process).end)
}

// count counts the packets of failovers and of joining.
func (c *contest) count(zookeeper *realzk.Ensemble, n int) error {
	for _, name := range report.Contestants {
		if err := c.countOf(zookeeper, name, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *contest) countOf(zookeeper *realzk.Ensemble, name string, n int) error {
	const quiet = 20 * time.Millisecond
	proxy, err := packets.Start(zookeeper.Servers()[0])
	if err != nil {
		return err
	}
	defer proxy.Close()
	p, err := c.with.start(name, proxy.Address(), fmt.Sprintf("/packets%d", n), long, n)
	if err != nil {
		return err
	}
	defer p.kill()
	// between counts what is asked until all is quiet.
	between := func(do func() error) (packets.Counts, error) {
		before, err := proxy.Counts()
		if err != nil {
			return nil, err
		}
		if err := do(); err != nil {
			return nil, err
		}
		proxy.Quiet(quiet, 10*quiet)
		after, err := proxy.Counts()
		return after.Since(before), err
	}
	join := func() error { _, _, err := p.join(); return err }
	// The first time the election's node is not there.
	if err := join(); err != nil {
		return err
	}
	if err := p.leave(); err != nil {
		return err
	}
	if err := afresh(p); err != nil {
		return err
	}
	time.Sleep(settle)
	together, err := between(join)
	if err != nil {
		return err
	}
	c.row(perAll, n, report.Packets).Add(name, float64(together.Total())/float64(n))
	time.Sleep(settle)
	atRest, err := between(func() error { time.Sleep(c.scale.idle); return nil })
	if err != nil {
		return err
	}
	c.row(atIdle, n, report.Packets).Add(name, float64(atRest.Total())/c.scale.idle.Seconds())
	for i := range 1 + c.scale.counted {
		failed, err := between(func() error { _, _, err := p.resign(); return err })
		if err != nil {
			return err
		}
		joined, err := between(func() error {
			if err := p.renew(); err != nil {
				return err
			}
			return join()
		})
		if err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		c.row(perFail, n, report.Packets, report.Goal{Of: report.Hot, AtMost: 5}).Add(name, float64(failed.Total()))
		delete(joined, packets.CloseSession) // the former session's
		c.row(perJoin, n, report.Packets).Add(name, float64(joined.Total()))
		if i == c.scale.counted {
			c.t.Logf("N = %d, %s: a failover: %v; one that joins: %v", n, name, failed, joined)
		}
	}
	return p.end()
}

// kills kills leaders, each contestant's at moments of its own.
func (c *contest) kills(zookeeper *realzk.Ensemble) error {
	const n = 4
	server := zookeeper.Servers()[0]
	row := c.row(killed, n, report.Timeouts)
	errs := make(chan error, len(report.Contestants))
	var mu sync.Mutex
	took := make(map[string][]float64)
	for _, name := range report.Contestants {
		go func() {
			errs <- func() error {
				rest, err := c.with.start(name, server, "/kills", c.scale.timeout, n-1)
				if err != nil {
					return err
				}
				defer rest.kill()
				for range c.scale.kills {
					seconds, err := c.killOne(name, server, rest)
					if err != nil {
						return err
					}
					mu.Lock()
					took[name] = append(took[name], seconds/c.scale.timeout.Seconds())
					mu.Unlock()
				}
				return nil
			}()
		}()
	}
	for range report.Contestants {
		if err := <-errs; err != nil {
			return err
		}
	}
	c.row(killed, n, report.Timeouts) // the load by now
	for name, all := range took {
		for _, v := range all {
			row.Add(name, v)
		}
	}
	return nil
}

func (c *contest) killOne(name, server string, rest *process) (seconds float64, err error) {
	leader, err := c.with.start(name, server, "/kills", c.scale.timeout, 1)
	if err != nil {
		return 0, err
	}
	defer leader.kill()
	if _, _, err := leader.join(); err != nil {
		return 0, err
	}
	if _, err := leader.leadAfter(0, 10*c.scale.timeout); err != nil {
		return 0, err
	}
	if _, _, err := rest.join(); err != nil {
		return 0, err
	}
	// For the hot ones to have a lease, and at any moment between two pings.
	time.Sleep(c.scale.timeout/2 + time.Duration(rand.Float64()*float64(c.scale.timeout)/2))
	at := monotonic.Now()
	leader.kill()
	next, err := rest.leadAfter(at, 10*c.scale.timeout)
	if err != nil {
		return 0, err
	}
	return float64(next.at-at) / 1e9, rest.leave()
}

// stops stops the server for longer than the session timeout, with one candidate of each contestant, in turns.
func (c *contest) stops(zookeeper *realzk.Ensemble) error {
	names := []string{report.Hot, report.Curator, report.Kazoo}
	if c.scale.together {
		return c.stop(zookeeper, "/stops", names...)
	}
	// A client that is quicker than the server's clock keeps its session: then once more.
	for round := range 3 * c.scale.stops {
		for _, name := range names {
			row := c.row(stopped, 1, report.Seconds)
			if len(row.Values[name]) == c.scale.stops {
				continue
			}
			if err := c.stop(zookeeper, fmt.Sprintf("/stops%d", round), name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *contest) stop(zookeeper *realzk.Ensemble, path string, names ...string) error {
	t := c.scale.timeout
	all := make(map[*process]lead)
	defer func() {
		for p := range all {
			p.kill()
		}
	}()
	for _, name := range names {
		p, err := c.with.start(name, zookeeper.Servers()[0], path, t, 1)
		if err != nil {
			return err
		}
		all[p] = lead{}
		if _, _, err := p.join(); err != nil {
			return err
		}
		if all[p], err = p.leadAfter(0, 10*t); err != nil {
			return err
		}
	}
	time.Sleep(time.Second) // leads in peace
	zookeeper.Pause(0)
	time.Sleep(5 * t / 2)
	at := monotonic.Now()
	zookeeper.Resume(0)
	for p, first := range all {
		again, err := p.leadAfter(at, 5*t)
		if errors.Is(err, errNobodyLeads) && p.name == report.Kazoo {
			again = first // it went on leading: its session was kept
		} else if err != nil {
			return err
		}
		row := c.row(stopped, 1, report.Seconds)
		row.Goals = []report.Goal{{Of: report.Hot, AtMost: 0.1}}
		if again.session == first.session {
			c.t.Logf("%s kept its session, which says nothing", p.name)
			continue
		}
		row.Add(p.name, float64(again.at-at)/1e9)
	}
	return nil
}
