// Package guard closes the ZooKeeper sessions of a process that has died.
//
// A process that dies without election.Session.Close (kill -9, the kernel's memory killer, a panic, os.Exit) leaves its
// session behind, and the next candidate leads only when ZooKeeper has expired that: a session timeout and up to two ticks
// later. A guard is another process. It learns of the death from the kernel, and closes the dead process's session with
// its id and password, so that the next one leads within milliseconds.
//
//	g, err := guard.Start(nil) // once in the process
//	if err != nil {
//		slog.Warn("no guard", "error", err) // all is as without one
//	}
//	session, err := election.Connect(servers, 10*time.Second, &election.SessionOptions{Guard: g})
//
// The evidence is a pidfd, and nothing else: it becomes readable after the last thread of the process has run its last
// instruction, so no successor begins beside a leader that still runs. A process that is stopped, frozen or swapped out is
// not dead: the guard does nothing, and the lease decides as without one. The same holds when a machine is lost.
//
// There are three ways to have one, and Start chooses:
//
//   - a helper executable, the command zkelect, found in the PATH or named by Options.Executable or the environment
//     variable ELECTION_GUARD;
//   - the service's own executable again, if it has called [Init] in main: for a dialer of its own, or a single binary;
//   - a guard that is there already and serves any number of processes on a unix socket ("zkelect guard --listen PATH"),
//     named by Options.Socket or ELECTION_GUARD. It survives what the others cannot, such as the end of a container.
//
// Only Linux has what it takes, 5.3 and later. Elsewhere Start returns [ErrUnsupported].
package guard
