//go:build linux

package chaos

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil/realzk"
)

// TestElectionOverTLS elects on a ZooKeeper that takes TLS with certificates
// on both sides, through SessionOptions.Dialer, with keys made here.
func TestElectionOverTLS(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t)
	write := func(name string, blocks ...*pem.Block) string {
		var file bytes.Buffer
		for _, b := range blocks {
			require.NoError(t, pem.Encode(&file, b))
		}
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, file.Bytes(), 0o600))
		return path
	}
	server, client := ca.issue(t, "server"), ca.issue(t, "client")
	const granted = 20 * time.Second // though more is asked for below; a restart of the server is shorter, on slow machines too
	zookeeper := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{
		SecurePort:        true,
		MaxSessionTimeout: granted,
		Config: []string{
			"ssl.keyStore.type=PEM",
			"ssl.keyStore.location=" + write("server.pem", server.blocks(t)...),
			"ssl.trustStore.type=PEM",
			"ssl.trustStore.location=" + write("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw}),
			"ssl.clientAuth=need",
		},
	})
	secure := func(trusts *authority, certificates ...tls.Certificate) zk.Dialer {
		pool := x509.NewCertPool()
		pool.AddCert(trusts.certificate)
		return func(network, address string, timeout time.Duration) (net.Conn, error) {
			return tls.DialWithDialer(&net.Dialer{Timeout: timeout}, network, address,
				&tls.Config{RootCAs: pool, Certificates: certificates, MinVersion: tls.VersionTLS12})
		}
	}
	ours := tls.Certificate{Certificate: [][]byte{client.der}, PrivateKey: client.key}
	session := func() *election.Session {
		s, err := election.Connect(zookeeper.SecureServers(), 2*granted,
			&election.SessionOptions{Dialer: secure(ca, ours), Logger: quietLogger})
		require.NoError(t, err)
		t.Cleanup(func() {
			assert.NoError(t, s.Close())
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, s.AwaitConnected(ctx))
		assert.Equal(t, granted, s.Timeout(), "the session timeout")
		return s
	}

	t.Run("every call", func(t *testing.T) { everyCall(t, session, nil) })

	t.Run("a restart of the server", func(t *testing.T) {
		s := session()
		c := newCandidate(t, s, "restart", nil)
		campaign(t, c)
		id := s.ID()
		zookeeper.Kill(0)
		zookeeper.Restart(0)
		next := newCandidate(t, session(), "restart", nil)
		require.NoError(t, next.Vote(t.Context()))
		await(t, time.Minute, "leader in the session from before the restart", func() string {
			return fmt.Sprintf("session %#x, then %#x; the next one leads: %t", id, s.ID(), next.IsLeader())
		}, c.IsLeader)
		assert.Equal(t, id, s.ID(), "the session")
		assert.False(t, next.IsLeader(), "the next one leads")
	})

	// What must not connect does not.
	for name, dialer := range map[string]zk.Dialer{
		"without TLS":                nil,
		"without a certificate":      secure(ca),
		"trusting another authority": secure(newAuthority(t), ours),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := election.Connect(zookeeper.SecureServers(), 2*time.Second, &election.SessionOptions{Dialer: dialer, Logger: quietLogger})
			require.NoError(t, err)
			defer s.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			assert.Error(t, s.AwaitConnected(ctx), "it connected")
		})
	}
}

// authority signs certificates for the loopback address.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

type issued struct {
	der []byte
	key *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{certificate, key}
}

func (a *authority) issue(t *testing.T, name string) issued {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	require.NoError(t, err)
	return issued{der, key}
}

// blocks are key and certificate, as ZooKeeper reads them from one PEM file.
func (i issued) blocks(t *testing.T) []*pem.Block {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(i.key)
	require.NoError(t, err)
	return []*pem.Block{{Type: "PRIVATE KEY", Bytes: key}, {Type: "CERTIFICATE", Bytes: i.der}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}
