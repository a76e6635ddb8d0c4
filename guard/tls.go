package guard

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// absolute makes the paths independent of the directory, for a guard that has another one.
func (t *TLS) absolute() (*TLS, error) {
	if t == nil {
		return nil, nil
	}
	a := *t
	for _, path := range []*string{&a.CAFile, &a.CertFile, &a.KeyFile} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	return &a, nil
}

// readFile refuses what is no file: a pipe would wait for somebody to write to it.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	return os.ReadFile(path)
}

// check reports what is wrong with the files.
func (t *TLS) check() error {
	_, err := t.dialer()
	return err
}

// dialer returns what connects to an address of a server with that name.
func (t *TLS) dialer() (func(name, address string, timeout time.Duration) (net.Conn, error), error) {
	if t == nil {
		return func(_, address string, timeout time.Duration) (net.Conn, error) {
			return net.DialTimeout("tcp", address, timeout)
		}, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		authorities, err := readFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("no certificate in %s", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		cert, err := readFile(t.CertFile)
		if err != nil {
			return nil, err
		}
		key, err := readFile(t.KeyFile)
		if err != nil {
			return nil, err
		}
		certificate, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return func(name, address string, timeout time.Duration) (net.Conn, error) {
		own := config.Clone()
		if own.ServerName == "" {
			host, _, err := net.SplitHostPort(name)
			if err != nil {
				return nil, err
			}
			own.ServerName = host
		}
		return tls.DialWithDialer(&net.Dialer{Timeout: timeout}, "tcp", address, own)
	}, nil
}
