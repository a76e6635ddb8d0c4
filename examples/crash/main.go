// Command crash shows what a guard is for: a leader that panics, and the next
// one that serves. It does so twice, with processes of its own program: without
// a guard, when the next one waits until the session of the dead one has ended,
// and with one, when that is closed at once. Without -servers it starts an
// in-process ZooKeeper.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/guard"
	"github.com/zkelection/election/testutil"
)

var (
	servers  = flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	timeout  = flag.Duration("timeout", 4*time.Second, "session timeout")
	instance = flag.String("instance", "", "be this instance of the service, and panic on demand")
	guarded  = flag.Bool("guard", false, "have a guard")

	ctx   = context.Background()
	began = time.Now()
)

func main() {
	flag.Parse()
	guard.Init(nil) // here this program may be started again, as a guard
	if *instance != "" {
		serve()
		return
	}
	slog.SetLogLoggerLevel(slog.LevelError + 1) // the timeline says it all
	time.AfterFunc(time.Minute+10**timeout, func() { log.Fatal("crash: no leader in all this time") })
	if *servers == "" {
		srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond})
		check(err)
		defer srv.Close()
		*servers = srv.Addr()
	}
	client, err := election.Connect(strings.Split(*servers, ","), *timeout, nil)
	check(err)
	check(client.AwaitConnected(ctx))
	var took []time.Duration
	for _, with := range []bool{false, true} {
		name, kind := "crash-without", "without a guard"
		if with {
			name, kind = "crash-with", "with a guard"
		}
		fmt.Printf("%10s  ---- %s\n", "", kind)
		a := start("alpha", name, with)
		a.says("serves")
		b := start("beta", name, with)
		b.says("stands by")
		time.Sleep(*timeout / 2) // a hot standby has a lease after a quarter of it
		died := say("alpha", "PANICS")
		_, _ = fmt.Fprintln(a.input, "panic")
		took = append(took, b.says("serves").Sub(died))
		_ = a.cmd.Wait()
		_ = b.input.Close() // it closes its session, and ends
		check(b.cmd.Wait())
	}
	check(client.Close())
	fmt.Printf("\nuntil the next one served: %.3f s without a guard, %.3f s with one\n", took[0].Seconds(), took[1].Seconds())
}

// serve is the service.
func serve() {
	slog.SetLogLoggerLevel(slog.LevelError + 1)
	opts := &election.SessionOptions{}
	var g *guard.Guard
	if *guarded {
		var err error
		if g, err = guard.Start(nil); err != nil {
			fmt.Println("has no guard:", err) // and goes on without
		}
		opts.Guard = g
	}
	session, err := election.Connect(strings.Split(*servers, ","), *timeout, opts)
	check(err)
	c, err := election.NewCandidate(session, flag.Arg(0), &election.CandidateOptions{HotStandby: true})
	check(err)
	c.OnWin(func(context.Context, election.Term) error { fmt.Println("serves"); return nil })
	check(c.Vote(ctx))
	if ballots, err := c.Ballots(ctx); err == nil && len(ballots) > 1 {
		fmt.Println("stands by")
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		panic("a mistake in some goroutine") // no Close, nothing deferred
	}
	check(session.Close())
	check(g.Close())
}

// process is an instance of the service.
type process struct {
	name  string
	cmd   *exec.Cmd
	input io.WriteCloser
	lines *bufio.Scanner
}

func start(name, election string, with bool) *process {
	self, err := os.Executable()
	check(err)
	p := &process{name: name}
	p.cmd = exec.Command(self, "-servers", *servers, "-timeout", timeout.String(), "-instance", name, fmt.Sprint("-guard=", with), election)
	p.input, err = p.cmd.StdinPipe()
	check(err)
	output, err := p.cmd.StdoutPipe()
	check(err)
	p.lines = bufio.NewScanner(output)
	check(p.cmd.Start())
	return p
}

// says waits for a line of the instance's, and shows all before it.
func (p *process) says(text string) (at time.Time) {
	for p.lines.Scan() {
		if at = say(p.name, "%s", p.lines.Text()); p.lines.Text() == text {
			return at
		}
	}
	log.Fatalf("crash: %s has ended before it said %q", p.name, text)
	return at
}

func say(who, format string, args ...any) time.Time {
	now := time.Now()
	fmt.Printf("%8.3f s  %-6s %s\n", now.Sub(began).Seconds(), who, fmt.Sprintf(format, args...))
	return now
}

func check(err error) {
	if err != nil {
		log.Fatal("crash: ", err)
	}
}
