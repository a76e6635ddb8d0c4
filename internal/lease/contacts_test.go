package lease

import (
	"testing"
	"time"
)

func TestContactsForget(t *testing.T) {
	heard := newContacts(8 * time.Second)
	heard.establish(1)
	heard.add(time.Second, 2*time.Second)
	heard.forget(3 * time.Second)
	if _, ok := heard.surelyHeard(time.Hour); ok {
		t.Fatal("something is left")
	}
	heard.add(2*time.Second, 4*time.Second) // sent before the clock stood still
	if _, ok := heard.surelyHeard(time.Hour); ok {
		t.Fatal("what was sent before is believed")
	}
	heard.add(4*time.Second, 5*time.Second)
	if sent, ok := heard.surelyHeard(time.Hour); !ok || sent != 4*time.Second {
		t.Fatal(sent, ok)
	}
	for i := range 10_000 {
		at := 5*time.Second + time.Duration(i)*time.Millisecond
		heard.add(at, at)
	}
	if n := len(heard.log); n > 70 {
		t.Fatalf("%d contacts are kept", n)
	}
}

// After a pause many answers come at one moment. The lease stood on the oldest
// request among them, and a candidate that claimed under it lost it at once.
func TestNewestOfManyAnswersCounts(t *testing.T) {
	c := newContacts(4 * time.Second)
	c.add(1*time.Second, 5*time.Second)
	c.add(3*time.Second, 5*time.Second)
	if sent, ok := c.surelyHeard(6 * time.Second); !ok || sent != 3*time.Second {
		t.Errorf("surely heard at %v, %v; want 3s", sent, ok)
	}
	// Their number stays bounded all the same.
	for at := 5 * time.Second; at < 60*time.Second; at += 100 * time.Microsecond {
		c.add(at-time.Millisecond, at)
	}
	if n := len(c.log); n > 2*64+2 {
		t.Errorf("%d contacts are kept", n)
	}
}
