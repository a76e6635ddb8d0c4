//go:build linux

package chaos

import (
	"flag"
	"time"
)

// Without these flags the package's tests are the short ones, which hold under
// any load: the long run also measures time, and wants the machine for itself.
var (
	flagFaults    = flag.Int("chaos.faults", 0, "faults that TestChaos injects at least; 0 for as many as -chaos.duration has room for")
	flagDuration  = flag.Duration("chaos.duration", 0, "how long TestChaos injects faults, unless -chaos.faults wants more")
	flagSeed      = flag.Uint64("chaos.seed", 0, "seed of the faults' order, targets and durations; 0 for another each time")
	flagRolls     = flag.Int("chaos.rolls", 1, "rolling restarts in TestChaos")
	flagCuts      = flag.Int("chaos.cuts", 1, "rounds of TestFollowerCutOff; from 2 on TestKilledWhileCutOff is done, too")
	flagObservers = flag.Int("chaos.observers", 0, "rounds of TestClientsOfObservers; 0 for none")
	flagKills     = flag.Int("chaos.kills", 1, "rounds of TestKilledLeader")
	flagPeers     = flag.Bool("chaos.peers", false, "measure other libraries in TestFollowerCutOff and TestKilledLeader, too")
	flagStops     = flag.Int("chaos.stops", 3, "rounds of TestStoppedLeaderWithUnreadData")
	flagGuard     = flag.Bool("chaos.guard", false, "the candidates of TestChaos have a guard each")
	flagReport    = flag.String("chaos.report", "", "directory to write the report and its picture to")
)

// sessionTimeout is that of all tests but the rolling restart.
const sessionTimeout = 4 * time.Second
