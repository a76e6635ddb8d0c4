package testutil

// A Release is a release of ZooKeeper whose behaviour a server can have. In what
// clients see the two differ in little: in 3.9 a watch event carries the zxid of the
// change, exists needs the right to read, a check that is not within a multi is an
// operation that there is not, and a create2 within one is answered with a Stat.
type Release string

// The releases. 3.8 is 3.8.0 as Debian has it, with which it is compared: 3.8.0, and the
// correction of 3.8.4 that keeps watch events from clients that may not read the node. By
// itself 3.8.0 sends them to everybody; and 3.8.4 asks for the right to read in exists, as
// 3.9 does, where this one does not. 3.9 is 3.9.3.
const (
	ZooKeeper38 Release = "3.8"
	ZooKeeper39 Release = "3.9"
)

// newestRelease is that of a server for which none was chosen.
const newestRelease = ZooKeeper39

// eventsHaveZxids reports whether a watch event carries the zxid of its change.
func (r Release) eventsHaveZxids() bool { return r != ZooKeeper38 }

// checksOutsideMultis reports whether a check may stand alone. (3.8 fails to write
// the answer of one that holds, and sends none.)
func (r Release) checksOutsideMultis() bool { return r == ZooKeeper38 }

// watchesStack reports whether a connection can have watches of several modes on one
// path, told apart by checkWatches and removeWatches.
func (r Release) watchesStack() bool { return r != ZooKeeper38 }

// readsMultisFirst reports whether a multi is refused for an operation that cannot be
// understood wherever it stands: 3.8 gets no further than the first that fails.
func (r Release) readsMultisFirst() bool { return r != ZooKeeper38 }

// createsKeepTheirCode reports whether a create within a multi is what its operation
// code says: in 3.8 a create2 is a create there, and its answer has no Stat.
func (r Release) createsKeepTheirCode() bool { return r != ZooKeeper38 }

// readsBeforeZxid reports whether a write that cannot be read takes no zxid. Of a
// reconfig that is so in every release; of a multi in none, but see stumblesOverNullACLs.
func (r Release) readsBeforeZxid() bool { return r != ZooKeeper38 }

// knows reports whether there is an operation, among those that clients send behind the handshake.
func (r Release) knows(o Op) bool {
	switch o {
	case OpNotification, OpConnect, AnyOp:
		return false
	case OpCheck:
		return r.checksOutsideMultis()
	default:
		_, named := opNames[o]
		return named
	}
}

// stumblesOverNullACLs reports whether a multi in which the access rights of a create are
// null is given up as it is read, and takes no zxid. To a createTTL it does not happen.
func (r Release) stumblesOverNullACLs() bool { return r != ZooKeeper38 }

// losesWhatItStumblesOver reports whether a multi with a null path takes a zxid and
// makes no transaction of it.
func (r Release) losesWhatItStumblesOver() bool { return r == ZooKeeper38 }

// deletesContainersOfClients reports whether a client can send the request by which the
// server deletes containers. That of 3.8 has no field for a path, but all of it is one.
func (r Release) deletesContainersOfClients() bool { return r != ZooKeeper38 }

// existsIsARight reports whether exists needs the right to read the node. (So it does in
// 3.8.4; ZooKeeper38 says which 3.8 this is.)
func (r Release) existsIsARight() bool { return r != ZooKeeper38 }

// version is what the four-letter words say.
func (r Release) version() string {
	if r == ZooKeeper38 {
		return "3.8.0-testutil, built on 2022-02-25 08:49 UTC"
	}
	return "3.9.3-testutil, built on 2024-10-17 23:21 UTC"
}
