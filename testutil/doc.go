// Package testutil is ZooKeeper for tests.
package testutil
