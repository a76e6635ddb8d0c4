//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// authority makes certificates, and keeps all in a directory.
type authority struct {
	t           *testing.T
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.certificate, a.key = a.make("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// make signs a certificate, by itself for the first one, and writes NAME.pem and NAME.key.
func (a *authority) make(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(a.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	err = errors.Join(
		os.WriteFile(a.path(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(a.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
	)
	require.NoError(a.t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return certificate, key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// overTLS serves what a server serves, to clients that have a certificate, under the name zk.example.
func (a *authority) overTLS(server string) string {
	a.t.Helper()
	a.make("server", &x509.Certificate{DNSNames: []string{"zk.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	pair, err := tls.LoadX509KeyPair(a.path("server.pem"), a.path("server.key"))
	require.NoError(a.t, err)
	clients := x509.NewCertPool()
	clients.AddCert(a.certificate)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	require.NoError(a.t, err)
	a.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			outer, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = outer.Close() }()
				inner, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer func() { _ = inner.Close() }()
				go func() {
					_, _ = io.Copy(inner, outer)
					_ = inner.Close()
				}()
				_, _ = io.Copy(outer, inner)
			}()
		}
	}()
	return listener.Addr().String()
}

// TestTLS: by flags and by the environment, and not without.
func TestTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	servers := a.overTLS(inProcess(t))
	a.make("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	flags := []string{
		"--tls-ca", a.path("ca.pem"), "--tls-cert", a.path("client.pem"), "--tls-key", a.path("client.key"), "--tls-server-name", "zk.example",
	}
	status, _, _ := zkelect(t, servers, append([]string{"list", "--wait", "10s"}, flags...)...)
	assert.Zero(t, status, "flags")
	for name, test := range map[string]struct {
		flags []string
		says  string
	}{
		"without":           {nil, "it has not answered the handshake"},
		"no certificate":    {[]string{"--tls-ca", a.path("ca.pem"), "--tls-server-name", "zk.example"}, "certificate"},
		"another authority": {[]string{"--tls-cert", a.path("client.pem"), "--tls-key", a.path("client.key"), "--tls-server-name", "zk.example"}, "unknown authority"},
		"another name":      {flags[:6], "cannot validate certificate for 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// That long for a slow machine: what it says is the last answer's reason.
			status, _, stderr := zkelect(t, servers, append([]string{"list", "--wait", "8s"}, test.flags...)...)
			assert.Equal(t, exitFailed, status)
			assert.Contains(t, stderr, test.says)
		})
	}
	p := startEnvironment(t, servers, []string{
		"ZK_TLS_CA=" + a.path("ca.pem"), "ZK_TLS_CERT=" + a.path("client.pem"), "ZK_TLS_KEY=" + a.path("client.key"), "ZK_TLS_SERVER_NAME=zk.example",
	}, "run", "--election", "e", "--", "echo", "it runs")
	assert.Zero(t, p.wait(), "environment")
	assert.Equal(t, "it runs\n", p.stdout.String(), "environment")
}

// TestTLSAddresses: of a name with several addresses each is tried, whatever comes of another that takes connections, and
// whether its handshake succeeds or not.
func TestTLSAddresses(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.make("server", &x509.Certificate{DNSNames: []string{"zk.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	pair, err := tls.LoadX509KeyPair(a.path("server.pem"), a.path("server.key"))
	require.NoError(t, err)
	serving := func(address string, serve func(net.Conn)) (port string) {
		listener, err := net.Listen("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer func() { _ = c.Close() }()
					serve(c)
				}()
			}
		}()
		_, port, err = net.SplitHostPort(listener.Addr().String())
		require.NoError(t, err)
		return port
	}
	good := func(c net.Conn) {
		secure := tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}})
		_, _ = io.Copy(io.Discard, secure)
	}
	port := serving("127.0.0.1:0", func(net.Conn) {}) // closes at once
	for _, other := range []string{"127.0.0.2:", "127.0.0.3:"} {
		serving(other+port, good)
	}
	files := &tlsFiles{ca: a.path("ca.pem"), lookup: func(_ context.Context, host string) ([]string, error) {
		assert.Equal(t, "zk.example", host)
		return []string{"127.0.0.3", "127.0.0.1", "127.0.0.2"}, nil
	}}
	reached := map[string]int{}
	for range 6 {
		c, err := files.dial("tcp", net.JoinHostPort("zk.example", port), time.Minute)
		require.NoError(t, err)
		assert.IsType(t, (*tls.Conn)(nil), c, "what the Session takes for encrypted")
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		require.NoError(t, err)
		reached[host]++
		require.NoError(t, c.Close())
	}
	assert.Equal(t, map[string]int{"127.0.0.2": 4, "127.0.0.3": 2}, reached)
}

// TestTLSGuarded: the guard of the session knows how to connect, too.
func TestTLSGuarded(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	servers := a.overTLS(inProcess(t))
	a.make("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	j := newJournal(t)
	run := func(name string) *process {
		return start(t, servers, append([]string{
			"run", "--election", electionOf(t), "--timeout", successionTimeout.String(), "--tls-ca", a.path("ca.pem"),
			"--tls-cert", a.path("client.pem"), "--tls-key", a.path("client.key"), "--tls-server-name", "zk.example", "--",
		}, j.beats(name)...)...)
	}
	leader := run("A")
	j.has(t, "A\n")
	next := run("B")
	next.says(&next.stderr, "waiting")
	leader.signal(syscall.SIGKILL)
	leadsSoon(t, j)
	assert.NotContains(t, leader.stderr.String(), "guard", "the guard complains")
}
