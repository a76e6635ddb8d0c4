package election

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/lease"
)

// TestRequestGoneWhilePassingIsWritten: a leader that has heard, by the time that it knows
// that it has written "passing", that the request is gone steps down for nothing if it does.
func TestRequestGoneWhilePassingIsWritten(t *testing.T) {
	asked := &transferRequest{target: "ballot-" + newTag() + "-j-0000000007", nonce: newNonce(), state: transferReady, version: 1, czxid: 20, mzxid: 21}
	read := func(r *transferRequest, state transferState, czxid int64) ackView {
		n := &node{data: r.encode(state)}
		n.stat.Czxid, n.stat.Version = czxid, r.version
		return ackView{n}
	}
	for name, test := range map[string]struct {
		heard []ackView
		want  phase
	}{
		"nothing is heard":        {nil, leaving},
		"it is read once more":    {[]ackView{read(asked, transferReady, 20)}, leaving},
		"what was written, as is": {[]ackView{read(asked, transferPassing, 20)}, leaving},
		"it is gone":              {[]ackView{{}}, leading},
		"gone after that":         {[]ackView{read(asked, transferPassing, 20), {}}, leading},
		"another is there":        {[]ackView{read(&transferRequest{target: asked.target, nonce: newNonce(), version: 1}, transferReady, 23)}, leading},
		"what nobody understands": {[]ackView{{&node{data: []byte("x")}}}, leading},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSession(time.Minute)
			inc := &incarnation{id: 1, ctx: t.Context()}
			s.roster.publish(sessionView{inc: inc, connected: true})
			base, err := newBase(s, "e", "", slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			c := bareCandidacy(base)
			c.phase, c.want, c.seen.inc = leading, true, inc
			own := &ballot{name: "ballot-" + newTag() + "-j-0000000003", sequence: 3, inc: inc}
			c.ballot = &ballotState{node: own, line: line{known: true}}
			lead := &leadership{ballot: own, lease: lease.New(s.clock, s.rule(), s.clock.Now()+30*time.Second)}
			ctx, cancel := context.WithCancelCause(t.Context())
			lead.ctx, lead.cancel = ctx, cancel
			c.term = &termState{lead: lead}
			sub := &subscription{watcher: &ackWatcher{inbox: newInbox()}}
			c.transfers.sub, c.transfers.seen = sub, asked
			order := requestOrder{ballot: own, request: asked, next: transferPassing}
			for _, view := range test.heard {
				c.requestSeen(requestSeen{sub: sub, view: view})
			}
			c.requestDone(requestDone{requestOrder: order, written: asked.in(transferPassing)})
			assert.Equal(t, test.want, c.phase)
			if test.want == leaving {
				require.ErrorIs(t, context.Cause(ctx), ErrTransferred)
			}
			assert.True(t, base.queue.close(time.Minute, true))
		})
	}
}
