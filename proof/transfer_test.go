package proof

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// The model of transfers and of moves to the end of the line, with as many rows as election.pml has.

var transferModels = []electionModel{
	{defs: "EXP=1", large: true},
	{defs: "LAPSE=1 LOST=1"},
	{defs: "PRIO=2 LOST=1"},
	{defs: "DEMOTE=1 LOST=1"},
	{defs: "DEAD=1", large: true},
	{defs: "HANG=1 LOST=1"},
	{defs: "RESIGN=1"},
	{defs: "FAIL=1 LOST=1"},
	{defs: "ASKS=2"},
	{defs: "OLD=1 EXP=1"},
	{defs: "GEM=1 EXP=1 LOST=1"},
	{defs: "GEM=2 UNACKED FAIL=1 DEMOTE=1"},
	{defs: "LAG LOST=1"},

	{defs: "EXP=1 LOST=1", large: true, long: true},
	{defs: "EXP=2", large: true, long: true},
	{defs: "EXP=1 PRIO=1 LOST=1", large: true, long: true},
	{defs: "EXP=1 DEMOTE=1 LAPSE=1", large: true, long: true},
	{defs: "ASKS=2 TWO LOST=1", large: true, long: true},
	{defs: "LAG EXP=1", large: true, long: true},
	{defs: "N=4", large: true, long: true},
	{defs: "N=4 GEM=2 UNACKED EXP=1 PRIO=1", large: true, long: true},
}

var transferCycles = []electionModel{
	{defs: "LOST=1"},
	{defs: "PRIO=1"},
	{defs: "EXP=1", large: true},
	{defs: "HANG=1 LAPSE=1", large: true, long: true},
}

var transferUnlearned = []unlearned{
	{macro: "EVENTS_TAKEN_WHILE_MOVING", defs: "EXP=1", violates: "two_leaders", design: modelOnly},
	{macro: "GEM_LEFT_WAITING", defs: "GEM=1 UNACKED DEMOTE=1 LAPSE=1", violates: "nobody_leads"},
	{macro: "LEADS_WHILE_PASSING", defs: "", violates: "two_leaders"},
	{macro: "MOVES_UNACKNOWLEDGED", defs: "N=4 GEM=2 UNACKED EXP=1 PRIO=1", violates: "nobody_leads"},
	{macro: "MOVES_UNASKED", defs: "", violates: "unasked"},
	{macro: "MOVES_WHEN_LOWEST", defs: "EXP=1 PRIO=1", violates: "lowest_moved"},
	{macro: "MOVE_KEEPS_PLACE", defs: "", violates: "two_leaders", design: "no test of its own tells it from the others"},
	{macro: "MOVE_LEAVES_ACK", defs: "", violates: "ack_without_ballot", design: "move-leaves-acknowledgement in election.pml"},
	{macro: "MOVE_WITHOUT_OWN", defs: "EXP=1", violates: "two_ballots", design: "the deletion is the move"},
	{macro: "NO_PAUSE", defs: "HANG=1 LAPSE=1", violates: aCycle, design: "no test of its own tells it from the others"},
	{macro: "PASSES_TO_NOBODY", defs: "EXP=1", violates: "wrong_successor"},
	{macro: "PASSES_TO_WHO_IS_NOT_READY", defs: "DEAD=1", violates: "wrong_successor"},
	{macro: "PASSES_UNASKED", defs: "", violates: "unasked"},
	{macro: "PASSES_WHILE_WORK_GOES_ON", defs: "", violates: "work_goes_on"},
	{macro: "STEPS_DOWN_ON_HEARSAY", defs: "", violates: "steps_down_twice", design: modelOnly},
	{macro: "SUCCESS_WHEN_DONE", defs: "EXP=1", violates: "success_lies"},
	{macro: "VERSION_ALONE", defs: "ASKS=2", violates: "failure_lies"},
	{macro: "WITHDRAWN_AT_ANY_TIME", defs: "", violates: "failure_lies", design: modelOnly},
}

// aCycle is what the verifier says of one.
const aCycle = "non-progress cycle"

const modelOnly = "the code has no one place where it could be left out"

var transferReached = map[string]string{
	"1": "", "2": "EXP=1", "3": "DEAD=1", "4": "PRIO=1", "5": "GEM=2 EXP=2", "9": "",
}

// TestTransfer checks the model.
func TestTransfer(t *testing.T) {
	needTools(t, "spin", "gcc")
	for _, m := range transferModels {
		m.file = "transfer.pml"
		t.Run("safe/"+m.defs, func(t *testing.T) { m.check(t, "-DSAFETY") })
	}
	for _, m := range transferCycles {
		m.file = "transfer.pml"
		t.Run("no cycle/"+m.defs, func(t *testing.T) {
			m.defs += " CYCLES"
			m.check(t, "-DNP", "-l")
		})
	}
	for _, u := range transferUnlearned {
		t.Run("unlearned/"+u.macro, func(t *testing.T) {
			t.Parallel()
			if u.violates == aCycle {
				out := verify(t, "transfer.pml", "SLACK=2 CYCLES UNLEARN_"+u.macro+" "+u.defs, false, "-DNP", "-l")
				assert.Contains(t, out, aCycle)
				return
			}
			out := verify(t, "transfer.pml", "SLACK=2 UNLEARN_"+u.macro+" "+u.defs, false, "-DSAFETY")
			assert.Equal(t, u.violates, violated(out), "violates:\n%s", out)
		})
	}
	for number, defs := range transferReached {
		t.Run("reached/"+number, func(t *testing.T) {
			t.Parallel()
			out := verify(t, "transfer.pml", "REACH="+number+" "+defs, false, "-DSAFETY")
			assert.Equal(t, "met", violated(out), "with %s it never happens:\n%s", defs, out)
		})
	}
}
