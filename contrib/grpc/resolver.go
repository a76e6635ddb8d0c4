package grpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/resolver"

	"github.com/zkelection/election"
)

// Scheme is the scheme of targets: election:///NAME, where NAME is an
// election's, with / in it or not.
const Scheme = "election"

// Options are the options of NewBuilder. The zero value, and nil, mean the
// defaults.
type Options struct {
	// Root is the node below which the elections live; election.DefaultRoot when
	// empty.
	Root string
	// Address makes of a leader the address to connect to. The default takes the
	// leader's data as "host:port". With TLS it may set ServerName, which is
	// checked against the certificate, if whoever may write to the election is
	// trusted to name it; else use grpc.WithAuthority.
	Address func(election.Leader) (resolver.Address, error)
	// Logger gets what the observers see. The default is the Session's.
	Logger *slog.Logger
}

// Builder makes resolvers that follow the leader of an election.
type Builder struct {
	session *election.Session
	opts    Options
}

var _ resolver.Builder = (*Builder)(nil)

// NewBuilder makes a Builder, to be given to grpc.WithResolvers or
// resolver.Register. Each connection observes its election on session, which
// stays the caller's: close it after the connections. A nil opts means the
// defaults.
func NewBuilder(session *election.Session, opts *Options) *Builder {
	b := &Builder{session: session}
	if opts != nil {
		b.opts = *opts
	}
	if b.opts.Address == nil {
		b.opts.Address = dataAsAddress
	}
	return b
}

func dataAsAddress(leader election.Leader) (resolver.Address, error) {
	if len(leader.Data) == 0 {
		return resolver.Address{}, errors.New("the leader has no data to take for its address")
	}
	return resolver.Address{Addr: string(leader.Data)}, nil
}

// Scheme returns the constant of that name.
func (b *Builder) Scheme() string { return Scheme }

// Build is called by gRPC when a connection is first used, and again after it
// was idle. It returns an error for a name that is none.
func (b *Builder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	if host := target.URL.Host; host != "" {
		return nil, fmt.Errorf("election: target %q: write %s:///%s%s: the session knows its servers", target.URL.String(), Scheme, host, target.URL.Path)
	}
	name := target.Endpoint()
	o, err := election.NewObserver(b.session, name, &election.ObserverOptions{Root: b.opts.Root, Logger: b.opts.Logger})
	if err != nil {
		return nil, fmt.Errorf("election: target %q: %w", target.URL.String(), err)
	}
	r := &leaderResolver{cc: cc, observer: o, address: b.opts.Address}
	// The observer calls one of these at a time, in order.
	o.OnNewLeader(r.found)
	o.OnLeaderData(r.found)
	o.OnLeaderDeath(func(election.Leader) { r.gone() })
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.running.Go(func() { r.observe(ctx, b.session.Timeout()) })
	return r, nil
}

// leaderResolver follows one election for one connection.
type leaderResolver struct {
	cc       resolver.ClientConn
	observer *election.Observer
	address  func(election.Leader) (resolver.Address, error)
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// observe begins to observe. Until it is known whether there is a leader it
// tells the connection, each time that interval has passed, why not, so that calls that do
// not wait for a leader fail with that reason, and not with their deadline.
func (r *leaderResolver) observe(ctx context.Context, interval time.Duration) {
	for {
		limit, cancel := context.WithTimeout(ctx, interval)
		err := r.observer.Observe(limit)
		if err == nil || ctx.Err() != nil || errors.Is(err, election.ErrClosed) {
			cancel()
			return
		}
		r.cc.ReportError(err)
		<-limit.Done() // a refusal comes at once; observing goes on meanwhile
		cancel()
	}
}

func (r *leaderResolver) found(leader election.Leader) {
	address, err := r.address(leader)
	if err != nil {
		r.nobody(fmt.Errorf("election: the leader of %q cannot be reached: %w", r.observer.Name(), err))
		return
	}
	// The error asks for another resolution, which cannot tell more.
	_ = r.cc.UpdateState(resolver.State{Addresses: []resolver.Address{address}})
}

func (r *leaderResolver) gone() {
	r.nobody(fmt.Errorf("election: %q has no leader", r.observer.Name()))
}

// nobody takes the connection from the last leader, so that no call goes there
// any more, and gives calls the reason.
func (r *leaderResolver) nobody(why error) {
	_ = r.cc.UpdateState(resolver.State{})
	r.cc.ReportError(why)
}

// ResolveNow does nothing: a new leader is told without being asked for.
func (r *leaderResolver) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends observing; no goroutine is left.
func (r *leaderResolver) Close() {
	r.cancel()
	r.running.Wait()
	// It can only fail by a callback that has not returned, and none of these
	// waits for anything.
	_ = r.observer.Close()
}
