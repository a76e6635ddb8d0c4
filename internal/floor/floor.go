// Package floor is leader election as ZooKeeper's documentation has it, in as few requests as it takes, on the same client
// as the library, and with none of what makes an election safe to use: it is what the library's times are compared with. A
// candidate of it loses its way at the first lost reply, and leads as long as it likes.
package floor

import (
	"errors"
	"slices"
	"strings"

	"github.com/go-zookeeper/zk"
)

// ErrLeft is what Lead returns after Withdraw, and whatever finds its ballot deleted.
var ErrLeft = errors.New("floor: the candidate has left")

// A Candidate is one ballot: made by Join, then one goroutine calls Lead, and any one ends it by Withdraw while that waits, or by Resign
// once it has returned nil.
type Candidate struct {
	conn   *zk.Conn
	path   string // of the election's node, which exists
	ballot string
	ahead  <-chan zk.Event // the predecessor's end; nil: it leads
	left   chan struct{}
}

// Join creates a ballot, lists, and watches the one in front.
func Join(conn *zk.Conn, path string) (*Candidate, error) {
	ballot, err := conn.Create(path+"/n-", nil, zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
	if err != nil {
		return nil, err
	}
	c := &Candidate{conn: conn, path: path, ballot: ballot, left: make(chan struct{})}
	if err := c.look(); err != nil {
		return nil, err
	}
	return c, nil
}

// Ballot is the path of its ballot, and the data of its acknowledgement.
func (c *Candidate) Ballot() string { return c.ballot }

func (c *Candidate) look() error {
	for {
		names, _, err := c.conn.Children(c.path)
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "n-") })
		slices.Sort(names)
		switch i := slices.Index(names, c.ballot[len(c.path)+1:]); i {
		case -1:
			return ErrLeft
		case 0:
			c.ahead = nil
			return nil
		default:
			exists, _, watch, err := c.conn.ExistsW(c.path + "/" + names[i-1])
			if err != nil {
				return err
			}
			if exists {
				c.ahead = watch
				return nil
			}
		}
	}
}

// Lead waits until the candidate leads, calls won, and acknowledges.
func (c *Candidate) Lead(won func()) error {
	for c.ahead != nil {
		select {
		case e := <-c.ahead:
			if e.Err != nil {
				return e.Err
			}
		case <-c.left:
			return ErrLeft
		}
		if err := c.look(); err != nil {
			return err
		}
	}
	won()
	_, err := c.conn.Create(c.path+"/leader", []byte(c.ballot), zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
	return err
}

// Leads reports whether it was the first in line when it last looked. Only whoever calls Join and Lead may ask.
func (c *Candidate) Leads() bool { return c.ahead == nil }

// Resign is how a leader leaves: with its acknowledgement, in one request.
func (c *Candidate) Resign() error {
	_, err := c.conn.Multi(&zk.DeleteRequest{Path: c.path + "/leader", Version: -1}, &zk.DeleteRequest{Path: c.ballot, Version: -1})
	return err
}

// Withdraw is how one that waits leaves.
func (c *Candidate) Withdraw() error {
	close(c.left)
	return c.conn.Delete(c.ballot, -1)
}
