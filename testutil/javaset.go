package testutil

import (
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// A javaSet is a set of strings that gives them in the order of Java's HashSet. The
// order means nothing, and a client must not rely on it: but it is the one in which
// ZooKeeper lists children, so that a program which forgets to sort them fails here
// too. What is left out is the tree that Java makes of a bucket with more than eight
// strings in a table of 64 or more; names would have to be chosen to get there.
type javaSet struct {
	table [][]javaEntry // its length is a power of two
	size  int
	// list caches the strings in order; nil when it is stale.
	list []string
}

type javaEntry struct {
	hash uint32
	text string
}

// The sizes at which Java begins: of ZooKeeper's sets of children, and of a set
// that no size was given for.
const (
	childrenTable = 8
	plainTable    = 16
	// treeTable is the size from which on a full bucket becomes a tree; a smaller
	// table is doubled instead.
	treeTable  = 64
	fullBucket = 8
)

// javaHash is what a HashMap makes of String.hashCode.
func javaHash(s string) uint32 { return spread(hashCode(s)) }

func spread(h uint32) uint32 { return h ^ h>>16 }

// hashCode is that of Java's String.
func hashCode(s string) uint32 {
	var h uint32
	if isASCII(s) {
		for i := range len(s) {
			h = 31*h + uint32(s[i])
		}
	} else {
		for _, unit := range utf16.Encode([]rune(s)) {
			h = 31*h + uint32(unit)
		}
	}
	return h
}

// bucket is where an identity stands in the set of those of a connection, which is
// the order in which ZooKeeper tells them. (The set grows at the twelfth.)
func (id identity) bucket() uint32 {
	return spread((17*37+hashCode(id.scheme))*37+hashCode(id.id)) & (plainTable - 1)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func newJavaSet(table int) *javaSet { return &javaSet{table: make([][]javaEntry, table)} }

// len of no set is 0.
func (s *javaSet) len() int {
	if s == nil {
		return 0
	}
	return s.size
}

// add must not be given a string that is in the set.
func (s *javaSet) add(text string) {
	e := javaEntry{javaHash(text), text}
	at := e.hash & uint32(len(s.table)-1)
	full := len(s.table[at]) >= fullBucket && len(s.table) < treeTable
	s.table[at] = append(s.table[at], e)
	s.size++
	s.list = nil
	if full {
		s.grow()
	}
	if 4*s.size > 3*len(s.table) {
		s.grow()
	}
}

// grow doubles the table. Strings that stay in one bucket stay in order.
func (s *javaSet) grow() {
	old := s.table
	s.table = make([][]javaEntry, 2*len(old))
	for _, bucket := range old {
		for _, e := range bucket {
			at := e.hash & uint32(len(s.table)-1)
			s.table[at] = append(s.table[at], e)
		}
	}
}

// remove leaves the table as large as it is.
func (s *javaSet) remove(text string) {
	at := javaHash(text) & uint32(len(s.table)-1)
	i := slices.IndexFunc(s.table[at], func(e javaEntry) bool { return e.text == text })
	if i < 0 {
		return
	}
	s.table[at] = slices.Delete(s.table[at], i, i+1)
	s.size--
	s.list = nil
}

// strings gives what is in the set. The caller must not change it.
func (s *javaSet) strings() []string {
	if s.len() == 0 {
		return nil
	}
	if s.list == nil {
		s.list = make([]string, 0, s.size)
		for _, bucket := range s.table {
			for _, e := range bucket {
				s.list = append(s.list, e.text)
			}
		}
	}
	return s.list
}

// clone copies the set, order and all.
func (s *javaSet) clone() *javaSet {
	if s == nil {
		return nil
	}
	c := &javaSet{table: make([][]javaEntry, len(s.table)), size: s.size, list: s.list}
	for i, bucket := range s.table {
		c.table[i] = slices.Clone(bucket)
	}
	return c
}

// copied is the order in which the clone of a Java HashSet gives the strings: they are
// put one after the other into a table that suits their number.
func (s *javaSet) copied() []string {
	list := s.strings()
	table := 1
	for table < len(list)*4/3+1 {
		table *= 2
	}
	if s != nil && table == len(s.table) {
		return list
	}
	c := newJavaSet(table)
	for _, text := range list {
		c.add(text)
	}
	return c.strings()
}
