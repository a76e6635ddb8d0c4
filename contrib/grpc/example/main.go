// Command example shows gRPC clients that always reach the leader, without
// knowing any address, and lose no call. Three servers stand in an election: the
// leader resigns, the next one is shut down, and the last one's connection to
// ZooKeeper is cut until its session has expired. Without -servers it starts an
// in-process ZooKeeper.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zkelection/election"
	electiongrpc "github.com/zkelection/election/contrib/grpc"
	"github.com/zkelection/election/testutil"
)

const name, service, timeout = "grpc-example", "example.Store", 4 * time.Second

// store is what the leader writes to. It refuses a leader of the past.
type store struct {
	sync.Mutex
	token int64
}

func (s *store) write(token int64) error {
	s.Lock()
	defer s.Unlock()
	if token < s.token {
		return status.Error(codes.Aborted, "a newer leader has written")
	}
	s.token = token
	return nil
}

// server is one process of the service.
type server struct {
	name      string
	session   *election.Session
	candidate *election.Candidate
	health    *electiongrpc.HealthServer
	web       *grpc.Server
	cut       atomic.Bool // its cable to ZooKeeper
	cable     atomic.Pointer[net.Conn]
}

func start(servers []string, who string, data *store) *server {
	s := &server{name: who}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	s.session, err = election.Connect(servers, timeout, &election.SessionOptions{Dialer: s.dial})
	check(err)
	s.candidate, err = election.NewCandidate(s.session, name, &election.CandidateOptions{
		Data: []byte(listener.Addr().String()), HotStandby: true, // the data is where clients find the leader
	})
	check(err)
	s.health = electiongrpc.NewHealthServer(map[string]*election.Candidate{service: s.candidate})
	s.web = grpc.NewServer(grpc.UnaryInterceptor(electiongrpc.UnaryServerInterceptor(s.candidate)))
	grpc_health_v1.RegisterHealthServer(s.web, s.health)
	write := func(context.Context, any) (any, error) {
		term, _ := s.candidate.Term() // the zero token of one that has just lost is refused
		return wrapperspb.String(who), data.write(term.Token)
	}
	// What protoc makes of a service definition.
	s.web.RegisterService(&grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Write",
		Handler: func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(emptypb.Empty)
			if err := decode(in); err != nil {
				return nil, err
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/" + service + "/Write"}, write)
		},
	}}}, nil)
	go func() { check(s.web.Serve(listener)) }()
	check(s.candidate.Vote(context.Background()))
	return s
}

func (s *server) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	if s.cut.Load() {
		return nil, errors.New("the cable is cut")
	}
	conn, err := net.DialTimeout(network, address, timeout)
	s.cable.Store(&conn)
	return conn, err
}

func (s *server) resign()   { check(s.candidate.Resign(context.Background())) }
func (s *server) unplug()   { s.cut.Store(true); check((*s.cable.Load()).Close()) }
func (s *server) shutDown() { check(s.session.Close()); s.health.Shutdown(); s.web.GracefulStop() }

func main() {
	list := flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelError + 1) // what the library logs
	servers := strings.Split(*list, ",")
	if *list == "" {
		srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond})
		check(err)
		defer srv.Close()
		servers = srv.Servers()
	}
	session, err := election.Connect(servers, timeout, nil)
	check(err)
	conn, err := grpc.NewClient("election:///"+name,
		grpc.WithResolvers(electiongrpc.NewBuilder(session, nil)),
		grpc.WithDefaultServiceConfig(electiongrpc.WaitForLeader),
		grpc.WithUnaryInterceptor(electiongrpc.UnaryClientInterceptor()),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)

	var data store
	alpha, beta, gamma := start(servers, "alpha", &data), start(servers, "beta", &data), start(servers, "gamma", &data)
	clients := callForever(conn)
	for _, act := range []struct {
		leader *server
		what   string
		do     func()
	}{{alpha, "resigns", alpha.resign}, {beta, "is shut down", beta.shutDown}, {gamma, "loses its session", gamma.unplug}} {
		clients.await(act.leader.name)
		if act.leader == gamma {
			check(alpha.candidate.Vote(context.Background())) // somebody has to be next
		}
		fmt.Printf("all clients are answered by %s, which now %s\n", act.leader.name, act.what)
		act.do()
	}
	clients.await("alpha")
	fmt.Println("all clients are answered by alpha")
	clients.stop()
	check(conn.Close())
	check(session.Close())
	gamma.cut.Store(false)
	gamma.shutDown()
	alpha.shutDown()
}

func check(err error) {
	if err != nil {
		log.Fatal("example: ", err)
	}
}
