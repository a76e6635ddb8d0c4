package proof

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// electionModel is one configuration of election.pml: how many candidates, and how often each thing may go wrong.
type electionModel struct {
	defs string
	// file is the model's; election.pml when empty.
	file string
	// large: worth optimizing the verifier for.
	large bool
	// long: only in the long form.
	long bool
}

// electionModels are checked exhaustively: no order of events violates a property, and whenever nothing is left to
// happen, one candidate leads, if anybody wants to.
var electionModels = []electionModel{
	{defs: "EXP=1 LOST=1 LAPSE=1 RESIGN=1", large: true},
	{defs: "EXP=1 DEMOTE=1 LOST=1 LAPSE=1", large: true},
	{defs: "HAND=1 LAPSE=1 RESIGN=2"},
	{defs: "HAND=1 LOST=1 DEAF=1 EXP=1", large: true},
	{defs: "DEMOTE=2 RESIGN=1 VOTES=1 LOST=1"},
	{defs: "FAIL=1 VOTES=1 EXP=1 LOST=1"},
	{defs: "LAG EXP=1 LOST=1"},
	{defs: "LAG LOST=1 LAPSE=1 RESIGN=1"},
	{defs: "LAG DEMOTE=1 LAPSE=1 LOST=1"},
	{defs: "N=3 EXP=1"},
	{defs: "N=3 RESIGN=1 LOST=1"},
	{defs: "N=3 DEMOTE=1 LOST=1"},
	{defs: "N=3 HAND=1"},

	{defs: "EXP=1 LOST=1 LAPSE=1 RESIGN=1 VOTES=1", large: true, long: true},
	{defs: "EXP=1 LOST=1 LAPSE=1 HAND=1 DEAF=1", large: true, long: true},
	{defs: "EXP=2 LOST=2", large: true, long: true},
	{defs: "LAG EXP=1 LOST=1 DEMOTE=1 RESIGN=1", large: true, long: true},
	{defs: "N=3 EXP=1 LOST=1", large: true, long: true},
	{defs: "N=3 EXP=1 RESIGN=1", large: true, long: true},
	{defs: "N=3 DEMOTE=1 EXP=1", large: true, long: true},
	{defs: "N=3 DEMOTE=1 LAPSE=1 LOST=1", large: true, long: true},
	{defs: "N=3 HAND=1 LOST=1", large: true, long: true},
}

// electionCycles are searched for a cycle: there is none at all, so whatever the order, something is left to happen
// only finitely often. With the above: somebody leads in the end.
var electionCycles = []electionModel{
	{defs: "EXP=1 LAPSE=1 LOST=1"},
	{defs: "DEMOTE=1 RESIGN=1 VOTES=1 LOST=1"},
	{defs: "HAND=1 DEAF=1 LAPSE=1"},
	{defs: "LAG LOST=1 RESIGN=1"},
	{defs: "FAIL=1 VOTES=1 LOST=1"},
	{defs: "N=3 EXP=1", large: true, long: true},
	{defs: "N=3 DEMOTE=1 LOST=1", large: true, long: true},
}

// unlearned is one thing that the model un-learns, and the property that is violated then.
type unlearned struct {
	macro    string // UNLEARN_ and this
	defs     string
	violates string
	// design: there is no file of mutations/ for it, because the code does not have it yet, or why else.
	design string
}

// mutation is the name of the file of mutations/ that un-learns the same in the code.
func (u unlearned) mutation() string { return strings.ReplaceAll(strings.ToLower(u.macro), "_", "-") }

var electionUnlearned = []unlearned{
	{macro: "ACK_LEFT_BEHIND", defs: "RESIGN=1", violates: "ack_without_ballot"},
	{macro: "ACK_OUTLIVES_BALLOT", defs: "HAND=1 LAPSE=1 RESIGN=2", violates: "ack_without_ballot"},
	{macro: "ACK_UNGUARDED", defs: "EXP=1", violates: "ack_without_ballot"},
	{macro: "BALLOT_BEFORE_DRAIN", defs: "RESIGN=1", violates: "work_goes_on"},
	{macro: "BLIND_TO_OWN_BALLOT", defs: "HAND=1", violates: "two_leaders"},
	{macro: "CLEAN_UP_GIVES_UP", defs: "RESIGN=1 LOST=1", violates: "ballot_unserved"},
	{macro: "CLOSE_OVERTAKES_CAST", defs: "RESIGN=1", violates: "ballot_unserved"},
	{macro: "FAILED_TAKEOVER_ACKNOWLEDGED", defs: "FAIL=1", violates: "failed_leads"},
	{macro: "FAILED_TAKEOVER_STAYS", defs: "FAIL=1", violates: "failed_leads"},
	{macro: "FOREIGN_ACK_KEPT", defs: "HAND=1", violates: "foreign_ack"},
	{macro: "LAGGING_SERVER_BELIEVED", defs: "RESIGN=1 LOST=1", violates: "ack_without_ballot"},
	{macro: "LEASE_OUTLASTS_SESSION", defs: "EXP=1", violates: "two_leaders"},
	{macro: "LOST_REPLY_FORGOTTEN", defs: "RESIGN=1 LOST=1", violates: "ballot_unserved"},
	{macro: "NEW_TAG_EACH_TRY", defs: "LOST=1", violates: "two_ballots"},
	{macro: "NO_SECOND_LOOK", defs: "N=3 RESIGN=1", violates: "two_leaders"},
	{macro: "NO_VOTE_AFTER_EXPIRY", defs: "EXP=1", violates: "unfinished"},
	{macro: "ORDER_BY_NAME", defs: "", violates: "two_leaders"},
	{macro: "RESIGN_OVERTAKEN", defs: "RESIGN=1 VOTES=1", violates: "resignation_forgotten"},
	{macro: "SESSION_LOSS_UNNOTICED", defs: "EXP=1", violates: "two_leaders"},
	{macro: "WATCH_TRUSTED", defs: "EXP=1 DEAF=1", violates: "nobody_leads"},

	{macro: "BARRIER", defs: "LOST=1", violates: "two_ballots", design: "the simulation has no name for it"},
	{macro: "CLAIMS_WHILE_MOVING", defs: "DEMOTE=1", violates: "ballot_unserved"},
	{macro: "MOVED_TAKEN_FOR_DELETED", defs: "DEMOTE=1", violates: "two_ballots"},
	{macro: "MOVE_ACK_UNSETTLED", defs: "DEMOTE=1 LAPSE=1 LOST=1", violates: "ack_without_ballot", design: "no test of its own tells it from the others"},
	{macro: "MOVE_KEEPS_PLACE", defs: "DEMOTE=1", violates: "token_fell", design: "no test of its own tells it from the others"},
	{macro: "MOVE_LEAVES_ACKNOWLEDGEMENT", defs: "DEMOTE=1 LAPSE=1", violates: "ack_without_ballot"},
}

// electionReached are situations that the model must be able to meet: what never happens proves nothing.
var electionReached = map[string]string{
	"1": "RESIGN=2 VOTES=1", "2": "RESIGN=1 LOST=1", "3": "LOST=1", "4": "DEMOTE=1 LOST=1", "5": "LAPSE=1", "6": "HAND=1",
	"9": "EXP=1 LOST=1 LAPSE=1",
}

// TestElection checks the model.
func TestElection(t *testing.T) {
	needTools(t, "spin", "gcc")
	for _, m := range electionModels {
		t.Run("safe/"+m.defs, func(t *testing.T) {
			m.check(t, "-DSAFETY")
		})
	}
	for _, m := range electionCycles {
		t.Run("no cycle/"+m.defs, func(t *testing.T) {
			m.check(t, "-DNP", "-l")
		})
	}
	for _, u := range electionUnlearned {
		t.Run("unlearned/"+u.macro, func(t *testing.T) {
			t.Parallel()
			out := verify(t, "election.pml", "SLACK=2 UNLEARN_"+u.macro+" "+u.defs, false, "-DSAFETY")
			assert.Equal(t, u.violates, violated(out), "violates:\n%s", out)
		})
	}
	for number, defs := range electionReached {
		t.Run("reached/"+number, func(t *testing.T) {
			t.Parallel()
			out := verify(t, "election.pml", "REACH="+number+" "+defs, false, "-DSAFETY")
			assert.Equal(t, "met", violated(out), "with %s it never happens:\n%s", defs, out)
		})
	}
}

func (m electionModel) check(t *testing.T, compile string, flags ...string) {
	if m.long && *prove != "long" {
		t.Skip("only with -prove=long")
	}
	t.Parallel()
	file := m.file
	if file == "" {
		file = "election.pml"
	}
	out := verify(t, file, m.defs, m.large, compile, flags...)
	require.True(t, strings.Contains(out, "errors: 0"), "not proved:\n%s", out)
	require.False(t, strings.Contains(out, "Search not completed") || strings.Contains(out, "max search depth too small"), "not proved:\n%s", out)
	t.Logf("%s states", regexp.MustCompile(`\d+ states, stored`).FindString(out))
}

var violation = regexp.MustCompile(`assertion violated\s+!\((\w+)\)`)

// violated returns which property a counterexample is against.
func violated(out string) string {
	if m := violation.FindStringSubmatch(out); m != nil {
		return m[1]
	}
	return ""
}

// verify builds a verifier for one configuration and runs it.
func verify(t *testing.T, file, defs string, large bool, compile string, flags ...string) string {
	dir := t.TempDir()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, file), text, 0o600))
	args := []string{"-a"}
	for _, def := range strings.Fields(defs) {
		args = append(args, "-D"+def)
	}
	out, err := run(t, dir, "", "spin", append(args, file)...)
	require.NoError(t, err, "spin: %s", out)
	require.NotContains(t, out, "Error", "spin")
	// The memory of one verifier is bounded, and two run at a time.
	build := []string{"-w", "-DCOLLAPSE", "-DMEMLIM=1800", "-DVECTORSZ=4096", compile, "-O0", "-o", "pan", "pan.c"}
	if *prove == "long" {
		build[2] = "-DMEMLIM=8000"
	}
	if large {
		build[slices.Index(build, "-O0")] = "-O1"
	}
	out, err = run(t, dir, "", "gcc", build...)
	require.NoError(t, err, "gcc: %s", out)
	out, err = run(t, dir, "", filepath.Join(dir, "pan"), append([]string{"-m300000"}, flags...)...)
	require.NoError(t, err, "the verifier: %s", out)
	return out
}
