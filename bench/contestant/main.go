// Command contestant is one process of a benchmark: candidates of one election, each on a session of its own, of this
// library or of the floor. It does what the lines of its standard input say, writes what it measured on its standard
// output, and when the former ends it closes its sessions, if that is quick, and ends, too. The programs in ../peers do the same with other libraries:
//
//	            -> ready             each candidate has its session
//	join        -> joined NS NS      those that do not stand join at once; until the last of them waits or leads, and until
//	                                 it had its place, which of this library is before it knows the leader (left out: the same)
//	resign      -> led NS NS         the leader resigns; until the next one leads, and until that is acknowledged (0: never is)
//	leave       -> left              all withdraw, the leader last
//	renew       -> renewed           those that do not stand get new sessions, and have them
//	            -> leads AT SESSION  whenever one begins to lead, at that time of CLOCK_MONOTONIC
//
// All times are nanoseconds, and both ends of those that are not points in time are taken in this process.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/zkelection/election/internal/monotonic"
)

// candidate is one of an implementation, on a session of its own. Its methods are not called at the same time.
type candidate interface {
	// join returns once it waits behind another or leads, acknowledged.
	join() error
	leave() error
	session() int64
	// disconnect ends its session, for good; it does not stand.
	disconnect() error
}

// contest is the candidates and who of them leads.
type contest struct {
	candidates []candidate

	mu      sync.Mutex
	changed *sync.Cond
	stands  []bool
	leader  int // -1: none has led yet
	won     int64
	acked   int64
	placed  int64 // when the last that joined had its place
}

func main() {
	kind := flag.String("kind", "hot", "floor, hot or cold")
	servers := flag.String("servers", "", "the servers, HOST:PORT each, with commas")
	path := flag.String("path", "", "the node below which the election is")
	timeout := flag.Duration("timeout", 10*time.Second, "session timeout")
	tick := flag.Duration("tick", 0, "tickTime of the servers, which this library is given")
	n := flag.Int("n", 1, "candidates")
	flag.Parse()

	c := &contest{stands: make([]bool, *n), candidates: make([]candidate, *n), leader: -1}
	c.changed = sync.NewCond(&c.mu)
	connect := func() error {
		return each(*n, 16, func(i int) (err error) {
			if c.stands[i] {
				return nil
			}
			if former := c.candidates[i]; former != nil {
				if err := former.disconnect(); err != nil {
					return err
				}
			}
			if *kind == "floor" {
				c.candidates[i], err = newFloor(c, i, strings.Split(*servers, ","), *path, *timeout)
			} else {
				c.candidates[i], err = newLibrary(c, i, strings.Split(*servers, ","), *path, *timeout, *tick, *kind == "hot")
			}
			return err
		})
	}
	err := connect()
	if err != nil {
		fail(err)
	}
	say("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "join":
			err = c.join()
		case "resign":
			err = c.resign()
		case "leave":
			err = c.leave()
		case "renew":
			if err = connect(); err == nil {
				say("renewed")
			}
		default:
			err = fmt.Errorf("what is %q?", lines.Text())
		}
		if err != nil {
			fail(err)
		}
	}
	if err := each(*n, 16, func(i int) error { return c.candidates[i].disconnect() }); err != nil {
		fail(err)
	}
}

// say writes one line, whole.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", args...)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// leads is called by the implementations when a candidate begins to lead.
func (c *contest) leads(i int) {
	at := monotonic.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader, c.won = i, at
	c.changed.Broadcast()
	say("leads %d %d", at, c.candidates[i].session())
}

// acknowledged is called when that is acknowledged.
func (c *contest) acknowledged() {
	at := monotonic.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked = at
	c.changed.Broadcast()
}

// hasPlace is called by the implementations when a candidate that joins has its ballot, and its watch on the one in front.
func (c *contest) hasPlace() {
	at := monotonic.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.placed = max(c.placed, at)
}

func (c *contest) join() error {
	began := monotonic.Now()
	err := each(len(c.candidates), len(c.candidates), func(i int) error {
		if c.stands[i] {
			return nil
		}
		c.stands[i] = true
		return c.candidates[i].join()
	})
	if err == nil {
		ended := monotonic.Now()
		c.mu.Lock()
		defer c.mu.Unlock()
		say("joined %d %d", ended-began, c.placed-began)
	}
	return err
}

func (c *contest) resign() error {
	c.mu.Lock()
	former := c.leader
	c.mu.Unlock()
	c.stands[former] = false
	began := monotonic.Now()
	if err := c.candidates[former].leave(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.won < began || c.acked < c.won {
		c.changed.Wait()
	}
	say("led %d %d", c.won-began, c.acked-began)
	return nil
}

func (c *contest) leave() error {
	c.mu.Lock()
	leader := c.leader
	c.mu.Unlock()
	for i := range c.candidates {
		if i != leader && c.stands[i] {
			if err := c.candidates[i].leave(); err != nil {
				return err
			}
			c.stands[i] = false
		}
	}
	if leader >= 0 && c.stands[leader] {
		if err := c.candidates[leader].leave(); err != nil {
			return err
		}
		c.stands[leader] = false
	}
	say("left")
	return nil
}

// each calls fn for every index, so many at a time, and returns the first error.
func each(n, atOnce int, fn func(i int) error) error {
	errs := make(chan error, n)
	tokens := make(chan struct{}, atOnce)
	for i := range n {
		tokens <- struct{}{}
		go func() {
			errs <- fn(i)
			<-tokens
		}()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}
