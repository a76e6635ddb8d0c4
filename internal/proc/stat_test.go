package proc

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOfNoGroupAnyMore: what is just being reaped is of no group. Taken for one of another group it would not be missed, nor
// whatever it had started.
func TestOfNoGroupAnyMore(t *testing.T) {
	for text, want := range map[string]struct {
		group int
		gone  bool
	}{
		"7 (a b) c) S 1 5 5 0": {5, false},
		"7 (a b) c) X 0 -1 -1": {-1, true},
		"7 (kthreadd) S 0 0 0": {0, false},
	} {
		file := filepath.Join(t.TempDir(), "stat")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, group, err := stat(file)
		assert.Equal(t, want.group, group, text)
		assert.Equal(t, want.gone, gone(err), text)
	}
	_, _, err := stat("/nowhere/at/all")
	assert.True(t, gone(err))
}
