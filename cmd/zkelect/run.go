package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/spf13/cobra"

	"github.com/zkelection/election"
)

// runOptions are the flags of run.
type runOptions struct {
	*connection
	name     string
	data     string
	try      bool
	keep     bool
	pause    time.Duration
	grace    time.Duration
	overlap  time.Duration
	forward  []string
	standby  bool
	guarding string
	private  bool
	priority int
	ready    string
	every    time.Duration
}

func runCommand(e *env) *cobra.Command {
	o := &runOptions{connection: &connection{env: e}}
	c := &cobra.Command{
		Use:   "run --election NAME [FLAGS] -- COMMAND [ARG...]",
		Short: "run a command only while leading",
		Long: `Stands in the election and runs COMMAND only while leading; until then it waits,
and says who leads. When COMMAND exits, zkelect steps down, so that the next
candidate leads, and exits with its status. So COMMAND is a daemon, mostly: a
job that ends is run by each of the candidates, one after another. For a job
that is to be run once, by cron on several hosts for example, there is --try.

SIGTERM, SIGINT, SIGHUP and SIGQUIT to zkelect send SIGTERM to COMMAND, and
SIGKILL after --grace; leadership passes on when it has ended. A second one
kills it at once (SIGHUP does not count: closing terminals send several, and
systemd may send one beside its SIGTERM). SIGUSR1, SIGUSR2 and SIGWINCH are
passed on: see --forward.

When leadership is lost, because no server has answered for too long or for any
other reason, COMMAND is killed before another candidate can lead. It has no
time to end by itself then, unless --overlap gives it some, beside the next
leader. zkelect then exits with 124, or with --keep contends again.

When leadership is passed on (zkelect transfer), or --ready says no, COMMAND is
sent SIGTERM, and SIGKILL after --grace; another candidate leads when it has
ended. zkelect then goes on as after a loss.

COMMAND's environment tells ZKELECT_ELECTION, ZKELECT_DATA and ZKELECT_TOKEN,
the fencing token: a number that grows from leader to leader, with which a store
can refuse what a leader of the past still sends. COMMAND runs in a process
group of its own, without a terminal, and the signals go to that whole group;
what leaves the group, as daemons do, is not ended.

If zkelect itself is killed (kill -9), COMMAND is killed at once, and when it
has ended the next candidate leads, without waiting for the session timeout:
that is what --guard is for. If zkelect is stopped (kill -STOP, Ctrl-Z), COMMAND
is killed when the lease ends, before another candidate leads.

As process 1 of a container zkelect also reaps the processes that others leave.
To systemd it reports that it is ready once it stands, whether it leads or not.

Exit status:

    N      COMMAND's own; 128 and the signal's number if a signal ended it
    2      the command line is wrong
    75     with --try: somebody else stands in front, and COMMAND was not run
    124    leadership was lost, and COMMAND has been stopped
    125    ZooKeeper does not answer in --wait, or refuses; or nobody
           listens on the SOCKET of --guard
    126    COMMAND cannot be executed
    127    COMMAND was not found
    128+N  signal N came while COMMAND was not running, or was a second one:
           that ends zkelect at once`,
		Example: `  zkelect run --keep --election scheduler -- scheduler --foreground
  zkelect run --election backup --try -- backup.sh`,
		DisableFlagsInUseLine: true,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(c *cobra.Command, args []string) error { return run(c, o, args) },
	}
	f := c.Flags()
	f.SetInterspersed(false) // what follows COMMAND is its own
	o.electionFlag(c, &o.name)
	f.StringVar(&o.data, "data", "", "what the others see of this candidate, `TEXT` such as its address (default HOSTNAME:PID)")
	f.BoolVar(&o.try, "try", false, "do not wait: exit with 75 when somebody else stands in front; --wait is 10s then unless it is given")
	f.BoolVar(&o.keep, "keep", false, "contend again after COMMAND has exited or leadership was lost, until a signal comes")
	durationFlag(c, &o.pause, "pause", time.Second, "with --keep, let others lead for this `DURATION` before this candidate contends again after COMMAND has exited")
	durationFlag(c, &o.grace, "grace", 10*time.Second, "after SIGTERM let COMMAND go on for this `DURATION` before SIGKILL; 0 sends SIGKILL at once")
	durationFlag(c, &o.overlap, "overlap", 0, "after a loss of leadership let COMMAND go on for this `DURATION`, from SIGTERM to SIGKILL, beside the next leader")
	f.StringSliceVar(&o.forward, "forward", []string{"USR1", "USR2", "WINCH"}, "pass these `SIGNALS` on to COMMAND: with HUP,USR1 a SIGHUP has it read its configuration again, for one, and does not end it")
	f.IntVar(&o.priority, "priority", 0, "who should be next of those who wait, from -9 to 9: the highest `NUMBER`; the leader is not unseated")
	f.StringVar(&o.ready, "ready", "", "stand aside while this shell `COMMAND` fails: a replica that lags, for one")
	durationFlag(c, &o.every, "ready-every", 5*time.Second, "with --ready, run that in each `DURATION`; one that takes longer fails")
	f.BoolVar(&o.standby, "standby", false, "take over two writes sooner when next in line, for eight small writes in each session timeout, up to 32 while answers are slow")
	f.StringVar(&o.guarding, "guard", "own", "what ends the session when zkelect is killed: own for a process of its own, off for nothing, or the `SOCKET` of a zkelect guard")
	f.BoolVar(&o.private, "private", false, "with --auth, let nobody but holders of the same credentials see or touch this candidate, and the election if this creates it")
	o.flags(c, 0)
	return c
}

// check finds what cannot be right, and returns the signals to pass on and the access rights.
func (o *runOptions) check(argv []string) (forward []syscall.Signal, acl []zk.ACL, err error) {
	if len(argv) == 0 {
		return nil, nil, usageError{errors.New("no command given: use -- COMMAND")}
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"grace", o.grace}, {"pause", o.pause}, {"overlap", o.overlap}} {
		if d.value < 0 {
			return nil, nil, usageError{fmt.Errorf("--%s %v is negative", d.flag, d.value)}
		}
	}
	switch {
	case o.priority < -9 || o.priority > 9:
		return nil, nil, usageError{fmt.Errorf("--priority %d: want -9 to 9", o.priority)}
	case o.every <= 0:
		return nil, nil, usageError{fmt.Errorf("--ready-every %v: want a duration above zero, such as 5s", o.every)}
	case o.try && o.ready != "":
		return nil, nil, usageError{errors.New("--try and --ready exclude each other")}
	}
	if o.try && o.keep {
		return nil, nil, usageError{errors.New("--try and --keep exclude each other")}
	}
	if o.private {
		if o.auth == "" {
			return nil, nil, usageError{errors.New("--private needs --auth")}
		}
		acl = zk.AuthACL(zk.PermAll)
	}
	if strings.ContainsRune(o.data, 0) {
		return nil, nil, usageError{errors.New("a NUL in --data")}
	}
	for _, name := range o.forward {
		number, ok := signalNames[strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "SIG")]
		if !ok {
			return nil, nil, usageError{fmt.Errorf("--forward %s: no signal that can be passed on; these can: %s", name, forwardable())}
		}
		forward = append(forward, number)
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, nil, &exit{notStarted(err), err}
	}
	return forward, acl, nil
}

func forwardable() string {
	var names []string
	for name := range signalNames {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// stepDownWithoutEnd: the ballot is not withdrawn before the command has ended. Its keeper sees to it that it does, and
// what cannot be killed goes on working.
const stepDownWithoutEnd = math.MaxInt64

func run(c *cobra.Command, o *runOptions, argv []string) error {
	ctx := c.Context()
	forward, acl, err := o.check(argv)
	if err != nil {
		return err
	}
	if o.ready == "" && c.Flags().Changed("ready") { // of a variable that is not set, for one
		return usageError{errors.New("--ready is empty: want a shell command")}
	}
	if o.try && !c.Flags().Changed("wait") {
		o.wait = defaultWait
	}
	if !c.Flags().Changed("data") {
		host, err := os.Hostname()
		if err != nil {
			return &exit{exitRunFailed, err}
		}
		o.data = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	o.env.signals.forward(forward)
	g, err := startSessionGuard(o.connection, o.guarding)
	if err != nil {
		return &exit{exitRunFailed, err}
	}
	defer func() { _ = g.Close() }()
	o.guard = g
	systemd := newNotifier(o.env.getenv)
	defer systemd.stopping()
	s, closeAll, err := o.connect(ctx)
	if err != nil {
		return signalledOr(ctx, err)
	}
	defer closeAll()
	candidate, err := election.NewCandidate(s, o.name, &election.CandidateOptions{
		Data: []byte(o.data), Root: o.root, ACL: acl, HotStandby: o.standby, Follow: election.FollowLeader,
		StepDownTimeout: stepDownWithoutEnd, Priority: o.priority,
	})
	if err != nil {
		return misuse(&exit{exitRunFailed, err})
	}
	j := &job{runOptions: o, session: s, candidate: candidate, guard: g, systemd: systemd, argv: argv}
	candidate.OnLose(j.sayWhoLeads)
	defer systemd.watch(j.alive)()
	return j.run(ctx)
}

// signalledOr tells a signal that came before the command was run from a failure.
func signalledOr(ctx context.Context, err error) error {
	var by interrupted
	var usage usageError
	switch {
	case errors.As(context.Cause(ctx), &by):
		return &exit{status: exitSignal + int(by.signal)}
	case errors.As(err, &usage):
		return err
	}
	return &exit{exitRunFailed, err}
}
