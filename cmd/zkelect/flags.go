package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/zkelection/election"
	sessionguard "github.com/zkelection/election/guard"
	"github.com/zkelection/election/testutil"
)

// errHelp says that help was asked for, and has been given.
var errHelp = flag.ErrHelp

// options are the flags that every command has.
type options struct {
	*flag.FlagSet
	env     *env
	servers string
	dev     bool
	root    string
	timeout time.Duration
	tick    time.Duration
	auth    string
	wait    time.Duration
	verbose bool

	guard *sessionguard.Guard // of the session that connect opens; nil for none
}

// newOptions defines the common flags. wait is the default of --wait.
func newOptions(e *env, wait time.Duration) *options {
	o := &options{FlagSet: flag.NewFlagSet(e.command.name, flag.ContinueOnError), env: e}
	o.SetOutput(io.Discard) // this package reports errors and prints help itself
	o.StringVar(&o.servers, "servers", "", "the ZooKeeper servers, `HOST:PORT,...`; without it, those of the environment variable ZK_SERVERS")
	o.BoolVar(&o.dev, "dev", false, "start a ZooKeeper inside this process instead, for trying things out")
	o.StringVar(&o.root, "root", election.DefaultRoot, "the `PATH` below which the elections are")
	o.DurationVar(&o.timeout, "timeout", 10*time.Second, "the session `TIMEOUT` to ask for: a leader that dies is replaced after about that time")
	o.DurationVar(&o.tick, "tick", 0, "the servers' tickTime; a leader's lease lasts longer when it is given, and is wrong when it is given too small")
	o.StringVar(&o.auth, "auth", "", "credentials as `SCHEME:CREDENTIALS`, digest:USER:PASSWORD for one; without it, those of the environment variable ZK_AUTH")
	o.DurationVar(&o.wait, "wait", wait, "how long to wait for an answer of ZooKeeper; 0 forever")
	o.BoolVar(&o.verbose, "verbose", false, "log to standard error what happens on the connection")
	return o
}

// parse reads the flags; what remains of args is in Args.
func (o *options) parse(args []string) error {
	err := o.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		o.help()
		return errHelp
	}
	if err != nil {
		return usageError{err}
	}
	if o.servers == "" {
		o.servers = o.env.getenv("ZK_SERVERS")
	}
	if o.auth == "" {
		o.auth = o.env.getenv("ZK_AUTH")
	}
	if o.dev && o.isSet("servers") {
		return usageError{errors.New("--dev and --servers exclude each other")}
	}
	if !o.dev && o.servers == "" {
		return usageError{errors.New("no servers given: use --servers, ZK_SERVERS or --dev")}
	}
	if !o.dev && slices.Contains(strings.Split(o.servers, ","), "") {
		return usageError{fmt.Errorf("the servers %q: want HOST:PORT,HOST:PORT", o.servers)}
	}
	if scheme, _, ok := strings.Cut(o.auth, ":"); o.auth != "" && (!ok || scheme == "") {
		return usageError{errors.New("--auth wants SCHEME:CREDENTIALS")}
	}
	return nil
}

func (o *options) isSet(name string) bool {
	set := false
	o.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// noArguments refuses what a command does not take.
func (o *options) noArguments() error {
	if o.NArg() > 0 {
		return usageError{fmt.Errorf("%s takes no argument %q", o.Name(), o.Arg(0))}
	}
	return nil
}

func (o *options) help() {
	var b strings.Builder
	c := o.env.command
	fmt.Fprintf(&b, "Usage: zkelect %s %s\n\n%s\n\nFlags:\n", c.name, c.arguments, strings.TrimSpace(c.about))
	o.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "  %s\n", strings.TrimRight("--"+f.Name+" "+strings.ToUpper(value), " "))
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0s" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		b.WriteString(wrap(usage, "      ", 80))
	})
	fmt.Fprintf(&b, "\nExit codes:\n%s\n", strings.TrimRight(c.exits, "\n"))
	_, _ = io.WriteString(o.env.stdout, b.String())
}

// wrap breaks text into lines of at most width characters.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) > width && line != indent {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = indent
		}
		line += word + " "
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	return b.String()
}

// connect opens the session, and the in-process server if it is wanted, and
// waits until it can be used. close ends both.
func (o *options) connect(ctx context.Context) (s *election.Session, closeAll func(), err error) {
	level := slog.LevelError
	if o.verbose {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(o.env.stderr, &slog.HandlerOptions{Level: level}))
	servers := strings.Split(o.servers, ",")
	closeServer := func() {}
	if o.dev {
		srv, err := testutil.NewServer(nil)
		if err != nil {
			return nil, nil, err
		}
		closeServer = srv.Close
		servers = srv.Servers()
		o.env.say("a ZooKeeper for trying things out runs here: ZK_SERVERS=%s", srv.Addr())
	}
	opts := &election.SessionOptions{TickTime: o.tick, Logger: logger, Guard: o.guard}
	if scheme, credentials, ok := strings.Cut(o.auth, ":"); ok {
		opts.Auth = []election.Auth{{Scheme: scheme, Credentials: []byte(credentials)}}
	}
	s, err = election.Connect(servers, o.timeout, opts)
	if err != nil {
		closeServer()
		return nil, nil, err
	}
	closeAll = func() {
		if err := s.Close(); err != nil {
			o.env.say("%v", err)
		}
		closeServer()
	}
	if err := o.await(ctx, s, servers); err != nil {
		closeAll()
		return nil, nil, err
	}
	return s, closeAll, nil
}

// await waits for the connection, and says so when it takes long.
func (o *options) await(ctx context.Context, s *election.Session, servers []string) error {
	notice := time.AfterFunc(3*time.Second, func() { o.env.say("waiting for ZooKeeper at %s", strings.Join(servers, ",")) })
	defer notice.Stop()
	limit, cancel := o.limit(ctx)
	defer cancel()
	err := s.AwaitConnected(limit)
	if err != nil && ctx.Err() == nil && limit.Err() != nil {
		cause := ""
		if dial := (*net.OpError)(nil); errors.As(err, &dial) {
			cause = fmt.Sprintf(" (%v)", dial)
		}
		return fmt.Errorf("no ZooKeeper answers at %s in %v%s", strings.Join(servers, ","), o.wait, cause)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// limit bounds a request by --wait.
func (o *options) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.wait <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, o.wait)
}

// electionName takes a required --election.
func electionName(name string) error {
	if name == "" {
		return usageError{errors.New("no election given: use --election NAME")}
	}
	return nil
}

// misuse marks what the user can only mend in the command line.
func misuse(err error) error {
	if errors.Is(err, election.ErrInvalidName) || errors.Is(err, election.ErrInvalidPath) || errors.Is(err, election.ErrDataTooLarge) {
		return usageError{err}
	}
	return err
}
