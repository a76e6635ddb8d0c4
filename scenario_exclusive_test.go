package election_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
)

// Who gives leadership up has certainty beyond its lease, until its work has ended.

// hangs makes OnStepDown hang until it is released.
func (m *member) hangs() (release func()) {
	hold := make(chan struct{})
	m.OnStepDown(func(context.Context, election.Term, error) { <-hold })
	return sync.OnceFunc(func() { close(hold) })
}

func TestExclusiveUntilTheWorkHasEnded(t *testing.T) {
	for name, giveUp := range map[string]func(w *world, a, b *member){
		"resigned":    func(w *world, a, _ *member) { go func() { _ = a.Resign(w.context()) }() },
		"closed":      func(_ *world, a, _ *member) { go func() { _ = a.Close() }() },
		"transferred": func(w *world, a, b *member) { go func() { _ = a.Transfer(w.context(), b.ballotOf()) }() },
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = time.Hour })
				assert.Zero(t, a.ExclusiveUntil())
				release := a.hangs()
				defer release()
				a.lead()
				b := w.member("b", j).vote()
				assert.Equal(t, a.LeaseUntil(), a.ExclusiveUntil())
				assert.Zero(t, b.ExclusiveUntil())
				giveUp(w, a, b)
				w.until("the step-down", func() bool { return !a.IsLeader() })
				for range 100 {
					time.Sleep(w.timeout() / 10)
					require.Zero(t, a.LeaseUntil())
					require.Greater(t, time.Until(a.ExclusiveUntil()), w.timeout()/4)
					require.False(t, b.IsLeader())
				}
				release()
				w.await(j, "b won")
				assert.Zero(t, a.ExclusiveUntil())
				assert.Equal(t, b.LeaseUntil(), b.ExclusiveUntil())
			})
		})
	}
}

// No longer than the ballot waits.
func TestExclusiveWithinStepDownTimeout(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		limit := w.timeout() * 2
		a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = limit })
		defer a.hangs()()
		a.lead()
		b := w.member("b", j).vote()
		lost := time.Now()
		go func() { _ = a.Resign(w.context()) }()
		w.until("the step-down", func() bool { return !a.IsLeader() })
		var last time.Time
		for !b.IsLeader() {
			if until := a.ExclusiveUntil(); !until.IsZero() {
				last = until
			}
			time.Sleep(time.Millisecond)
		}
		assert.Equal(t, lost.Add(limit), last)
		assert.False(t, time.Now().Before(last))
		assert.Zero(t, a.ExclusiveUntil())
	})
}

// There is none after a loss, nor when the ballot or the lease goes meanwhile.
func TestNotExclusiveAfterALoss(t *testing.T) {
	for name, lose := range map[string]func(w *world, a *member){
		"the lease":   func(w *world, a *member) { w.starve(a.node) },
		"the session": func(w *world, a *member) { w.srv.ExpireSession(a.node.ID()) },
		"the ballot":  func(w *world, a *member) { require.NoError(w.t, w.client().Delete(a.VotePath(), -1)) },
		"the ballot, resigned": func(w *world, a *member) {
			path := a.VotePath()
			go func() { _ = a.Resign(w.context()) }()
			w.until("the step-down", func() bool { return !a.IsLeader() })
			assert.NotZero(w.t, a.ExclusiveUntil())
			require.NoError(w.t, w.client().Delete(path, -1))
		},
		"the lease, resigned": func(w *world, a *member) {
			w.starve(a.node)
			go func() { _ = a.Resign(w.context()) }()
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				a := w.member("a", &journal{}, func(o *election.CandidateOptions) { o.StepDownTimeout = time.Hour })
				defer a.hangs()()
				a.lead()
				lose(w, a)
				time.Sleep(w.timeout())
				assert.False(t, a.IsLeader())
				for range 30 {
					time.Sleep(w.timeout() / 10)
					assert.Zero(t, a.ExclusiveUntil())
				}
			})
		})
	}
}

// What a leader has said before it gives leadership up holds afterwards, too.
func TestExclusiveIsKept(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = w.timeout() / 16 })
		defer a.hangs()()
		a.lead()
		b := w.member("b", j).vote()
		time.Sleep(w.timeout())
		promised := a.ExclusiveUntil()
		assert.Equal(t, w.timeout()/16, time.Until(promised))
		go func() { _ = a.Resign(w.context()) }()
		for !b.IsLeader() {
			time.Sleep(time.Millisecond)
		}
		assert.False(t, time.Now().Before(promised))
	})
}

// A watch that is lost, and a ballot that is deleted by hand: the periodic recheck tells, also
// one that comes to nothing at first.
func TestExclusiveWithoutAWatch(t *testing.T) {
	for name, fault := range recheckFaults {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = time.Hour })
				defer a.hangs()()
				a.lead()
				b := w.member("b", j).vote()
				path := a.VotePath()
				time.Sleep(3 * w.timeout())
				defer a.deafAfterReconnection()()
				go func() { _ = a.Resign(w.context()) }()
				w.until("the step-down", func() bool { return !a.IsLeader() })
				w.srv.DropConnections()
				time.Sleep(2 * w.timeout())
				assert.NotZero(t, a.ExclusiveUntil())
				require.NoError(t, w.client().Delete(path, -1))
				met, cancel := a.firstRequestFor(path, fault) // before any time passes: a may look at once
				defer cancel()
				w.until("b to lead", b.IsLeader)
				time.Sleep(3 * w.timeout())
				select {
				case <-met:
				default:
					t.Error("nobody has looked")
				}
				assert.Zero(t, a.ExclusiveUntil())
			})
		})
	}
}

// slowEnd is a log that takes its time for the end of a candidate.
type slowEnd struct{ slog.Handler }

func (slowEnd) Enabled(context.Context, slog.Level) bool { return true }

func (h slowEnd) WithAttrs(a []slog.Attr) slog.Handler { return slowEnd{h.Handler.WithAttrs(a)} }

func (slowEnd) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "to" && a.Value.String() == "ended" {
			time.Sleep(time.Second)
		}
		return true
	})
	return nil
}

// A Shutdown whose time is over takes back what was said, before others can lead.
func TestNotExclusiveBesideAHurriedShutdown(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.memberOn(w.unchecked(), "a", j, func(o *election.CandidateOptions) {
			o.StepDownTimeout, o.Logger = time.Hour, slog.New(slowEnd{slog.DiscardHandler})
		})
		defer a.hangs()()
		a.lead()
		b := w.member("b", j).vote()
		ctx, cancel := context.WithTimeout(context.Background(), w.timeout()/8)
		defer cancel()
		go func() { _ = a.node.Shutdown(ctx) }()
		w.until("the step-down", func() bool { return !a.IsLeader() })
		assert.NotZero(t, a.ExclusiveUntil())
		for !b.IsLeader() {
			time.Sleep(time.Millisecond)
		}
		assert.Zero(t, a.ExclusiveUntil())
	})
}
