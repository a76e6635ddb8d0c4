package election

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// The count that leaders keep in ZooKeeper, as a user of the library would: they
// read it, add one, and write it under Term.Guard. Nothing excuses it: whatever
// becomes of sessions and ballots, none of what was acknowledged is lost, and
// nothing is added by a leader of the past.
//
// The node holds all that was ever added, a line each: the count, the token of
// who added, and the number of the attempt.
type counter struct {
	w       *trial
	path    string
	writers sync.WaitGroup

	mu    sync.Mutex
	rng   *rand.Rand
	tries []countTry // by number
}

// countTry is one attempt to add, and what its writer was told.
type countTry struct {
	by    string
	token int64
	end   countEnd
}

type countEnd int

const (
	countUnknown countEnd = iota // no answer: it may have been added, or be added yet
	countAdded
	countRefused
)

func (c *counter) init(w *trial, seed uint64) {
	c.w, c.path, c.rng = w, "/count", rand.New(rand.NewPCG(seed, 3))
	w.atRest = c.check
}

// keep adds to the count while ctx is live, and once when it is over: what a
// process does that was stopped between its look at IsLeader and its write.
func (c *counter) keep(ctx context.Context, a *actor, term Term) {
	c.writers.Go(func() {
		for ctx.Err() == nil {
			c.add(a, term)
			timer := time.NewTimer(c.draw(c.w.timeout/16, c.w.timeout))
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
		time.Sleep(c.draw(0, c.w.timeout))
		if c.add(a, term) == countRefused {
			c.w.meets("a leader of the past may not write")
		}
	})
}

func (c *counter) draw(low, high time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return low + time.Duration(c.rng.Int64N(int64(high-low)+1))
}

// add tries once.
func (c *counter) add(a *actor, term Term) countEnd {
	conn := a.p.session.Conn()
	data, stat, err := conn.Get(c.path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return countUnknown
	}
	c.mu.Lock()
	try := len(c.tries)
	c.tries = append(c.tries, countTry{a.name, term.Token, countUnknown})
	c.mu.Unlock()
	next := fmt.Appendf(data, "%d %d %d\n", 1+strings.Count(string(data), "\n"), term.Token, try)
	var write any = &zk.CreateRequest{Path: c.path, Data: next, Acl: zk.WorldACL(zk.PermAll)}
	if err == nil {
		write = &zk.SetDataRequest{Path: c.path, Data: next, Version: stat.Version}
	}
	_, err = conn.Multi(term.Guard(), write)
	end := countUnknown
	switch {
	case err == nil:
		end = countAdded
	case errors.Is(err, zk.ErrNoNode), errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNodeExists):
		end = countRefused
	}
	c.mu.Lock()
	c.tries[try].end = end
	c.mu.Unlock()
	return end
}

// check compares the node with what the writers were told.
func (c *counter) check() {
	c.writers.Wait()
	c.mu.Lock()
	tries := c.tries
	c.mu.Unlock()
	if len(tries) == 0 {
		return
	}
	data, err := c.read()
	if err != nil {
		c.w.violated("count", "cannot be read: %v", err)
		return
	}
	for _, fault := range checkCount(data, tries) {
		c.w.violated("count", "%s", fault)
	}
}

// checkCount holds the node's data against what was tried.
func checkCount(data string, tries []countTry) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	found := make(map[int]bool)
	count, last := 0, int64(0)
	for line := range strings.Lines(data) {
		var n, try int
		var token int64
		if _, err := fmt.Sscanf(line, "%d %d %d\n", &n, &token, &try); err != nil || try >= len(tries) {
			fault("line %q", line)
			return faults
		}
		count++
		t := tries[try]
		switch {
		case n != count:
			fault("%s has counted %d, and it is the line %d", t.by, n, count)
		case token < last:
			fault("a leader of the past: %s added with token %x after %x", t.by, token, last)
		case token != t.token:
			fault("%s added with token %x, not its own %x", t.by, token, t.token)
		case t.end == countRefused:
			fault("what %s tried with token %x was refused and is there", t.by, token)
		case found[try]:
			fault("what %s tried with token %x is there twice", t.by, token)
		}
		found[try], last = true, token
	}
	for i, t := range tries {
		if t.end == countAdded && !found[i] {
			fault("what %s added with token %x is lost", t.by, t.token)
		}
	}
	return faults
}

func (c *counter) read() (data string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*c.w.timeout)
	defer cancel()
	for _, a := range *c.w.actors.Load() {
		if a.p.isClosing() {
			continue
		}
		err = a.p.session.retry(ctx, func(conn *zk.Conn) error {
			if _, err := conn.Sync(c.path); err != nil {
				return err
			}
			b, _, err := conn.Get(c.path)
			data = string(b)
			return err
		})
		if errors.Is(err, zk.ErrNoNode) {
			return "", nil // nothing was ever added
		}
		return data, err
	}
	return "", errors.New("no session is left to read with")
}
