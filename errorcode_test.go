package election

import (
	"errors"
	"fmt"
	"testing"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
)

func TestErrorCodes(t *testing.T) {
	assert.Equal(t, "quota exceeded (-125)", ErrorCode(-125).Error())
	assert.Equal(t, "ZooKeeper error -199", ErrorCode(-199).Error())
	assert.Equal(t, ErrorCode(-125), named(errors.New("unknown error: -125")))
	for _, err := range []error{nil, zk.ErrNoAuth, errors.New("unknown error: what"), errors.New("unknown error: 99999999999")} {
		assert.Equal(t, err, named(err))
	}
}

// Every error has one kind: a lost reply or what passes, an answer that others
// count on, or a refusal.
func TestKindsOfErrors(t *testing.T) {
	for _, err := range []error{
		zk.ErrConnectionClosed, zk.ErrSessionExpired, zk.ErrSessionMoved, zk.ErrClosing, zk.ErrNoServer, errUncertain,
		ErrorCode(-4), ErrorCode(-7), ErrorCode(-12), ErrorCode(-119), ErrorCode(-122), ErrorCode(-127),
	} {
		assert.False(t, isPermanent(err) || isDefinite(err) || isSettled(err), "%v passes", err)
	}
	for _, err := range []error{
		zk.ErrInvalidACL, zk.ErrBadArguments, zk.ErrNoChildrenForEphemerals, zk.ErrNotEmpty, zk.ErrAuthFailed, zk.ErrAPIError, zk.ErrReconfigDisabled,
		ErrorCode(-1), ErrorCode(-2), ErrorCode(-5), ErrorCode(-6), ErrorCode(-124), ErrorCode(-125), ErrorCode(-126), ErrorCode(-1000),
		fmt.Errorf("create: %w", ErrorCode(-125)), errors.Join(zk.ErrConnectionClosed, ErrorCode(-125)),
	} {
		assert.True(t, isPermanent(err) && isSettled(err), "%v is a refusal", err)
		assert.False(t, isDefinite(err), "%v renews no lease", err)
	}
	for _, err := range []error{nil, zk.ErrNoNode, zk.ErrBadVersion} {
		assert.True(t, isDefinite(err) && isSettled(err) && !isPermanent(err), "%v", err)
	}
	assert.True(t, isDefinite(zk.ErrNoAuth) && isPermanent(zk.ErrNoAuth))
	assert.True(t, isSettled(zk.ErrNodeExists) && !isDefinite(zk.ErrNodeExists) && !isPermanent(zk.ErrNodeExists))
}

func TestGemIsNext(t *testing.T) {
	const ours, other, gem = "ballot-0123456789abcdef0123456789abcdef-0000000001", "ballot-0123456789abcdef0123456789abcdef-0000000003", "ballot0000000003"
	for _, test := range []struct {
		children []string
		want     bool
	}{
		{[]string{ours}, false},
		{[]string{ours, other}, false},
		{[]string{ours, gem, "leader_ack"}, true},
		{[]string{gem, ours, "ballot0000000000"}, true},
		{[]string{ours, other, "ballot0000000004"}, false},
		{[]string{ours, "ballot0000000000"}, false},
		{[]string{gem}, false},
		{[]string{ours, "ballot-x-0000000003"}, false},
	} {
		assert.Equal(t, test.want, gemIsNext(ballotsOf(test.children), ours), "%q", test.children)
	}
}
