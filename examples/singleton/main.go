// Command singleton runs a job that must run in one place at a time: three
// workers stand ready, one of them does the work, and when it fails another goes
// on where it stopped. Each worker is what a process would be in real life,
// with a ZooKeeper session of its own. Without -servers it starts an in-process
// ZooKeeper.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// items is how much work there is, failAfter how many items a worker lasts.
const items, failAfter = 30, 10

// work is the job. Two of it at the same time would do an item twice.
type work struct {
	standing sync.WaitGroup // it begins when all workers stand ready
	running  atomic.Int32
	done     atomic.Int32
}

var (
	errAllDone = errors.New("all done")
	errFailed  = errors.New("failed")
)

// do works until all is done, leadership ends, or it fails.
func (w *work) do(ctx context.Context, name string) error {
	if w.running.Add(1) > 1 {
		log.Fatal("singleton: the job runs twice")
	}
	defer w.running.Add(-1)
	for n := 0; ; n++ {
		switch {
		case w.done.Load() == items:
			return errAllDone
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case n == failAfter:
			fmt.Printf("%s fails\n", name)
			return errFailed
		}
		fmt.Printf("%s does item %d\n", name, w.done.Add(1))
		select { // the next item takes a moment to come
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// worker is one process: it stands in the election until the work is done.
func worker(servers []string, name string, w *work, stands func()) error {
	session, err := election.Connect(servers, 10*time.Second, nil)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }()
	candidate, err := election.NewCandidate(session, "singleton-job", &election.CandidateOptions{Data: []byte(name)})
	if err != nil {
		return err
	}
	if err := candidate.Vote(context.Background()); err != nil { // Run would, too
		return err
	}
	stands()
	// Run calls the function only while this worker leads, and ends its context
	// when it leads no more. It has returned before another worker begins.
	return candidate.Run(context.Background(), func(ctx context.Context, _ election.Term) error {
		w.standing.Wait()
		fmt.Printf("%s leads\n", name)
		return w.do(ctx, name)
	})
}

func main() {
	list := flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelError + 1) // what the library logs
	servers := strings.Split(*list, ",")
	if *list == "" {
		srv, err := testutil.NewServer(nil)
		if err != nil {
			log.Fatal(err)
		}
		defer srv.Close()
		servers = srv.Servers()
	}
	var w work
	var workers sync.WaitGroup
	w.standing.Add(3)
	for i := range 3 {
		name, stands := fmt.Sprintf("worker%d", i+1), sync.OnceFunc(w.standing.Done)
		workers.Go(func() {
			for { // as a supervisor starts a failed process again
				err := worker(servers, name, &w, stands)
				if errors.Is(err, errAllDone) {
					return
				}
				if !errors.Is(err, errFailed) {
					log.Fatalf("singleton: %s: %v", name, err)
				}
			}
		})
	}
	workers.Wait()
	fmt.Printf("%d items done, each once\n", w.done.Load())
}
