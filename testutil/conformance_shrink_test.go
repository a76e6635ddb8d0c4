package testutil_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shrink returns a script as small as it can make, for which differs still says yes: steps are left out by halves,
// quarters and so on (delta debugging), then requests within bursts and multis. It stops at the deadline.
func shrink(script []step, differs func([]step) bool, deadline time.Time) []step {
	script = without(script, func(candidate []step) bool { return differs(candidate) }, deadline)
	for i := range script {
		if len(script[i].Ops) == 0 {
			continue
		}
		with := func(ops []step) []step {
			candidate := slices.Clone(script)
			candidate[i].Ops = ops
			return candidate
		}
		script = with(without(script[i].Ops, func(ops []step) bool { return differs(with(ops)) }, deadline))
	}
	return script
}

// without leaves out of a list what it can while still says yes.
func without(list []step, still func([]step) bool, deadline time.Time) []step {
	for size := len(list) / 2; size >= 1; {
		removed := false
		for at := 0; at < len(list); {
			if time.Now().After(deadline) {
				return list
			}
			end := min(at+size, len(list))
			candidate := slices.Concat(list[:at], list[end:])
			if still(candidate) {
				list, removed = candidate, true
			} else {
				at = end
			}
		}
		if !removed || size > 1 {
			size /= 2
		}
	}
	return list
}

func TestShrinkFindsTheStepsThatMatter(t *testing.T) {
	script := generate(1, 200)
	script[40] = step{Op: "create", Path: "/needle"}
	script[170] = step{Op: "multi", Ops: []step{{Op: "check", Path: "/a"}, {Op: "delete", Path: "/needle"}, {Op: "check", Path: "/b"}}}
	deletes := func(st step) bool { return st.Op == "delete" && st.Path == "/needle" }
	differs := func(script []step) bool {
		created := slices.IndexFunc(script, func(st step) bool { return st.Op == "create" && st.Path == "/needle" })
		deleted := slices.IndexFunc(script, func(st step) bool { return slices.ContainsFunc(st.Ops, deletes) })
		return created >= 0 && deleted > created
	}
	shrunk := shrink(script, differs, time.Now().Add(time.Minute))
	require.Len(t, shrunk, 2)
	require.Len(t, shrunk[1].Ops, 1)
	assert.True(t, deletes(shrunk[1].Ops[0]), "shrunk to %v", shrunk)
	assert.Len(t, shrink(script, differs, time.Now()), len(script), "went on after its deadline")
}
