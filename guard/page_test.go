package guard

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func pageOf(t *testing.T, memory []byte) int64 {
	t.Helper()
	r, err := readPage(memory[:pageSize])
	require.NoError(t, err)
	if r == nil {
		return 0
	}
	return r.ID
}

// TestTornWrite: whatever part of a write has been done when the process is killed, what is there is the state before or
// the state after.
func TestTornWrite(t *testing.T) {
	memory := make([]byte, pageSize)
	p := &page{}
	require.Zero(t, pageOf(t, memory), "never written")
	for id := int64(1); id < 20; id++ {
		var r *record
		if id%5 != 0 {
			r = &record{ID: id, Servers: []server{{Name: string(bytes.Repeat([]byte{'x'}, int(id*200)))}}}
		}
		before, former := bytes.Clone(memory), pageOf(t, memory)
		require.NoError(t, p.put(memory, r))
		after, now := bytes.Clone(memory), pageOf(t, memory)
		if r != nil {
			require.Equal(t, id, now)
		} else {
			require.Zero(t, now)
		}
		for cut := 0; cut <= pageSize; cut += 7 {
			// The stores may be done in any order: from the front, or from the end.
			require.Contains(t, []int64{former, now}, pageOf(t, append(bytes.Clone(after[:cut]), before[cut:]...)))
			require.Contains(t, []int64{former, now}, pageOf(t, append(bytes.Clone(before[:cut]), after[cut:]...)))
		}
	}
}

func TestTooLargeForItsSlot(t *testing.T) {
	memory := make([]byte, pageSize)
	p := &page{}
	require.NoError(t, p.put(memory, &record{ID: 1}))
	require.ErrorIs(t, p.put(memory, &record{Auth: []Auth{{Credentials: make([]byte, slotSize)}}}), errTooLarge)
	require.Equal(t, int64(1), pageOf(t, memory))
}
