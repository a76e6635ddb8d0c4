package guard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// certificate makes one that signs itself, for a name, and returns its files.
func certificate(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return certFile, keyFile
}

// TestTLS: the server is in front of one that speaks in the clear, wants the client's certificate, and has a name that is
// not its address.
func TestTLS(t *testing.T) {
	t.Parallel()
	srv := newServer(t, &testutil.ServerOptions{MaxSessionTimeout: time.Minute})
	serverCert, serverKey := certificate(t, "zk1.example")
	clientCert, clientKey := certificate(t, "service.example")
	pair, err := tls.LoadX509KeyPair(serverCert, serverKey)
	require.NoError(t, err)
	clients := x509.NewCertPool()
	text, err := os.ReadFile(clientCert)
	require.NoError(t, err)
	require.True(t, clients.AppendCertsFromPEM(text))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12,
	})
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			secure, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = secure.Close() }()
				plain, err := net.Dial("tcp", srv.Addr())
				if err != nil {
					return
				}
				defer func() { _ = plain.Close() }()
				go func() { _, _ = io.Copy(plain, secure) }()
				_, _ = io.Copy(secure, plain)
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close(); all.Wait() })

	r := abandonedAt(t, srv.Addr(), time.Minute, net.DialTimeout) // it is to outlast what comes to nothing
	r.Timeout, r.Tick = time.Second, 100*time.Millisecond
	r.Servers = []server{{Name: "zk1.example:2281", Addresses: []string{listener.Addr().String()}}}
	for name, files := range map[string]*TLS{
		"in the clear":        nil,
		"another authority":   {CAFile: clientCert, CertFile: clientCert, KeyFile: clientKey},
		"another name":        {CAFile: serverCert, CertFile: clientCert, KeyFile: clientKey, ServerName: "zk2.example"},
		"without certificate": {CAFile: serverCert},
	} {
		r.TLS = files
		require.ErrorIs(t, closeSession(t.Context(), r, nil), errTooLate, name)
	}
	require.Len(t, srv.Sessions(), 1)
	r.TLS, r.Timeout = &TLS{CAFile: serverCert, CertFile: clientCert, KeyFile: clientKey}, time.Minute
	require.NoError(t, closeSession(t.Context(), r, nil))
	require.Empty(t, srv.Sessions())

	_, err = (&TLS{CAFile: serverKey}).dialer()
	require.ErrorContains(t, err, "no certificate")
	_, err = (&TLS{CertFile: clientCert}).dialer()
	require.Error(t, err)
}

// TestNothingInTheClear: a guard that is not told how to connect by TLS sends nothing to a server whose session was on TLS.
func TestNothingInTheClear(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	received := make(chan []byte, 1)
	go func() {
		defer close(received)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		first := make([]byte, 512)
		n, _ := conn.Read(first)
		received <- first[:n]
	}()
	r := newRecord(&Session{
		Servers: []string{listener.Addr().String()}, ID: 1, Password: make([]byte, 16), Timeout: time.Minute, Tick: 100 * time.Millisecond,
		Auth: []Auth{{Scheme: "digest", Credentials: []byte("user:secret")}}, Encrypted: true,
	}, nil, literal)
	require.ErrorIs(t, closeSession(t.Context(), r, nil), errClear)
	r.Encrypted = false
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- closeSession(ctx, r, nil) }()
	assert.Contains(t, string(<-received), "secret", "the control: this is what would be read")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}
