//go:build linux

package chaos

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// network gives ZooKeeper's nodes hosts of their own: network namespaces on a
// bridge, each with an address, and the agents an address each on the bridge,
// so that any of them can be cut off from any other. It takes root.
type network struct {
	tb         testing.TB
	prefix     string // of all names; holds the process's number
	subnet     string // the first three numbers
	namespaces []string
	hosts      []string
}

// newNetwork returns nil when this process may not make one. Everything is
// loopback then, and nothing can be cut off.
func newNetwork(tb testing.TB, nodes int) *network {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Log("not root: everything on loopback, no cuts")
		return nil
	}
	if _, err := exec.LookPath("ip"); err != nil {
		tb.Log("no iproute2: everything on loopback, no cuts")
		return nil
	}
	removeLeftovers(tb)
	n := &network{tb: tb, prefix: fmt.Sprintf("zkc%d", os.Getpid()), subnet: freeSubnet(tb)}
	if err := ip("link", "add", n.bridge(), "type", "bridge"); err != nil {
		tb.Logf("no network of our own, everything on loopback, no cuts: %v", err)
		return nil
	}
	tb.Cleanup(n.remove)
	n.must("addr", "add", n.subnet+".254/24", "dev", n.bridge())
	n.must("link", "set", n.bridge(), "up")
	for i := range nodes {
		namespace := fmt.Sprintf("%sn%d", n.prefix, i)
		outer, inner := fmt.Sprintf("%sv%d", n.prefix, i), fmt.Sprintf("%sw%d", n.prefix, i)
		host := fmt.Sprintf("%s.%d", n.subnet, i+1)
		n.must("netns", "add", namespace)
		n.namespaces = append(n.namespaces, namespace)
		n.hosts = append(n.hosts, host)
		n.must("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", namespace)
		n.must("link", "set", outer, "master", n.bridge())
		n.must("link", "set", outer, "up")
		n.must("-n", namespace, "addr", "add", host+"/24", "dev", inner)
		n.must("-n", namespace, "link", "set", inner, "up")
		n.must("-n", namespace, "link", "set", "lo", "up")
	}
	return n
}

func (n *network) bridge() string { return n.prefix + "b" }

// address gives agent i an address.
func (n *network) address(i int) string {
	address := fmt.Sprintf("%s.%d", n.subnet, 100+i)
	n.must("addr", "replace", address+"/24", "dev", n.bridge())
	return address
}

// cutNode keeps node i from answering its peers; its clients still reach it.
func (n *network) cutNode(i int) (heal func()) {
	return n.blackhole([]string{n.namespaces[i]}, without(n.hosts, i))
}

// cutClient keeps all nodes from answering a client. What the client sends
// arrives: the harder half of a cut, since its pings still keep its session.
func (n *network) cutClient(address string) (heal func()) {
	return n.blackhole(n.namespaces, []string{address})
}

func (n *network) blackhole(namespaces, addresses []string) (heal func()) {
	n.tb.Helper()
	each := func(verb string) {
		for _, namespace := range namespaces {
			for _, address := range addresses {
				n.must("-n", namespace, "route", verb, "blackhole", address+"/32")
			}
		}
	}
	each("add")
	return func() { each("del") }
}

func without(all []string, i int) []string {
	var others []string
	for j, s := range all {
		if j != i {
			others = append(others, s)
		}
	}
	return others
}

func (n *network) must(args ...string) {
	n.tb.Helper()
	require.NoError(n.tb, ip(args...))
}

// remove takes everything down; the devices go with their namespaces.
func (n *network) remove() {
	for _, namespace := range n.namespaces {
		assert.NoError(n.tb, ip("netns", "del", namespace))
	}
	assert.NoError(n.tb, ip("link", "del", n.bridge()))
}

func ip(args ...string) error {
	output, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}

// freeSubnet looks for three numbers that no device here has.
func freeSubnet(tb testing.TB) string {
	addresses, err := net.InterfaceAddrs()
	require.NoError(tb, err)
	for i := range 250 {
		subnet := fmt.Sprintf("10.77.%d", (os.Getpid()+i)%250+1)
		taken := false
		for _, a := range addresses {
			taken = taken || strings.HasPrefix(a.String(), subnet+".")
		}
		if !taken {
			return subnet
		}
	}
	tb.Fatal("no free subnet below 10.77")
	return ""
}

// removeLeftovers takes down what a killed test has left: the names tell which
// process made them.
func removeLeftovers(tb testing.TB) {
	owner := func(name string) (dead bool) {
		rest, ours := strings.CutPrefix(name, "zkc")
		end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if !ours || end <= 0 {
			return false
		}
		pid, err := strconv.Atoi(rest[:end])
		return err == nil && syscall.Kill(pid, 0) == syscall.ESRCH
	}
	namespaces, _ := os.ReadDir("/run/netns")
	for _, entry := range namespaces {
		if owner(entry.Name()) {
			tb.Logf("removing leftover namespace %s: %v", entry.Name(), ip("netns", "del", entry.Name()))
		}
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if strings.HasSuffix(i.Name, "b") && owner(i.Name) {
			tb.Logf("removing leftover bridge %s: %v", i.Name, ip("link", "del", i.Name))
		}
	}
}
