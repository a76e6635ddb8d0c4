// Package bench measures this library beside others, and beside the barest recipe there is, on a real ZooKeeper: `make
// bench` writes the tables of docs/performance.md and docs/performance.svg, `make bench-short` is the same in less than a
// minute, for N = 2 and 10, and writes nothing.
//
// Each contestant is a process with a candidate on each of N sessions: contestant is this library's and the floor's, peers/
// holds Curator's and kazoo's. They are told what to do line by line, in turns, and measure it themselves, by
// CLOCK_MONOTONIC, from the call to the callback. Where it begins in one process (a kill -9, a server that goes on) and ends
// in another, the clock is the same, and the moment of the former is read right before the signal is sent: what the kernel
// takes for that is counted in, some 0.1 ms.
//
// Times are measured on connections to the server itself, packets in a pass of their own through a proxy that counts them.
package bench
