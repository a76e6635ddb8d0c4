package grpc

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

type answer = grpc_health_v1.HealthCheckResponse_ServingStatus

const (
	serving    = grpc_health_v1.HealthCheckResponse_SERVING
	notServing = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	unknown    = grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
)

// fakeStream is the server's side of a Watch.
type fakeStream struct {
	grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]

	ctx  context.Context
	sent chan answer
}

func (f fakeStream) Context() context.Context { return f.ctx }

func (f fakeStream) Send(m *grpc_health_v1.HealthCheckResponse) error {
	f.sent <- m.GetStatus()
	return nil
}

func check(t *testing.T, h *HealthServer, service string) answer {
	t.Helper()
	got, err := h.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
	require.NoError(t, err)
	list, err := h.List(t.Context(), &grpc_health_v1.HealthListRequest{})
	require.NoError(t, err)
	assert.Equal(t, got.GetStatus(), list.GetStatuses()[service].GetStatus())
	return got.GetStatus()
}

// TestHealth follows a candidate through a takeover, a lapse of its lease and
// its resignation.
func TestHealth(t *testing.T) {
	virtually(t, func(t *testing.T, srv *testutil.Server) {
		c := candidate(t, member(t, srv), "a:1")
		release := make(chan struct{})
		c.OnWin(func(context.Context, election.Term) error { <-release; return nil })
		h := NewHealthServer(map[string]*election.Candidate{"db.Master": c})
		_, err := h.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "nothing"})
		assert.Equal(t, codes.NotFound, status.Code(err))

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		watch := func(ctx context.Context, service string) (chan answer, chan error) {
			stream, ended := fakeStream{ctx: ctx, sent: make(chan answer, 100)}, make(chan error, 1)
			go func() { ended <- h.Watch(&grpc_health_v1.HealthCheckRequest{Service: service}, stream) }()
			return stream.sent, ended
		}
		sent, ended := watch(t.Context(), "db.Master")
		strange, strangeEnded := watch(ctx, "nothing")
		expect := func(what string, want answer) {
			t.Helper()
			time.Sleep(watchPeriod) // of virtual time
			synctest.Wait()
			assert.Equal(t, want, check(t, h, "db.Master"), what)
			require.Len(t, sent, 1, what)
			assert.Equal(t, want, <-sent, what)
		}
		expect("before the vote", notServing)
		require.NoError(t, c.Vote(t.Context()))
		time.Sleep(time.Second)
		require.True(t, c.IsLeader())
		assert.Equal(t, notServing, check(t, h, "db.Master"), "taking over")
		assert.Empty(t, sent)
		close(release)
		expect("leading", serving)
		time.Sleep(time.Hour)
		assert.Empty(t, sent)

		srv.Stop()
		time.Sleep(time.Until(c.LeaseUntil()))
		expect("without a lease", notServing)
		require.NoError(t, srv.Start())
		time.Sleep(30 * time.Second)
		expect("leading again", serving)
		require.NoError(t, c.Resign(t.Context()))
		expect("resigned", notServing)
		_, err = c.Campaign(t.Context())
		require.NoError(t, err)
		expect("elected again", serving)

		assert.Equal(t, serving, check(t, h, ""), "the server as a whole")
		cancel()
		assert.Equal(t, codes.Canceled, status.Code(<-strangeEnded))
		require.Len(t, strange, 1)
		assert.Equal(t, unknown, <-strange)

		h.Shutdown()
		h.Shutdown()
		assert.Equal(t, codes.Unavailable, status.Code(<-ended))
		require.Len(t, sent, 1)
		assert.Equal(t, notServing, <-sent)
		assert.Equal(t, notServing, check(t, h, "db.Master"))
		assert.Equal(t, notServing, check(t, h, ""))
	})
}

// TestInterceptors: a server that does not lead refuses before it does
// anything, and a client comes back to what was refused so, and to nothing else.
func TestInterceptors(t *testing.T) {
	virtually(t, func(t *testing.T, srv *testutil.Server) {
		c := candidate(t, member(t, srv), "a:1")
		calls := 0
		server := &serverSide{}
		handle := func(method string) error {
			_, err := UnaryServerInterceptor(c)(grpc.NewContextWithServerTransportStream(t.Context(), server), nil,
				&grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { calls++; return nil, nil })
			return err
		}
		assert.Equal(t, codes.Unavailable, status.Code(handle("/db.Master/Write")))
		assert.Equal(t, 0, calls)
		assert.Equal(t, []string{"area/db"}, server.trailer.Get(refusal))
		require.NoError(t, handle(grpc_health_v1.Health_Check_FullMethodName))
		assert.Equal(t, 1, calls)

		stream := &fakeServerStream{}
		streams := func() error {
			return StreamServerInterceptor(c)(nil, stream, &grpc.StreamServerInfo{FullMethod: "/db.Master/Follow"},
				func(any, grpc.ServerStream) error { calls++; return nil })
		}
		assert.Equal(t, codes.Unavailable, status.Code(streams()))
		assert.Equal(t, []string{"area/db"}, stream.trailer.Get(refusal))
		assert.Equal(t, 1, calls)

		// The client's side: the third try finds the leader.
		tries := 0
		invoke := func(_ context.Context, method string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
			tries++
			if tries == 3 {
				_, err := c.Campaign(t.Context())
				require.NoError(t, err)
			}
			server.trailer = nil
			err := handle(method)
			for _, opt := range opts {
				if o, ok := opt.(grpc.TrailerCallOption); ok {
					*o.TrailerAddr = server.trailer
				}
			}
			return err
		}
		client := UnaryClientInterceptor()
		require.NoError(t, client(t.Context(), "/db.Master/Write", nil, nil, nil, invoke))
		assert.Equal(t, 3, tries)
		assert.Equal(t, 2, calls)
		require.NoError(t, streams())

		// The same code from elsewhere, as of a broken connection, is the caller's.
		tries = 0
		broken := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			tries++
			return status.Error(codes.Unavailable, "the connection broke")
		}
		assert.Equal(t, codes.Unavailable, status.Code(client(t.Context(), "/db.Master/Write", nil, nil, nil, broken)))
		assert.Equal(t, 1, tries)

		require.NoError(t, c.Resign(t.Context()))
		tries = 10
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := client(ctx, "/db.Master/Write", nil, nil, nil, invoke)
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
		assert.ErrorContains(t, err, "does not lead")
		assert.Greater(t, tries, 300, "a pause of at most 200 ms")
		assert.Less(t, tries, 700, "and of at least half of that")
	})
}

type serverSide struct{ trailer metadata.MD }

func (*serverSide) Method() string               { return "" }
func (*serverSide) SetHeader(metadata.MD) error  { return nil }
func (*serverSide) SendHeader(metadata.MD) error { return nil }
func (s *serverSide) SetTrailer(md metadata.MD) error {
	s.trailer = md
	return nil
}

type fakeServerStream struct {
	grpc.ServerStream
	trailer metadata.MD
}

func (f *fakeServerStream) SetTrailer(md metadata.MD) { f.trailer = md }
