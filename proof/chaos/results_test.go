//go:build linux

package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/zkelection/election/proof/chaos/internal/history"
	"github.com/zkelection/election/proof/chaos/internal/report"
)

// results is what the tests of this process have measured, for the report.
// The tests write it one after the other, TestMain reads it after them.
var results struct {
	seed         uint64
	cutsPossible bool
	version      string // of ZooKeeper
	main         *report.Phase
	rolling      *report.Phase
	contestants  []string // of the cuts, in their order
	cuts         []followerCut
	stops        *stopResult
	observers    *observerResult

	killContestants []string // of the kills, in their order
	kills           []leaderKilled
}

// reportName is that of the report's files: chaos for the release that is the default, chaos-3.9 for another.
func reportName(version string) string {
	release, _, _ := strings.Cut(strings.TrimPrefix(version, "3."), ".")
	if release = "3." + release; release != "3.8" {
		return "chaos-" + release
	}
	return "chaos"
}

func TestReportName(t *testing.T) {
	for version, want := range map[string]string{"3.8.0": "chaos", "3.8.4": "chaos", "3.9.3": "chaos-3.9", "3.10.0": "chaos-3.10"} {
		assert.Equal(t, want, reportName(version))
	}
}

// writeReport writes the report and its picture.
func writeReport(dir string) error {
	if results.main == nil {
		return nil
	}
	p := results.main
	faults := p.Faults()
	var svg, md bytes.Buffer
	title := fmt.Sprintf("Who led when: five candidates, three ZooKeeper nodes, %d faults in %.0f minutes, session timeout %v",
		len(faults), p.Run.Length().Minutes(), p.Timeout)
	if err := p.Picture(&svg, title); err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(&md, format+"\n", args...) }

	say("# Chaos on a real ensemble\n")
	say("For reviewers: what it did while servers and processes died. Written by `make chaos` (seed %d, %s, %d CPUs); do not edit.\n", results.seed, runtime.Version(), runtime.NumCPU())
	say("Three nodes of ZooKeeper %s, each in a network namespace of its own (tickTime %v, syncLimit %d), five candidates and two",
		results.version, tick, syncTicks)
	say("observers, each a process of its own. A nemesis kills them (`kill -9`), stops them (`SIGSTOP`, candidates with a watch")
	say("event unread in their socket) and cuts them off, one or two at a time; each time all must be well again before the next.")
	say("Between, and now and then during that, one of the candidates asks for leadership to be moved to another.")
	say("Every candidate asks `IsLeader` every 3 ms and writes down the answer and the end of its lease, all by CLOCK_MONOTONIC. A")
	say("candidate that is stopped or killed counts as a leader until its lease ends: it could not know better.\n")
	if !results.cutsPossible {
		say("**This run had no network namespaces: nothing was cut off.**\n")
	}
	say("| | found | allowed |")
	say("|---|--:|--:|")
	say("| faults | %d in %v | |", len(faults), p.Run.Length().Round(time.Second))
	say("| times that an election was won | %d | |", len(p.Leaderships))
	say("| times that two candidates led at once | %d | 0 |", len(p.Overlaps))
	say("| tokens that did not grow | %d | 0 |", len(p.Disorders))
	p.TransferRows(&md)
	say("| elections that took longer than %v with a quorum and a candidate there | %d | 0 |", p.Bound, len(p.TooLong))
	say("| time with a quorum in which there was an acknowledged leader, with a fault every %.1f s | %.1f %% | |",
		p.Run.Length().Seconds()/float64(len(faults)), 100*p.Led())
	say("| the longest that an observer took to know the leader once a fault was over | %v | |\n", p.Observers.Round(10*time.Millisecond))

	say("![who led when](%s.svg)\n", reportName(results.version))
	say("Time without an acknowledged leader, by fault; the last column leaves out the time in which there was no quorum. The")
	say("session timeout, %v, is what a dead leader costs; a leader that lives leads on through whatever is shorter than its", p.Timeout)
	say("lease. Percentiles are over the interruptions; where there are few, the 99th is the longest. An election that another")
	say("fault strikes begins anew for the bound above, so two faults at once may take longer than it.\n")
	p.Table(&md)

	if r := results.rolling; r != nil {
		say("\n## Rolling restart\n")
		say("The same processes with a session timeout of %v and the servers' TickTime given. The nodes are killed and started", r.Timeout)
		say("again one after the other, ZooKeeper's leader among them.\n")
		say("| node restarts | step-downs (allowed: 0) | two leaders at once (allowed: 0) | longest time in which no write was answered |")
		say("|--:|--:|--:|--:|")
		say("| %d | %d | %d | %.2f s |", len(r.Faults()), len(r.StepDowns), len(r.Overlaps), history.LongestPause(r.Events, r.Run).Seconds())
	}
	if len(results.cuts) > 0 {
		say("\n## The leader's follower cut off from its peers\n")
		say("ZooKeeper's default tickTime of 2 s and syncLimit of 5, session timeout %v. The cut follower goes on answering", sessionTimeout)
		say("reads and pings for 10 s. All of these stand on the same nodes, each in an election of its own, and are cut off at the")
		say("same moment; the recipe is that the lowest ballot leads while the client says that it is connected.\n")
		say("| %d cuts | the old leader stepped down after | the next led after | two leaders for |", len(results.cuts))
		say("|---|--:|--:|--:|")
		for i, name := range results.contestants {
			var down, until, overlap []string
			for _, c := range results.cuts {
				down = append(down, fmt.Sprintf("%.2f s", c[i].steppedDown.Seconds()))
				until = append(until, fmt.Sprintf("%.2f s", c[i].until.Seconds()))
				overlap = append(overlap, fmt.Sprintf("%.2f s", c[i].overlap.Seconds()))
			}
			say("| %s | %s | %s | **%s** |", name, strings.Join(down, ", "), strings.Join(until, ", "), strings.Join(overlap, ", "))
		}
	}
	if len(results.kills) > 0 {
		say("\n## The leader killed\n")
		say("`kill -9` of a leader on a healthy ensemble of tickTime %v, session timeout %v: how long until the next one led. A", tick, sessionTimeout)
		say("guard closes the session of the dead process; without one the session has to end by itself.\n")
		say("| %d kills | the next led after |", len(results.kills))
		say("|---|--:|")
		for i, name := range results.killContestants {
			var took []string
			for _, k := range results.kills {
				took = append(took, fmt.Sprintf("%.3f s", k[i].Seconds()))
			}
			say("| %s | %s |", name, strings.Join(took, ", "))
		}
	}
	if s := results.stops; s != nil {
		say("\n## The leader stopped for about the session timeout, data unread\n")
		say("Leaders on followers, stopped for 3.9 to 6.5 s with a session timeout of %v, a watch event arriving meanwhile. Beside", sessionTimeout)
		say("the library a lease that is simpler, and wrong: half the session timeout from any heartbeat that was answered.\n")
		say("| | stops | times that two led at once | longest |")
		say("|---|--:|--:|--:|")
		say("| library | %d | %d | %.2f s |", s.stops, len(s.overlaps), s.longest.Seconds())
		say("| simpler lease | %d | **%d** | %.2f s |", s.simpleStops, s.simpleOverlaps, s.simpleLongest.Seconds())
	}
	if r := results.observers; r != nil {
		say("\n## Clients of ZooKeeper's observers\n")
		say("Candidates take over on a server that is cut off from its peers in that moment (tickTime %v, session timeout %v, %d", observerTick, observerTimeout, r.rounds)
		say("cuts of each). From the last yes of IsLeader to the end of the session, as the others see it: on the first two servers the")
		say("session has to last longer. The third, an observer behind that follower's `observerMasterPort`, is the control: its clients")
		say("must not be candidates ([protocol.md](protocol.md#5-the-lease)).\n")
		say("| the candidate's server | connection | takeovers | leases that outlasted the session | the least by which the session was longer |")
		say("|---|---|--:|--:|--:|")
		for place, name := range placeNames {
			for kind, o := range r.at[place] {
				say("| %s | %s | %d | **%d** | %.2f s |", name, kindNames[kind], o.takeovers, o.outlasted, o.closest.Seconds())
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, reportName(results.version)+".md"), md.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, reportName(results.version)+".svg"), svg.Bytes(), 0o644)
}
