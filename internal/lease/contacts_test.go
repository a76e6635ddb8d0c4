package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestContactsForget(t *testing.T) {
	heard := newContacts(8 * time.Second)
	heard.establish(1)
	heard.add(time.Second, 2*time.Second)
	heard.forget(3 * time.Second)
	_, ok := heard.surelyHeard(time.Hour)
	require.False(t, ok, "something is left")
	heard.add(2*time.Second, 4*time.Second) // sent before the clock stood still
	_, ok = heard.surelyHeard(time.Hour)
	require.False(t, ok, "what was sent before is believed")
	heard.add(4*time.Second, 5*time.Second)
	sent, ok := heard.surelyHeard(time.Hour)
	require.True(t, ok)
	require.Equal(t, 4*time.Second, sent)
	for i := range 10_000 {
		at := 5*time.Second + time.Duration(i)*time.Millisecond
		heard.add(at, at)
	}
	require.LessOrEqual(t, len(heard.log), 70, "contacts that are kept")
}

// After a pause many answers come at one moment. The lease stood on the oldest
// request among them, and a candidate that claimed under it lost it at once.
func TestNewestOfManyAnswersCounts(t *testing.T) {
	c := newContacts(4 * time.Second)
	c.add(1*time.Second, 5*time.Second)
	c.add(3*time.Second, 5*time.Second)
	sent, ok := c.surelyHeard(6 * time.Second)
	assert.True(t, ok)
	assert.Equal(t, 3*time.Second, sent)
	// Their number stays bounded all the same.
	for at := 5 * time.Second; at < 60*time.Second; at += 100 * time.Microsecond {
		c.add(at-time.Millisecond, at)
	}
	assert.LessOrEqual(t, len(c.log), 2*64+2, "contacts that are kept")
}
