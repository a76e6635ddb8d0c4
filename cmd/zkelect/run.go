package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
	sessionguard "github.com/zkelection/election/guard"
)

func runCommand() command {
	return command{
		name:      "run",
		arguments: "--servers HOST:PORT,... --election NAME [FLAGS] -- COMMAND [ARG...]",
		about: `
Stands in the election and runs COMMAND only while leading. When COMMAND exits,
zkelect steps down, so that the next candidate leads, and exits with its status.
When leadership is lost, COMMAND gets SIGTERM, and SIGKILL after --grace; zkelect
then exits with 124, or with --keep contends again. A SIGTERM, SIGINT or SIGHUP
to zkelect does the same to COMMAND, and leadership passes on only after it has
ended; a second one kills it at once.

COMMAND's environment tells ZKELECT_ELECTION, ZKELECT_DATA and ZKELECT_TOKEN, the
fencing token: a number that grows from leader to leader, with which a store can
refuse what a leader of the past still sends. COMMAND runs in a process group of
its own, which the signals go to, and a terminal is not its standard input.

If zkelect itself is killed (kill -9), COMMAND is killed at once, and when it has
ended the next candidate leads, without waiting for the session timeout: that is
what --guard is for. If zkelect is stopped (kill -STOP), COMMAND is killed when
the lease ends, before another candidate leads. After a lease that was lost in
any other way, the next leader may begin while COMMAND has its grace time:
--grace 0 leaves it none.`,
		exits: `
  N      COMMAND's own status; 128 and the signal's number if a signal ended it
  2      the command line is wrong
  124    leadership was lost, and COMMAND has been stopped
  125    ZooKeeper does not answer in --wait, or refuses
  126    COMMAND cannot be executed
  127    COMMAND was not found
  128+N  signal N came before COMMAND was run`[1:],
		run: run,
	}
}

// job is a command that runs while its candidate leads.
type job struct {
	env       *env
	session   *election.Session
	candidate *election.Candidate
	guard     *sessionguard.Guard
	name      string
	data      string
	argv      []string
	grace     time.Duration
	keep      bool

	// Owned by the goroutine that calls Run.
	status int  // of the command's last run
	ran    bool // there was one
	lost   bool // and it ended with the loss of leadership
}

func run(ctx context.Context, e *env, args []string) (int, error) {
	o := newOptions(e, 0)
	name := o.String("election", "", "the election's `NAME`")
	data := o.String("data", "", "what the others see of this candidate, `TEXT` such as its address (default HOSTNAME:PID)")
	grace := o.Duration("grace", 10*time.Second, "how long COMMAND may go on after SIGTERM before SIGKILL; 0 sends SIGKILL at once")
	keep := o.Bool("keep", false, "contend again after COMMAND has exited or leadership was lost, until a signal comes")
	pause := o.Duration("pause", time.Second, "with --keep, how long others may lead before this candidate contends again after COMMAND has exited")
	standby := o.Bool("standby", false, "take over two writes sooner when next in line, for up to eight small writes in each session timeout")
	guarding := o.String("guard", "own", "what ends the session when zkelect is killed: own for a process of its own, off for nothing, or the `SOCKET` of a zkelect guard")
	private := o.Bool("private", false, "with --auth, let nobody but holders of the same credentials see or touch this candidate, and the election if this creates it")
	if err := o.parse(args); err != nil {
		return exitUsage, err
	}
	if err := electionName(*name); err != nil {
		return exitUsage, err
	}
	if o.NArg() == 0 {
		return exitUsage, usageError{errors.New("no command given: use -- COMMAND")}
	}
	if *grace < 0 || *pause < 0 {
		return exitUsage, usageError{errors.New("a negative time")}
	}
	var acl []zk.ACL
	if *private {
		if o.auth == "" {
			return exitUsage, usageError{errors.New("--private needs --auth")}
		}
		acl = zk.AuthACL(zk.PermAll)
	}
	if strings.ContainsRune(*data, 0) {
		return exitUsage, usageError{errors.New("a NUL in --data")}
	}
	_, err := exec.LookPath(o.Arg(0))
	if err != nil {
		return notStarted(err), err
	}
	if !o.isSet("data") {
		host, err := os.Hostname()
		if err != nil {
			return exitRunFailed, err
		}
		*data = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	if o.guard, err = startSessionGuard(o, *guarding); err != nil {
		return exitRunFailed, err
	}
	defer func() { _ = o.guard.Close() }()
	s, closeAll, err := o.connect(ctx)
	if err != nil {
		return signalledOr(ctx, err)
	}
	defer closeAll()
	c, err := election.NewCandidate(s, *name, &election.CandidateOptions{
		Data: []byte(*data), Root: o.root, ACL: acl, HotStandby: *standby,
		// The guard needs a moment more than the grace time to be done.
		StepDownTimeout: *grace + guardMargin,
	})
	if err != nil {
		return exitUsage, misuse(err)
	}
	j := &job{env: e, session: s, candidate: c, guard: o.guard, name: *name, data: *data, argv: o.Args(), grace: *grace, keep: *keep}
	return j.run(ctx, *pause)
}

func (j *job) run(parent context.Context, pause time.Duration) (int, error) {
	for {
		ctx, cancel := context.WithCancel(parent)
		ended, failure := false, error(nil)
		err := j.candidate.Run(ctx, func(ctx context.Context, term election.Term) error {
			failure = j.lead(ctx, term)
			if failure != nil || j.ran && !j.keep {
				ended = true
				cancel() // also when leadership was lost: one term is enough
			}
			return failure
		})
		cancel()
		switch {
		case failure != nil:
			return exitRunFailed, failure
		case ended && j.lost:
			return exitLost, nil
		case ended, parent.Err() != nil && j.ran:
			return j.status, nil
		case parent.Err() != nil, err != nil:
			return signalledOr(parent, err)
		}
		select { // then contend again
		case <-time.After(pause):
		case <-parent.Done():
		}
	}
}

// lead runs the command for one term, under the eyes of a guard.
func (j *job) lead(ctx context.Context, term election.Term) error {
	j.env.say("leading %s (token %d): running %s", j.name, term.Token, j.argv[0])
	g, err := startGuard(j.argv, j.grace, append(os.Environ(),
		"ZKELECT_ELECTION="+j.name, "ZKELECT_DATA="+j.data, fmt.Sprintf("ZKELECT_TOKEN=%d", term.Token)))
	if err != nil {
		return fmt.Errorf("start %s: %w", j.argv[0], err)
	}
	// When this process dies, the command's guard kills the command, and the
	// session is closed only after both have ended.
	release, err := j.guard.Await(g.process.Process.Pid)
	if err != nil {
		g.stop(0)
		return fmt.Errorf("start %s: %w", j.argv[0], err)
	}
	defer release()
	// Where that guard is killed as well, the command's group is ended by what guards the session.
	awaited := make(chan struct{})
	defer func() { <-awaited }()
	go func() {
		defer close(awaited)
		pid := g.command()
		if pid == 0 {
			return
		}
		if release, err := j.guard.AwaitGroup(pid); err == nil { // or it has ended, or the kernel is too old
			<-g.exited
			release()
		}
	}()
	if !g.allow(j.candidate.LeaseUntil()) {
		g.stop(0) // leadership has ended meanwhile; the command was not begun
		return nil
	}
	j.ran = true
	// The lease is renewed about every seventh of the timeout.
	ticker := time.NewTicker(j.session.Timeout() / 16)
	defer ticker.Stop()
	for {
		select {
		case <-g.exited:
		case <-ticker.C:
			g.allow(j.candidate.LeaseUntil())
			continue
		case <-ctx.Done():
		}
		// When this process stood still beyond the lease, the guard has killed
		// the command, and the context may not have ended yet.
		cause := context.Cause(ctx)
		if cause == nil && !j.candidate.IsLeader() {
			cause = election.ErrLeaseLapsed
		}
		j.lost = cause != nil && !errors.Is(cause, election.ErrResigned)
		if j.lost {
			j.env.say("leadership of %s is lost (%v): stopping %s", j.name, cause, j.argv[0])
		} else if cause != nil {
			j.env.say("stopping %s", j.argv[0])
		}
		g.stop(j.grace)
		j.status = g.status()
		j.env.say("%s has ended with status %d", j.argv[0], j.status)
		return nil
	}
}

// signalledOr tells a signal that came before the command was run from a
// failure.
func signalledOr(ctx context.Context, err error) (int, error) {
	var by interrupted
	if errors.As(context.Cause(ctx), &by) {
		return exitSignal + int(by.signal), nil
	}
	return exitRunFailed, err
}
