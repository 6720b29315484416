package ca

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/moby/moby/api/types/swarm"
)

// Credentials are what a node proves itself with and what it trusts: its key, its
// certificate and the cluster's root. They are immutable.
type Credentials struct {
	// Identity is what the certificate says.
	Identity Identity
	// Leaf is the node's certificate, Root the cluster's.
	Leaf, Root *x509.Certificate
	key        *ecdsa.PrivateKey
	pool       *x509.CertPool
}

// NewCredentials joins key, certificate and root, all PEM, and checks that they
// belong together. An expired certificate is accepted here: only a connection
// made with it is refused.
func NewCredentials(keyPEM, certPEM, rootPEM []byte) (*Credentials, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	leaf, err := parseOne(certPEM)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	root, err := parseOne(rootPEM)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	return assemble(key, leaf, root)
}

func assemble(key *ecdsa.PrivateKey, leaf, root *x509.Certificate) (*Credentials, error) {
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("node key does not belong to the node certificate")
	}
	id, err := IdentityOf(leaf)
	if err != nil {
		return nil, err
	}
	c := &Credentials{Identity: id, Leaf: leaf, Root: root, key: key, pool: x509.NewCertPool()}
	c.pool.AddCert(root)
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: c.pool, CurrentTime: leaf.NotBefore, KeyUsages: usages}); err != nil {
		return nil, fmt.Errorf("certificate of node %s against the cluster's root: %w", id.NodeID, err)
	}
	return c, nil
}

func parseOne(text []byte) (*x509.Certificate, error) {
	certs, err := parseCerts(text)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("want one certificate, got %d", len(certs))
	}
	return certs[0], nil
}

// String names the identity without the key.
func (c *Credentials) String() string {
	return fmt.Sprintf("%s %s [key redacted]", c.Identity.Role, c.Identity.NodeID)
}

// GoString is String.
func (c *Credentials) GoString() string { return c.String() }

// LogValue is String.
func (c *Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// RootPEM returns the cluster's root certificate.
func (c *Credentials) RootPEM() []byte { return encodeCert(c.Root.Raw) }

// TLSInfo returns what a node's description says of its certificate.
func (c *Credentials) TLSInfo() swarm.TLSInfo {
	return swarm.TLSInfo{
		TrustRoot:           string(c.RootPEM()),
		CertIssuerSubject:   slices.Clone(c.Root.RawSubject),
		CertIssuerPublicKey: slices.Clone(c.Root.RawSubjectPublicKeyInfo),
	}
}

// certificate returns what TLS shows: the root goes along so that a joining node
// can compare it with the digest in its token.
func (c *Credentials) certificate() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{c.Leaf.Raw, c.Root.Raw}, PrivateKey: c.key, Leaf: c.Leaf}
}

// encode writes key, certificate and root as one PEM text.
func (c *Credentials) encode() ([]byte, error) {
	text, err := encodeKey(c.key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(text, encodeCert(c.Leaf.Raw), c.RootPEM()), nil
}

// decode reads what encode wrote.
func decode(text []byte) (*Credentials, error) {
	key, err := parseKey(text)
	if err != nil {
		return nil, err
	}
	_, rest := pem.Decode(text)
	certs, err := parseCerts(rest)
	if err != nil {
		return nil, err
	}
	if len(certs) != 2 {
		return nil, fmt.Errorf("want the node's certificate and the root's, got %d certificates", len(certs))
	}
	return assemble(key, certs[0], certs[1])
}

// Source holds a node's current credentials. Connections made after Swap use the
// new ones; those that are open stay.
type Source struct{ current atomic.Pointer[Credentials] }

// NewSource returns a source of c.
func NewSource(c *Credentials) *Source {
	s := &Source{}
	s.Swap(c)
	return s
}

// Swap replaces the credentials.
func (s *Source) Swap(c *Credentials) { s.current.Store(c) }

// Current returns the credentials in use.
func (s *Source) Current() *Credentials { return s.current.Load() }
