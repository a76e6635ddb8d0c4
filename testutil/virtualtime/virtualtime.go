// Package virtualtime runs a test on an in-process ZooKeeper in virtual time: the set-up that every such test begins
// with. It stands apart from package testutil so that nobody links package testing with the server.
package virtualtime

import (
	"testing"
	"testing/synctest"

	"github.com/zkelection/election/testutil"
)

// Test runs f in a bubble of [testing/synctest], on a server of its own, which is closed behind the last T.Cleanup. Options are
// as for [testutil.NewServer], nil for the defaults; NoListen is set. Each client of ZooKeeper needs srv.Dialer, and must be
// closed when f returns, or in a T.Cleanup. There is no T.Run in f: give each case a Test of its own.
func Test(t *testing.T, opts *testutil.ServerOptions, f func(t *testing.T, srv *testutil.Server)) {
	t.Helper()
	var o testutil.ServerOptions
	if opts != nil {
		o = *opts
	}
	o.NoListen = true
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(srv.Close)
		f(t, srv)
	})
}
