package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zkelection/election/guard"
)

// tlsFiles is how to connect to servers that want TLS.
type tlsFiles struct {
	on                        bool
	ca, cert, key, serverName string

	lookup func(ctx context.Context, host string) ([]string, error) // nil means the system's
	mu     sync.Mutex
	dialed map[string]int // by host: how many times
}

func (t *tlsFiles) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&t.on, "tls", false, "connect by TLS; each of the next four says so, too")
	f.StringVar(&t.ca, "tls-ca", "", "the `FILE` of the authorities to believe, in PEM, instead of the system's (default $ZK_TLS_CA)")
	f.StringVar(&t.cert, "tls-cert", "", "the `FILE` of this client's certificate, in PEM (default $ZK_TLS_CERT)")
	f.StringVar(&t.key, "tls-key", "", "the `FILE` of the certificate's key, in PEM (default $ZK_TLS_KEY)")
	f.StringVar(&t.serverName, "tls-server-name", "", "the `NAME` that the servers' certificates have, instead of the host in each one's address (default $ZK_TLS_SERVER_NAME)")
}

// check takes what the environment says, and finds what cannot be right. The server of --dev has no TLS.
func (t *tlsFiles) check(getenv func(string) string, dev bool) error {
	if dev {
		if t.wanted() {
			return usageError{errors.New("--dev has no TLS")}
		}
		return nil
	}
	for variable, value := range map[string]*string{
		"ZK_TLS_CA": &t.ca, "ZK_TLS_CERT": &t.cert, "ZK_TLS_KEY": &t.key, "ZK_TLS_SERVER_NAME": &t.serverName,
	} {
		if *value == "" {
			*value = getenv(variable)
		}
	}
	if (t.cert == "") != (t.key == "") {
		return usageError{errors.New("--tls-cert and --tls-key belong together")}
	}
	if t.wanted() {
		if _, err := t.config(); err != nil {
			return usageError{err}
		}
	}
	return nil
}

func (t *tlsFiles) wanted() bool {
	return t.on || t.ca != "" || t.cert != "" || t.key != "" || t.serverName != ""
}

// config reads the files, so that a connection is made with what they hold by then.
func (t *tlsFiles) config() (*tls.Config, error) {
	config := &tls.Config{ServerName: t.serverName, MinVersion: tls.VersionTLS12}
	if t.ca != "" {
		text, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--tls-ca: there is no certificate in %s", t.ca)
		}
	}
	if t.cert != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// dial is a zk.Dialer. It goes round the addresses of a name, as the default dialer of a Session does: one that begins each
// time with the first that takes a connection would never come to another, though nothing good came of that.
func (t *tlsFiles) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	config, err := t.config()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if config.ServerName == "" {
		config.ServerName = host
	}
	addresses, first, err := t.addresses(ctx, host, address)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := range addresses {
		// Each gets its share of the time that is left, to connect. A handshake takes some round trips more, and has all of it:
		// behind one that is never answered the next dial begins with the next address.
		end, _ := ctx.Deadline()
		share, cancel := context.WithTimeout(ctx, time.Until(end)/time.Duration(len(addresses)-i))
		c, err := (&net.Dialer{}).DialContext(share, network, net.JoinHostPort(addresses[(first+i)%len(addresses)], port))
		cancel()
		if err == nil {
			secure := tls.Client(c, config)
			if err = secure.HandshakeContext(ctx); err == nil {
				return secure, nil
			}
			_ = c.Close()
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// addresses returns those of a host, and with which to begin: another one each time that a server is dialed.
func (t *tlsFiles) addresses(ctx context.Context, host, server string) (addresses []string, first int, err error) {
	lookup := t.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	if addresses, err = lookup(ctx, host); err != nil {
		return nil, 0, err
	}
	slices.Sort(addresses) // a resolver may turn them round by itself
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dialed == nil {
		t.dialed = make(map[string]int)
	}
	first = t.dialed[server]
	t.dialed[server]++
	return slices.Compact(addresses), first, nil
}

// forGuard is the same for the guard of the session; nil for no TLS.
func (t *tlsFiles) forGuard() *guard.TLS {
	if !t.wanted() {
		return nil
	}
	return &guard.TLS{CAFile: t.ca, CertFile: t.cert, KeyFile: t.key, ServerName: t.serverName}
}
