package grpc

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/zkelection/election"
)

// watchPeriod is how often a Watch looks at its candidate, which costs well
// below a microsecond.
const watchPeriod = 25 * time.Millisecond

func isHealth(method string) bool {
	switch method {
	case grpc_health_v1.Health_Check_FullMethodName, grpc_health_v1.Health_List_FullMethodName, grpc_health_v1.Health_Watch_FullMethodName:
		return true
	}
	return false
}

// HealthServer is the standard health service, grpc.health.v1.Health, of a
// server whose services are served by leaders. A service is SERVING while its
// candidate leads and has acknowledged, and NOT_SERVING otherwise, also while it
// takes over. Check and List tell what is at the moment of the call; a Watch is
// told of a change within 25 ms. Make it with NewHealthServer.
type HealthServer struct {
	grpc_health_v1.UnimplementedHealthServer

	services map[string]*election.Candidate
	end      sync.Once
	ended    chan struct{}
}

// NewHealthServer makes a HealthServer of candidates by the names of the
// services that they serve. The name "" stands for the whole server, which is
// SERVING in any case if it has no candidate.
func NewHealthServer(services map[string]*election.Candidate) *HealthServer {
	return &HealthServer{services: maps.Clone(services), ended: make(chan struct{})}
}

// Shutdown makes all NOT_SERVING, and ends each Watch, for good. Call it before
// grpc.Server.GracefulStop, which would wait for them.
func (h *HealthServer) Shutdown() { h.end.Do(func() { close(h.ended) }) }

// of returns the present state of a service.
func (h *HealthServer) of(service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
	c, ok := h.services[service]
	switch {
	case !ok && service != "":
		return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
	case h.hasEnded(), ok && !serves(c):
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_SERVING
}

func (h *HealthServer) hasEnded() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// Check is called by gRPC.
func (h *HealthServer) Check(_ context.Context, in *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	state := h.of(in.GetService())
	if state == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Errorf(codes.NotFound, "unknown service %q", in.GetService())
	}
	return &grpc_health_v1.HealthCheckResponse{Status: state}, nil
}

// List is called by gRPC.
func (h *HealthServer) List(context.Context, *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	states := map[string]*grpc_health_v1.HealthCheckResponse{"": {Status: h.of("")}}
	for service := range h.services {
		states[service] = &grpc_health_v1.HealthCheckResponse{Status: h.of(service)}
	}
	return &grpc_health_v1.HealthListResponse{Statuses: states}, nil
}

// Watch is called by gRPC.
func (h *HealthServer) Watch(in *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	last := grpc_health_v1.HealthCheckResponse_UNKNOWN // which is never sent
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	for {
		ended := h.hasEnded() // before the look, so that the last state sent is the one after the end
		if state := h.of(in.GetService()); state != last {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: state}); err != nil {
				return err
			}
			last = state
		}
		if ended {
			return status.Error(codes.Unavailable, "the server is shutting down")
		}
		select {
		case <-tick.C:
		case <-h.ended:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}
