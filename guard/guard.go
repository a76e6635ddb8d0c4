package guard

import (
	"errors"
	"log/slog"
	"time"
)

var (
	// ErrUnsupported is the error of Start where the system cannot tell of a death as a guard needs it: elsewhere than
	// on Linux, and on a Linux before 5.3.
	ErrUnsupported = errors.New("guard: not supported by this system")
	// ErrNoInit is the error of Start when it is to run this process's own executable as the guard, and Init has not run.
	ErrNoInit = errors.New("guard: Init has not been called in this process")
	// ErrIsGuard is the error of Start in a process that was started as a guard, before Init was called in it.
	ErrIsGuard = errors.New("guard: this process is to be the guard itself: call Init before Start")
)

// Environment is the environment variable that names the guard where the Options do not: an executable to start, by a name in the
// PATH or a path, or the unix socket of a guard. A path where nothing is yet is taken for a socket that will be there.
const Environment = "ELECTION_GUARD"

// Options are the options of Start. The zero value, and nil, mean the defaults.
type Options struct {
	// Socket is the path of the unix socket of a guard that is there already ("zkelect guard --listen PATH").
	Socket string
	// Executable is the helper to start, a path or a name in the PATH: zkelect, or a program that calls Init. Without it, and
	// without a Socket, what ELECTION_GUARD names is used; without that, the service's own executable if it has called
	// Init, and else zkelect, if it is found in the PATH.
	Executable string
	// Wait is how long Start waits for a Socket on which nobody listens yet, for a guard that is started at the same time.
	// The default is 5 s; a negative one is none.
	Wait time.Duration
	// TLS says how the guard connects when the servers want TLS. The default is no TLS. A guard that is the service's
	// own executable has the dialer that was given to Init instead.
	TLS *TLS
	// LogFile is a file to which the guard appends what it did after the death of this process, when there is nobody
	// left to tell. The default is none. A guard on a socket has a log of its own.
	LogFile string
	// Logger gets what the guard has to say while this process lives, at Warn and Debug. Its handler must not call
	// Guard.Close, and may call the other methods. The default is slog.Default().
	Logger *slog.Logger
}

// TLS names the files that a guard needs to connect over TLS. Relative paths are of this process's directory at Start.
type TLS struct {
	// CAFile holds the certificates of the authorities to believe, in PEM. The default is the system's.
	CAFile string
	// CertFile and KeyFile hold this client's certificate and key, in PEM. The default is none.
	CertFile, KeyFile string
	// ServerName is the name that the servers' certificates must have. The default is the host in each server's address.
	ServerName string
}

// Session is what it takes to close a ZooKeeper session.
type Session struct {
	// Servers are the servers as they were given to the client, HOST:PORT each.
	Servers []string
	// Connected is the server that the session is connected to, or was last, as the client's dialer was given it: one of
	// Servers, unless the client finds its servers otherwise. Remote is the address that it had, IP:PORT. Empty ones are not known.
	Connected, Remote string
	// ID and Password are those of the handshake's answer.
	ID       int64
	Password []byte
	// Timeout is the negotiated session timeout, and Tick the tickTime of the servers: two of those after the timeout
	// the session is over by itself, and a guard gives up, as it does after an hour. A Tick of 0 means half the timeout.
	Timeout, Tick time.Duration
	// Encrypted is whether the session's connection is TLS. A guard that is not told how to connect so does not guard it: it
	// would send password and credentials in the clear.
	Encrypted bool
	// Auth are the session's credentials.
	Auth []Auth
}

// Auth is one credential, as election.Auth.
type Auth struct {
	Scheme      string
	Credentials []byte
}

// maxSessions is how many sessions of one process a guard can hold.
const maxSessions = 64
