package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"time"
)

const (
	// rootCommonName and rootLifetime are those of Swarm's own root.
	rootCommonName = "swarm-ca"
	rootLifetime   = 20 * 365 * 24 * time.Hour

	// DefaultLifetime is how long a node certificate is valid unless the
	// cluster says otherwise.
	DefaultLifetime = 90 * 24 * time.Hour
	// MinLifetime is the shortest lifetime that a node certificate gets.
	MinLifetime = time.Hour
	// Backdate is how far before its issue a certificate's validity starts, so
	// that a node whose clock is behind accepts it.
	Backdate = time.Hour

	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
	pemCSR  = "CERTIFICATE REQUEST"
)

// Root is the cluster's certificate authority: certificate and key.
type Root struct {
	// Cert is the self-signed certificate.
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewRoot makes a root: ECDSA P-256, valid for twenty years from one hour before now.
func NewRoot(now time.Time) (*Root, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: rootCommonName},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(rootLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1, // leaves room for one cross-signed authority
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse new root certificate: %w", err)
	}
	return &Root{Cert: cert, key: key}, nil
}

// ParseRoot reads a root from the PEM texts that CertPEM and KeyPEM wrote.
func ParseRoot(certPEM, keyPEM []byte) (*Root, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	if len(certs) != 1 || !certs[0].IsCA {
		return nil, errors.New("root certificate: want exactly one authority")
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, errors.New("root key does not belong to the root certificate")
	}
	return &Root{Cert: certs[0], key: key}, nil
}

// CertPEM returns the certificate, which is public.
func (r *Root) CertPEM() []byte { return encodeCert(r.Cert.Raw) }

// KeyPEM returns the key in PKCS#8: a secret of the managers.
func (r *Root) KeyPEM() ([]byte, error) { return encodeKey(r.key) }

// String names the root without its key.
func (r *Root) String() string { return "root " + r.Cert.Subject.CommonName + " [key redacted]" }

// GoString is String, so that %#v does not print the key.
func (r *Root) GoString() string { return r.String() }

// LogValue is String.
func (r *Root) LogValue() slog.Value { return slog.StringValue(r.String()) }

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make P-256 key: %w", err)
	}
	return key, nil
}

// serial returns 127 random bits: RFC 5280 section 4.1.2.2 wants a positive
// number of at most 20 octets.
func serial() *big.Int {
	var raw [16]byte
	rand.Read(raw[:]) // never fails: it ends the process instead
	raw[0] &= 0x7f
	raw[15] |= 1
	return new(big.Int).SetBytes(raw[:])
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// parseCerts reads one or more certificates and refuses anything else in the text.
func parseCerts(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCert {
			return nil, fmt.Errorf("unexpected PEM block %q", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM text")
	}
	return certs, nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemKey {
		return nil, errors.New("no private key in PEM text")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("private key is not ECDSA P-256")
	}
	return key, nil
}
