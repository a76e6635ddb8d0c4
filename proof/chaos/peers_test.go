//go:build linux

package chaos

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/debian"
)

// Other libraries, from Debian's packages, in programs of a page each (peers/)
// that write the history that the agent writes.

func peers(t *testing.T) []contestant {
	t.Helper()
	classes, version, err := debian.Curator()
	require.NoError(t, err)
	kazoo, err := debian.Kazoo()
	require.NoError(t, err)
	return []contestant{
		{"Curator " + version + ", LeaderLatch", func(f *fleet, who, servers, election string) *agent {
			return f.startCommand(who, "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", classes, "peers/CuratorPeer.java",
				who, servers, "/curator-"+election, fmt.Sprint(sessionTimeout.Milliseconds()))
		}},
		{"kazoo " + kazoo + ", Election", func(f *fleet, who, servers, election string) *agent {
			return f.startCommand(who, debian.Python, "-B", "peers/kazoo_peer.py",
				who, servers, "/kazoo-"+election, fmt.Sprint(sessionTimeout.Seconds()))
		}},
	}
}
