package testutil

import (
	"errors"
	"strconv"
	"strings"

	"github.com/go-zookeeper/zk"
)

// Op is an operation of the wire protocol. The values are ZooKeeper's own
// operation codes, so an Op not named here is shown by its number.
type Op int32

// The operations that a Server counts and that Control can select. OpConnect
// is the handshake of every connection, of new and of resumed sessions alike.
// OpNotification is a watch event: it is counted when a server sends it, and
// cannot be controlled.
const (
	OpNotification         Op = 0
	OpCreate               Op = 1
	OpDelete               Op = 2
	OpExists               Op = 3
	OpGetData              Op = 4
	OpSetData              Op = 5
	OpGetACL               Op = 6
	OpSetACL               Op = 7
	OpGetChildren          Op = 8
	OpSync                 Op = 9
	OpPing                 Op = 11
	OpGetChildren2         Op = 12
	OpCheck                Op = 13
	OpMulti                Op = 14
	OpCreate2              Op = 15
	OpReconfig             Op = 16
	OpCheckWatches         Op = 17
	OpRemoveWatches        Op = 18
	OpCreateContainer      Op = 19
	OpDeleteContainer      Op = 20
	OpCreateTTL            Op = 21
	OpMultiRead            Op = 22
	OpAuth                 Op = 100
	OpSetWatches           Op = 101
	OpSASL                 Op = 102
	OpGetEphemerals        Op = 103
	OpGetAllChildrenNumber Op = 104
	OpSetWatches2          Op = 105
	OpAddWatch             Op = 106
	OpWhoAmI               Op = 107
	OpConnect              Op = -10
	OpClose                Op = -11

	// AnyOp makes Control select every operation.
	AnyOp Op = -1 << 31

	opError Op = -1
)

var opNames = map[Op]string{
	OpNotification:         "notification",
	OpCreate:               "create",
	OpDelete:               "delete",
	OpExists:               "exists",
	OpGetData:              "getData",
	OpSetData:              "setData",
	OpGetACL:               "getACL",
	OpSetACL:               "setACL",
	OpGetChildren:          "getChildren",
	OpSync:                 "sync",
	OpPing:                 "ping",
	OpGetChildren2:         "getChildren2",
	OpCheck:                "check",
	OpMulti:                "multi",
	OpCreate2:              "create2",
	OpReconfig:             "reconfig",
	OpCheckWatches:         "checkWatches",
	OpRemoveWatches:        "removeWatches",
	OpCreateContainer:      "createContainer",
	OpDeleteContainer:      "deleteContainer",
	OpCreateTTL:            "createTTL",
	OpMultiRead:            "multiRead",
	OpAuth:                 "auth",
	OpSetWatches:           "setWatches",
	OpSASL:                 "sasl",
	OpGetEphemerals:        "getEphemerals",
	OpGetAllChildrenNumber: "getAllChildrenNumber",
	OpSetWatches2:          "setWatches2",
	OpAddWatch:             "addWatch",
	OpWhoAmI:               "whoAmI",
	OpConnect:              "connect",
	OpClose:                "close",
	AnyOp:                  "any",
}

// String gives ZooKeeper's name of the operation, or "op" and its number.
func (o Op) String() string {
	if name, ok := opNames[o]; ok {
		return name
	}
	return "op" + strconv.Itoa(int(o))
}

// short is how cons names an operation.
func (o Op) short() string {
	switch o {
	case OpConnect:
		return "SESS"
	case OpClose:
		return "CLOS"
	case OpGetChildren, OpGetChildren2:
		return "GETC"
	case OpCheckWatches:
		return "CHKW"
	case OpRemoveWatches:
		return "REMW"
	case OpSetWatches:
		return "SETW"
	case OpSetWatches2:
		return "STW2"
	case OpWhoAmI:
		return "HOMI"
	case OpGetAllChildrenNumber:
		return "GETACN"
	case OpGetEphemerals:
		return "GETE"
	case OpAddWatch:
		return "ADDW"
	case OpMultiRead:
		return "MLTR"
	default: // the first letters of its name
	}
	name, known := opNames[o]
	if !known {
		return "NA"
	}
	return strings.ToUpper(name[:min(4, len(name))])
}

// isWrite reports whether the operation goes through the ensemble's leader as a
// transaction, and so consumes a zxid whether it succeeds or not.
func (o Op) isWrite() bool {
	switch o {
	case OpCreate, OpCreate2, OpCreateContainer, OpCreateTTL, OpDelete, OpDeleteContainer,
		OpSetData, OpSetACL, OpCheck, OpMulti, OpReconfig, OpClose, OpConnect:
		return true
	default:
		return false
	}
}

// asksServer reports whether the operation is a request to the server behind the
// connection. The others ZooKeeper answers as it reads them, before what waits, and does
// not take for a sign of life.
func (o Op) asksServer() bool { return o != OpAuth && o != OpSASL }

// isCreate reports whether the operation is one of the four creates.
func (o Op) isCreate() bool {
	return o == OpCreate || o == OpCreate2 || o == OpCreateContainer || o == OpCreateTTL
}

// A code is an error code of the wire protocol; codeOK is none.
type code int32

const (
	codeOK                   code = 0
	codeSystemError          code = -1
	codeRuntimeInconsistency code = -2
	codeMarshallingError     code = -5
	codeUnimplemented        code = -6
	codeBadArguments         code = -8
	codeAPIError             code = -100
	codeNoNode               code = -101
	codeNoAuth               code = -102
	codeBadVersion           code = -103
	codeNoChildrenEphemerals code = -108
	codeNodeExists           code = -110
	codeNotEmpty             code = -111
	codeSessionExpired       code = -112
	codeInvalidACL           code = -114
	codeAuthFailed           code = -115
	codeSessionMoved         code = -118
	codeNoWatcher            code = -121
	codeReconfigDisabled     code = -123
)

var codesOfErrors = map[error]code{
	zk.ErrAPIError:                codeAPIError,
	zk.ErrNoNode:                  codeNoNode,
	zk.ErrNoAuth:                  codeNoAuth,
	zk.ErrBadVersion:              codeBadVersion,
	zk.ErrNoChildrenForEphemerals: codeNoChildrenEphemerals,
	zk.ErrNodeExists:              codeNodeExists,
	zk.ErrNotEmpty:                codeNotEmpty,
	zk.ErrSessionExpired:          codeSessionExpired,
	zk.ErrInvalidACL:              codeInvalidACL,
	zk.ErrAuthFailed:              codeAuthFailed,
	zk.ErrClosing:                 -116,
	zk.ErrNothing:                 -117,
	zk.ErrSessionMoved:            codeSessionMoved,
	zk.ErrReconfigDisabled:        codeReconfigDisabled,
	zk.ErrBadArguments:            codeBadArguments,
}

// An ErrorCode is a ZooKeeper error by its number, for those that the Go client
// has no variable for, such as -127 (a throttled request). Give it to Fail.
type ErrorCode int32

// Error gives the number.
func (e ErrorCode) Error() string {
	return "zookeeper error " + strconv.Itoa(int(e))
}

// codeOf finds the wire code of an error, codeSystemError for one that has none.
func codeOf(err error) code {
	var number ErrorCode
	if errors.As(err, &number) {
		return code(number)
	}
	for e, c := range codesOfErrors {
		if errors.Is(err, e) {
			return c
		}
	}
	return codeSystemError
}
