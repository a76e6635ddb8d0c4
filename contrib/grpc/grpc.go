// Package grpc takes gRPC clients to the leader of an election, and lets a gRPC
// server say whether it leads. It is a module of its own, so that the library
// does not depend on gRPC.
//
// A client follows the leader, whose data is its address:
//
//	conn, err := grpc.NewClient("election:///database_election",
//		grpc.WithResolvers(electiongrpc.NewBuilder(session, nil)),
//		grpc.WithDefaultServiceConfig(electiongrpc.WaitForLeader),
//		grpc.WithUnaryInterceptor(electiongrpc.UnaryClientInterceptor()))
//
// and a server refuses what only the leader may do, and tells its health:
//
//	server := grpc.NewServer(grpc.UnaryInterceptor(electiongrpc.UnaryServerInterceptor(candidate)))
//	health := electiongrpc.NewHealthServer(map[string]*election.Candidate{"": candidate})
//	grpc_health_v1.RegisterHealthServer(server, health)
//
// With these a call waits while nobody leads, and is made again when a server
// has refused it because it does not lead, until the call's deadline. What no
// library can decide stays an error: a call whose server died before it
// answered may have been carried out.
package grpc

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zkelection/election"
)

// WaitForLeader is a service configuration by which calls wait for a leader
// until their deadline. Without it a call fails at once with UNAVAILABLE while
// nobody leads, unless it is made with grpc.WaitForReady(true).
const WaitForLeader = `{"methodConfig":[{"name":[{}],"waitForReady":true}]}`

// refusal is in the trailer of a call that was refused before anything was
// done, because the server does not lead.
const refusal = "election-not-leader"

// serves reports whether a candidate leads and has acknowledged, at this
// instant.
func serves(c *election.Candidate) bool {
	s := c.Status()
	return s.Leads && !s.AcknowledgedAt.IsZero()
}

func refuse(c *election.Candidate, setTrailer func(metadata.MD) error) error {
	// A client without the interceptor sees the code only.
	_ = setTrailer(metadata.Pairs(refusal, c.Name()))
	return status.Errorf(codes.Unavailable, "this server does not lead %q", c.Name())
}

// UnaryServerInterceptor refuses calls with the code UNAVAILABLE, before
// anything is done, unless c leads and has acknowledged. What it lets pass can
// still come too late, if the process is stopped in between: see
// election.Term.Token. The health service is served in any case.
func UnaryServerInterceptor(c *election.Candidate) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if !isHealth(info.FullMethod) && !serves(c) {
			return nil, refuse(c, func(md metadata.MD) error { return grpc.SetTrailer(ctx, md) })
		}
		return handler(ctx, req)
	}
}

// StreamServerInterceptor does for the beginning of a stream what
// UnaryServerInterceptor does for a call. A stream that has begun goes on: its
// handler looks for itself.
func StreamServerInterceptor(c *election.Candidate) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if !isHealth(info.FullMethod) && !serves(c) {
			return refuse(c, func(md metadata.MD) error { stream.SetTrailer(md); return nil })
		}
		return handler(srv, stream)
	}
}

// Between two tries of a call that was refused, by a server that leads no more
// or does not lead yet.
const firstPause, longestPause = 5 * time.Millisecond, 200 * time.Millisecond

// UnaryClientInterceptor makes a call again, until its context ends, that
// UnaryServerInterceptor has refused. It never repeats a call that may have been
// carried out. Give calls a deadline, or they wait for a leader forever.
func UnaryClientInterceptor() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		for pause := firstPause; ; pause = min(2*pause, longestPause) {
			var trailer metadata.MD
			err := invoke(ctx, method, req, reply, conn, append(opts[:len(opts):len(opts)], grpc.Trailer(&trailer))...)
			if err == nil || len(trailer.Get(refusal)) == 0 {
				return err
			}
			// Half of it by chance, so that many clients do not come back at once.
			wait := time.NewTimer(pause/2 + rand.N(pause/2))
			select {
			case <-wait.C:
			case <-ctx.Done():
				wait.Stop()
				return status.Errorf(status.FromContextError(ctx.Err()).Code(), "%v; the last answer: %v", ctx.Err(), err)
			}
		}
	}
}
