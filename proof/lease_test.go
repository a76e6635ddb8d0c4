package proof

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// params are parameters of lease.smt2 by name, as SMT-LIB terms.
type params map[string]string

// leaseRow is one question to the solver: can the session be over within the lease?
type leaseRow struct {
	name string
	with params
	// can is the answer that the solver must give. A question answered "no" is a theorem; those answered "yes" show
	// that each condition of the rule, and each assumption, is needed.
	can bool
	// unlearns names files of mutations/ that un-learn the same.
	unlearns []string
}

const (
	exact = "0.0"
	half  = "(/ 1.0 2.0)"
)

var leaseRows = []leaseRow{
	{name: "the rule, all delays, any tick", can: false},

	// The allowances.
	{"half a tick, clocks agree, pings exact", params{"rho": exact, "late": exact, "allowed-rate": "1.0", "allowed-late": exact}, false, nil},
	{"half a tick, rates differ by 1/12, pings exact", params{"late": exact, "allowed-rate": "1.0", "allowed-late": exact}, true, nil},
	{"half a tick, clocks agree, one ping late (1 ms of 6 s)", params{"rho": exact, "late": "(/ 1.0 6000.0)", "allowed-rate": "1.0", "allowed-late": exact}, true, []string{"pings-on-time"}},
	{"half a tick longer by tick/24, 1/12, pings exact", params{"late": exact, "allowed-late": exact}, false, nil},
	{"no lateness allowed for, clocks agree, pings late by T/100", params{"rho": exact, "allowed-late": exact}, true, nil},
	{"lateness allowed for, the rates not", params{"allowed-rate": "1.0"}, true, nil},
	{"rates differ by 1/6", params{"rho": "(/ 1.0 6.0)"}, true, nil},
	{"each rate within 1/12 of true time", params{"rho": "(/ 2.0 11.0)"}, true, nil},
	{"each rate within 1/25 of true time", params{"rho": "(/ 2.0 24.0)"}, false, nil},
	{"pings late by T/50", params{"late": "(/ 1.0 50.0)"}, true, nil},
	{"clocks agree, pings late by T/50 + T/600", params{"rho": exact, "late": "(/ 13.0 600.0)"}, true, nil},
	{"the client's clock stands still for T/12, rates agree", params{"rho": exact, "standstill": "(/ 1.0 12.0)"}, false, nil},
	{"the client's clock stands still for T/24, rates within 1/24", params{"rho": "(/ 1.0 24.0)", "standstill": "(/ 1.0 24.0)"}, false, nil},
	{"the client's clock stands still for T/12, rates within 1/12", params{"standstill": "(/ 1.0 12.0)"}, true, nil},
	{"a lease of the whole timeout", params{"span": "1.0"}, true, nil},
	{"a lease of 15/12 of it", params{"span": "(/ 15.0 12.0)"}, true, []string{"lease-outlasts-session"}},
	{"a lease of the whole timeout, clocks agree", params{"rho": exact, "span": "1.0"}, false, nil},
	{"TickTime less than the servers'", params{"tick-right": "false"}, true, nil},

	// The conditions.
	{"an answer counts at once", params{"aged": "false"}, true, []string{"no-half-tick"}},
	{"the lease counts from the answer", params{"from-answer": "true"}, true, []string{"lease-from-the-answer"}},
	{"the lease lasts until T/2 after a heartbeat was sent", params{"simple": "true"}, true, []string{"simple-lease-rule"}},
	{"the heartbeat is a read", params{"quorum": "false"}, true, []string{"read-as-heartbeat"}},
	{"several heartbeats under way: p was only sent before n", params{"paired": "false"}, true, []string{"vouched-for-meanwhile"}},

	// Where the client is, and what m is.
	{"on the ensemble's leader, or the only server", params{"where": "1"}, false, nil},
	{"on the ensemble's leader, an answer counts at once", params{"where": "1", "aged": "false"}, false, nil},
	{"a change of the connection that nobody noticed", params{"where": "2"}, false, nil},
	{"m is the handshake that created the session, or resumed it, however late", params{"handshake": "true", "aged": "false"}, false, nil},
	{"the same on the ensemble's leader", params{"where": "1", "handshake": "true", "aged": "false"}, false, nil},
	{"an observer that a follower pings (observerMasterPort)", params{"where": "3"}, true, nil},
	{"the same, with the age doubled", params{"where": "3", "allowed-rate": "(/ 26.0 12.0)"}, true, nil},
	{"the same, m is a handshake", params{"where": "3", "handshake": "true", "aged": "false"}, false, nil},

	// The timeout.
	{"granted half of what the client takes it for", params{"granted": half}, true, nil},
	{"resumed later with half of it, the answer read in time", params{"regranted": half}, false, nil},
	{"resumed later with half of it, the answer lost or late", params{"regranted": half, "answer-read": "false"}, true, nil},
	{"resumed later with as much, the answer lost or late", params{"answer-read": "false"}, false, nil},
	{"resumed later with twice as much, the answer lost or late", params{"regranted": "2.0", "answer-read": "false"}, false, nil},
	{"the former connection had granted less", params{"former": half}, true, nil},
	{"the former connection had granted less, m is a handshake", params{"former": half, "handshake": "true", "aged": "false"}, true, nil},
	{"the former connection had granted less, and that is T", params{"former": half, "span": "(/ 11.0 24.0)"}, false, nil},
	{"the former connection had granted more", params{"former": "2.0"}, false, nil},

	// What nothing outside the servers can tell.
	{"the server loses the sign of life", params{"lost-in-a-sweep": "true"}, true, nil},
}

// TestLease asks the solver each question, and whether the assumptions of each can be met at all: of assumptions that
// contradict each other anything could be proved.
func TestLease(t *testing.T) {
	needTools(t, "z3")
	text, err := os.ReadFile("lease.smt2")
	require.NoError(t, err)
	solve := func(t *testing.T, with params) string {
		question, err := setParams(string(text), with)
		require.NoError(t, err)
		answer, err := run(t, t.TempDir(), question, "z3", "-T:60", "-in")
		require.NoError(t, err, "z3: %s", answer)
		return strings.TrimSpace(answer)
	}
	for _, row := range leaseRows {
		t.Run(row.name, func(t *testing.T) {
			possible := params{"ask": "false"}
			for name, value := range row.with {
				possible[name] = value
			}
			require.Equal(t, "sat", solve(t, possible), "the assumptions contradict each other")
			want := map[bool]string{false: "unsat", true: "sat"}[row.can]
			assert.Equal(t, want, solve(t, row.with), "can the session be over within the lease?")
		})
	}
}

// setParams gives parameters of lease.smt2 other values.
func setParams(text string, with params) (string, error) {
	for name, value := range with {
		line := regexp.MustCompile(`(?m)^\(define-fun ` + regexp.QuoteMeta(name) + ` \(\) (Real|Int|Bool) .*\)(\s*;.*)?$`)
		if n := len(line.FindAllString(text, -1)); n != 1 {
			return "", fmt.Errorf("%d parameters are called %q", n, name)
		}
		text = line.ReplaceAllString(text, "(define-fun "+name+" () $1 "+strings.ReplaceAll(value, "$", "$$")+")")
	}
	return text, nil
}

// TestSameAllowances checks that the proof is about the allowances that the code has.
func TestSameAllowances(t *testing.T) {
	code, err := os.ReadFile("../internal/lease/rule.go")
	require.NoError(t, err)
	proof, err := os.ReadFile("lease.smt2")
	require.NoError(t, err)
	number := func(text []byte, pattern string) string {
		m := regexp.MustCompile(pattern).FindSubmatch(text)
		require.NotNil(t, m, "nothing matches %s", pattern)
		return string(m[1])
	}
	rates, late := number(code, `driftParts = (\d+)`), number(code, `lateParts = (\d+)`)
	for _, pattern := range []string{`rho \(\) Real \(/ 1\.0 (\d+)`, `span \(\) Real \(/ 11\.0 (\d+)`, `allowed-rate \(\) Real \(/ 13\.0 (\d+)`} {
		assert.Equal(t, rates, number(proof, pattern), "parts of rates, in rule.go and in %s", pattern)
	}
	for _, pattern := range []string{`\(define-fun late \(\) Real \(/ 1\.0 (\d+)`, `allowed-late \(\) Real \(/ 1\.0 (\d+)`} {
		assert.Equal(t, late, number(proof, pattern), "parts of lateness, in rule.go and in %s", pattern)
	}
}
