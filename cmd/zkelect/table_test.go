package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestCut: a terminal may be of any width.
func TestCut(t *testing.T) {
	for most, want := range []string{"", "a", "ab", "...", "a...", "ab...", "abcdéf"} {
		assert.Equal(t, want, cut("abcdéf", most), "of %d", most)
	}
	assert.Empty(t, cut("a", -1))
}
