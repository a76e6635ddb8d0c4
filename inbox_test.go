package election

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each message is taken by the loop, or its sender knows that it never will be.
func TestClosedInbox(t *testing.T) {
	b := newInbox()
	require.True(t, b.push(1))
	assert.Equal(t, []any{1}, b.take())
	require.True(t, b.push(2))
	require.True(t, b.push(3))
	assert.Equal(t, []any{2, 3}, b.close())
	assert.False(t, b.push(4))
	assert.Empty(t, b.take())
}
