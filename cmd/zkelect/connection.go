package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// connection is how a command reaches ZooKeeper: the flags that most commands have, and the session that they give.
type connection struct {
	env      *env
	servers  string
	dev      bool
	root     string
	timeout  time.Duration
	tick     time.Duration
	auth     string
	tls      tlsFiles
	wait     time.Duration
	verbose  bool
	explicit bool           // --servers was given
	guard    election.Guard // of the session that connect opens; nil for none
}

// defaultWait is the default of --wait where an answer is wanted now.
const defaultWait = 10 * time.Second

// environment lists the variables that zkelect reads, for the manual page.
var environment = []struct{ name, about string }{
	{"ZK_SERVERS", "the servers, HOST:PORT,..., where --servers is not given"},
	{"ZK_AUTH", "the credentials, SCHEME:CREDENTIALS, where --auth is not given"},
	{"ZK_TLS_CA, ZK_TLS_CERT, ZK_TLS_KEY, ZK_TLS_SERVER_NAME", "what the flags --tls-ca, --tls-cert, --tls-key and --tls-server-name say, where these are not given"},
	{"NOTIFY_SOCKET, WATCHDOG_USEC", "run and guard report to systemd, when it has set these"},
}

// flags defines the connection's flags, after those of the command itself. wait is the default of --wait.
func (o *connection) flags(c *cobra.Command, wait time.Duration) {
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.servers, "servers", "", "the ZooKeeper servers, `HOST:PORT,...` (default $ZK_SERVERS)")
	f.BoolVar(&o.dev, "dev", false, "start a ZooKeeper inside this process instead, to try things out")
	f.StringVar(&o.root, "root", election.DefaultRoot, "the `PATH` below which the elections are")
	durationFlag(c, &o.timeout, "timeout", 10*time.Second, "ask for this session timeout, a `DURATION`: a leader that dies is replaced after about that time")
	durationFlag(c, &o.tick, "tick", 0, "the servers' tickTime, a `DURATION`: with it a leader's lease lasts longer; one that is too small makes the lease wrong")
	f.StringVar(&o.auth, "auth", "", "credentials, `SCHEME:CREDENTIALS` such as digest:USER:PASSWORD (default $ZK_AUTH)")
	o.tls.flags(c)
	durationFlag(c, &o.wait, "wait", wait, "wait this `DURATION` for ZooKeeper's answer; 0 waits without end")
	f.BoolVar(&o.verbose, "verbose", false, "log to standard error what happens on the connection")
	_ = c.RegisterFlagCompletionFunc("root", cobra.NoFileCompletions)
	prepare := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		o.explicit = c.Flags().Changed("servers")
		if err := o.check(); err != nil {
			return err
		}
		if prepare != nil {
			return prepare(c, args)
		}
		return nil
	}
}

// check finds what cannot be right, and fills in what the environment says.
func (o *connection) check() error {
	if o.servers == "" && o.explicit { // of a variable that is not set, for one
		return usageError{errors.New("--servers is empty: want HOST:PORT,HOST:PORT")}
	}
	if o.servers == "" {
		o.servers = o.env.getenv("ZK_SERVERS")
	}
	if o.auth == "" {
		o.auth = o.env.getenv("ZK_AUTH")
	}
	switch {
	case o.dev && o.explicit:
		return usageError{errors.New("--dev and --servers exclude each other")}
	case !o.dev && o.servers == "":
		return usageError{errors.New("no servers given: use --servers, ZK_SERVERS or --dev")}
	case o.timeout <= 0:
		return usageError{fmt.Errorf("--timeout %v: a session timeout is longer than that", o.timeout)}
	case o.tick < 0:
		return usageError{fmt.Errorf("--tick %v: a tickTime is not negative", o.tick)}
	case o.wait < 0:
		return usageError{fmt.Errorf("--wait %v is negative", o.wait)}
	}
	if !o.dev {
		for _, server := range o.serverList() {
			if server == "" {
				return usageError{fmt.Errorf("the servers %q: want HOST:PORT,HOST:PORT", o.servers)}
			}
		}
	}
	if scheme, _, ok := strings.Cut(o.auth, ":"); o.auth != "" && (!ok || scheme == "") {
		return usageError{errors.New("--auth wants SCHEME:CREDENTIALS")}
	}
	return o.tls.check(o.env.getenv, o.dev)
}

// serverList takes spaces after the commas for what they are meant for.
func (o *connection) serverList() (servers []string) {
	for server := range strings.SplitSeq(o.servers, ",") {
		servers = append(servers, strings.TrimSpace(server))
	}
	return servers
}

// logger is for what happens at quiet or above, and with --verbose for everything.
func (o *connection) logger(quiet slog.Level) *slog.Logger {
	if o.verbose {
		quiet = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(o.env.stderr, &slog.HandlerOptions{Level: quiet}))
}

// connect opens the session, and the in-process server if it is wanted, and waits until it can be used. closeAll ends both.
func (o *connection) connect(ctx context.Context) (s *election.Session, closeAll func(), err error) {
	servers := o.serverList()
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
	opts := &election.SessionOptions{TickTime: o.tick, Logger: o.logger(slog.LevelError), Guard: o.guard}
	if scheme, credentials, ok := strings.Cut(o.auth, ":"); ok {
		opts.Auth = []election.Auth{{Scheme: scheme, Credentials: []byte(credentials)}}
	}
	if o.tls.wanted() {
		opts.Dialer = o.tls.dial
	}
	s, err = election.Connect(servers, o.timeout, opts)
	if err != nil { // Connect asks nobody: it is what was given that is wrong
		closeServer()
		return nil, nil, usageError{errors.New(inFlags.Replace(err.Error()))}
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

// inFlags puts zkelect's flags in the place of the library's options in what Connect says to do.
var inFlags = strings.NewReplacer(
	"TickTime", "--tick",
	"set SessionOptions.Dialer", "give --tls",
	"set Root in CandidateOptions and ObserverOptions", "give --root",
	"give credentials in SessionOptions.Auth", "give credentials by --auth",
)

// await waits for the connection, and says so when it takes long.
func (o *connection) await(ctx context.Context, s *election.Session, servers []string) error {
	notice := time.AfterFunc(3*time.Second, func() { o.env.say("waiting for ZooKeeper at %s", strings.Join(servers, ",")) })
	defer notice.Stop()
	limit, cancel := o.limit(ctx)
	defer cancel()
	err := s.AwaitConnected(limit)
	if err != nil && ctx.Err() == nil && limit.Err() != nil {
		return fmt.Errorf("no ZooKeeper answers at %s in %v%s", strings.Join(servers, ","), o.wait, reason(err))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// reason is why no server could be used, as far as the last attempt tells.
func reason(err error) string {
	if dial := (*net.OpError)(nil); errors.As(err, &dial) {
		return fmt.Sprintf(" (%v)", dial)
	}
	if _, last, ok := strings.Cut(err.Error(), "the last was "); ok {
		return " (" + last
	}
	return ""
}

// limit bounds a request by --wait.
func (o *connection) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.wait <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, o.wait)
}

// electionFlag defines --election, which has to be given.
func (o *connection) electionFlag(c *cobra.Command, name *string) {
	c.Flags().StringVar(name, "election", "", "the election's `NAME`")
	_ = c.RegisterFlagCompletionFunc("election", completeElections(o))
	c.PreRunE = func(*cobra.Command, []string) error {
		if *name == "" {
			return usageError{errors.New("no election given: use --election NAME")}
		}
		return nil
	}
}

// misuse marks what the user can only mend in the command line.
func misuse(err error) error {
	if errors.Is(err, election.ErrInvalidName) || errors.Is(err, election.ErrInvalidPath) || errors.Is(err, election.ErrDataTooLarge) {
		return usageError{err}
	}
	return err
}

// ask makes a call of the client, which takes no context, and waits for the answer for as long as ctx lasts.
func ask[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := call()
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
