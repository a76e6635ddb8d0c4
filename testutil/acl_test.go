package testutil

import (
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAllowed(t *testing.T) {
	me := digestOf("me:secret")
	who := []identity{{"ip", "10.1.2.3"}, me}
	for _, test := range []struct {
		name string
		list []acl
		perm int32
		want bool
	}{
		{"nothing said", nil, permDelete, true},
		{"anyone", []acl{{permRead, anyone}}, permRead, true},
		{"anyone, not this", []acl{{permRead, anyone}}, permWrite, false},
		{"one of two permissions", []acl{{permAdmin, anyone}}, permRead | permAdmin, true},
		{"me", []acl{{permAll, me}}, permWrite, true},
		{"another password", []acl{{permAll, digestOf("me:other")}}, permWrite, false},
		{"address", []acl{{permAll, identity{"ip", "10.1.2.3"}}}, permWrite, true},
		{"network", []acl{{permAll, identity{"ip", "10.1.0.0/16"}}}, permWrite, true},
		{"network with host bits", []acl{{permAll, identity{"ip", "10.1.9.9/16"}}}, permWrite, true},
		{"address with signs", []acl{{permAll, identity{"ip", "+10.1.2.+3"}}}, permWrite, true},
		{"another network", []acl{{permAll, identity{"ip", "10.2.0.0/16"}}}, permWrite, false},
		{"another family", []acl{{permAll, identity{"ip", "::1/0"}}}, permWrite, false},
		{"every network", []acl{{permAll, identity{"ip", "0.0.0.0/0"}}}, permWrite, true},
		{"unknown scheme", []acl{{permAll, identity{"sasl", "me"}}}, permWrite, false},
		{"second line", []acl{{permRead, anyone}, {permWrite, me}}, permWrite, true},
	} {
		assert.Equal(t, test.want, allowed(test.list, test.perm, who), test.name)
	}
}

func TestFixACL(t *testing.T) {
	me := digestOf("me:secret")
	who := []identity{{"ip", "10.1.2.3"}, me}
	rule := func(scheme, id string) []acl { return []acl{{permAll, identity{scheme, id}}} }
	for _, test := range []struct {
		name string
		list []acl
		who  []identity
		want []acl
		err  code
	}{
		{"none", nil, who, nil, codeInvalidACL},
		{"anyone twice", append(openACL, openACL...), who, openACL, codeOK},
		{"auth", rule("auth", ""), who, []acl{{permAll, me}}, codeOK},
		{"auth by nobody", rule("auth", ""), who[:1], nil, codeInvalidACL},
		{"digest", rule("digest", "a:b"), who, rule("digest", "a:b"), codeOK},
		{"digest without hash", rule("digest", "a"), who, nil, codeInvalidACL},
		{"digest with empty hash", rule("digest", "a:"), who, nil, codeInvalidACL},
		{"digest with three parts", rule("digest", "a:b:c"), who, nil, codeInvalidACL},
		{"ip", rule("ip", "1.2.3.4/8"), who, rule("ip", "1.2.3.4/8"), codeOK},
		{"ip with too many bits", rule("ip", "1.2.3.4/33"), who, nil, codeInvalidACL},
		{"ip with no address", rule("ip", "host"), who, nil, codeInvalidACL},
		{"ip with bad bits", rule("ip", "1.2.3.4/x"), who, nil, codeInvalidACL},
		{"world but not anyone", rule("world", "me"), who, nil, codeInvalidACL},
		{"unknown scheme", rule("sasl", "me"), who, nil, codeInvalidACL},
		{"ip of version 6", rule("ip", "::1"), who, nil, codeInvalidACL},
		{"ip with negative bits", rule("ip", "1.2.3.4/-1"), who, nil, codeInvalidACL},
		{"ip with signs", rule("ip", "+1.-0.3.4/+8"), who, rule("ip", "+1.-0.3.4/+8"), codeOK},
		{"ip with a negative part", rule("ip", "1.-2.3.4"), who, nil, codeInvalidACL},
		{"ip with too large a part", rule("ip", "1.256.3.4"), who, nil, codeInvalidACL},
		{"null scheme", rule(nullText, "x"), who, nil, codeInvalidACL},
		{"null scheme behind the same rights", append(rule("world", "anyone"), rule(nullText, "x")...), who, nil, codeMarshallingError},
		{"null scheme before the same rights", append(rule(nullText, "x"), rule("world", "anyone")...), who, nil, codeInvalidACL},
		{"null id behind the same scheme", append(rule("auth", ""), rule("auth", nullText)...), who, nil, codeMarshallingError},
		{"null id behind other rights", append([]acl{{permRead, identity{"auth", nullText}}}, rule("auth", nullText)...), who, []acl{{permRead, me}, {permAll, me}}, codeOK},
		{"null id", rule("world", nullText), who, nil, codeMarshallingError},
		{"auth with null id", rule("auth", nullText), who, []acl{{permAll, me}}, codeOK},
		{"null id of an unknown scheme", rule("", nullText), who, nil, codeInvalidACL},
	} {
		got, err := fixACL(test.list, test.who)
		assert.Equal(t, test.err, err, test.name)
		assert.Equal(t, test.want, got, test.name)
	}
}

func TestStrangersAreKeptOut(t *testing.T) {
	for _, release := range []Release{ZooKeeper38, ZooKeeper39} {
		t.Run(string(release), func(t *testing.T) { strangersAreKeptOut(t, release) })
	}
}

func strangersAreKeptOut(t *testing.T, release Release) {
	inMemory(t, ServerOptions{Release: release}, func(t *testing.T, srv *Server) {
		owner, stranger := connect(t, srv, 10*time.Second), connect(t, srv, 10*time.Second)
		require.NoError(t, owner.AddAuth("digest", []byte("me:secret")))
		mine := zk.DigestACL(zk.PermAll, "me", "secret")
		must[string](t)(owner.Create("/mine", []byte("x"), 0, mine))
		must[string](t)(owner.Create("/mine/open", nil, 0, everybody))
		must[string](t)(owner.Create("/read", nil, 0, append(zk.WorldACL(zk.PermRead), mine...)))
		_, _, err := stranger.Get("/mine")
		require.ErrorIs(t, err, zk.ErrNoAuth)
		_, _, err = stranger.Children("/mine")
		require.ErrorIs(t, err, zk.ErrNoAuth)
		_, err = stranger.Set("/mine", nil, -1)
		require.ErrorIs(t, err, zk.ErrNoAuth)
		_, err = stranger.Create("/mine/x", nil, 0, everybody)
		require.ErrorIs(t, err, zk.ErrNoAuth)
		// The parent decides who may delete.
		require.ErrorIs(t, stranger.Delete("/mine/open", -1), zk.ErrNoAuth)
		_, _, err = stranger.GetACL("/mine")
		require.ErrorIs(t, err, zk.ErrNoAuth)
		_, err = stranger.SetACL("/mine", everybody, -1)
		require.ErrorIs(t, err, zk.ErrNoAuth)
		_, err = stranger.Multi(&zk.CheckVersionRequest{Path: "/mine", Version: -1})
		require.ErrorIs(t, err, zk.ErrNoAuth)
		exists, _, err := stranger.Exists("/mine")
		if release == ZooKeeper38 {
			require.NoError(t, err)
			assert.True(t, exists)
		} else {
			require.ErrorIs(t, err, zk.ErrNoAuth)
		}
		// Who may read and not administer does not see the password's hash.
		list, _, err := stranger.GetACL("/read")
		require.NoError(t, err)
		require.Len(t, list, 2)
		assert.Equal(t, "me:x", list[1].ID)
		list, stat, err := owner.GetACL("/read")
		require.NoError(t, err)
		require.Len(t, list, 2)
		assert.Equal(t, mine[0], list[1])
		assert.Zero(t, stat.Aversion)
		s, err := owner.SetACL("/mine", everybody, 0)
		require.NoError(t, err)
		assert.Equal(t, int32(1), s.Aversion)
		data, _, err := stranger.Get("/mine")
		assert.NoError(t, err)
		assert.Equal(t, "x", string(data))
		assert.NoError(t, stranger.Delete("/mine/open", -1))
		owner.stop()
		stranger.stop()
	})
}

// TestDigestIsOfAText: what is no UTF-8 ZooKeeper has read as a text before it makes a digest of it.
func TestDigestIsOfAText(t *testing.T) {
	assert.Equal(t, digestOf("u:\ufffd"), digestOf("u:\xe4"))
	assert.Equal(t, digestOf("\ufffd:p"), digestOf("\xff:p"))
	assert.NotEqual(t, digestOf("u:\u00e4"), digestOf("u:\xe4"))
}

// TestMaskedDigest: to Java's regular expressions a line ends where it does.
func TestMaskedDigest(t *testing.T) {
	for id, want := range map[string]string{
		"ann:secret": "ann:x", "ann:A\nB": "ann:x\nB", "ann:A\u2028B:C": "ann:x\u2028B:x", "ann": "ann", ":": ":x",
	} {
		assert.Equal(t, want, maskDigests([]acl{{permRead, identity{"digest", id}}})[0].id.id, "%q", id)
	}
	assert.Equal(t, "a:b", maskDigests([]acl{{permRead, identity{"other", "a:b"}}})[0].id.id)
}

func TestAuthentication(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		assert.Zero(t, c.want(codeOK, OpAuth, authBody("digest", "me:secret")).zxid, "zxid")
		c.want(codeOK, OpAuth, authBody("digest", "me:secret"))
		c.want(codeOK, OpAuth, authBody("ip", ""))
		d := c.want(codeOK, OpWhoAmI, nil).body
		var who []identity
		for range d.int32() {
			who = append(who, identity{d.string(), d.string()})
		}
		// In the order of a Java set.
		assert.Equal(t, []identity{{"digest", "me"}, {"ip", "127.0.0.1"}}, who)
		c.want(codeAuthFailed, OpAuth, authBody("sasl", "x"))
		c.wantClosed()
		// The session outlives the connection; what was proved does not.
		next := c.again(srv.Member(0))
		assert.Equal(t, int32(1), next.want(codeOK, OpWhoAmI, nil).body.int32(), "identities")
	})
}
