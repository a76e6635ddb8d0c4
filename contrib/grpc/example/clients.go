package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// clients call one after another, without a pause, and note who answers.
type clients struct {
	ended   chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	last    [8]string // who has answered each client last
	calls   int
	longest time.Duration
}

func callForever(conn *grpc.ClientConn) *clients {
	c := &clients{ended: make(chan struct{})}
	c.changed = sync.NewCond(&c.mu)
	for i := range c.last {
		c.running.Go(func() {
			for {
				select {
				case <-c.ended:
					return
				case <-time.After(time.Millisecond):
					c.call(conn, i)
				}
			}
		})
	}
	return c
}

func (c *clients) call(conn *grpc.ClientConn, i int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began, answer := time.Now(), new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, "/"+service+"/Write", &emptypb.Empty{}, answer)
	if status.Code(err) == codes.Aborted {
		return // the store has refused it, so nothing was done, and it can be made again
	}
	check(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[i] = answer.GetValue()
	c.calls++
	c.longest = max(c.longest, time.Since(began))
	c.changed.Broadcast()
}

// await waits until all clients are answered by one server.
func (c *clients) await(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := c.last
	for i := range want {
		want[i] = name
	}
	for c.last != want {
		c.changed.Wait()
	}
}

func (c *clients) stop() {
	close(c.ended)
	c.running.Wait()
	fmt.Printf("%d calls, and not one has failed; the longest took %.1f s\n", c.calls, c.longest.Seconds())
}
