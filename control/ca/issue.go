package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"

	"shoal/control/api"
)

// NewRequest makes a key and a certificate signing request for it. The request
// carries nothing but the public key: who the node is, is the authority's decision.
func NewRequest() (csrPEM, keyPEM []byte, err error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	if keyPEM, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCSR, Bytes: der}), keyPEM, nil
}

// Issue signs the public key of a request for the identity that the caller
// decided on, valid from one hour before now for lifetime after it (raised to
// MinLifetime, 0 means DefaultLifetime, cut at the root's own end). Subject and
// extensions of the request are ignored. A request that is malformed, unproven
// or not P-256 is an api.Invalid error.
func (r *Root) Issue(csrPEM []byte, id Identity, now time.Time, lifetime time.Duration) ([]byte, error) {
	key, err := requestedKey(csrPEM)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "certificate request for node %s: %w", id.NodeID, err)
	}
	ou, err := unit(id.Role)
	if err != nil {
		return nil, err
	}
	if id.NodeID == "" || id.ClusterID == "" {
		return nil, fmt.Errorf("issue certificate: node %q of cluster %q is not an identity", id.NodeID, id.ClusterID)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: id.NodeID, OrganizationalUnit: []string{ou}, Organization: []string{id.ClusterID}},
		NotBefore:             r.start(now),
		NotAfter:              r.end(now, lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, r.Cert, key, r.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of node %s: %w", id.NodeID, err)
	}
	return encodeCert(der), nil
}

// start returns from when a certificate issued now is valid: never before the
// root is, also when the clock of this manager is behind that of the founder.
func (r *Root) start(now time.Time) time.Time {
	start := now.Add(-Backdate)
	if start.Before(r.Cert.NotBefore) {
		return r.Cert.NotBefore
	}
	return start
}

// end returns when a certificate issued now runs out.
func (r *Root) end(now time.Time, lifetime time.Duration) time.Time {
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	end := now.Add(max(lifetime, MinLifetime))
	if end.After(r.Cert.NotAfter) {
		return r.Cert.NotAfter
	}
	return end
}

// NodeIDOf derives the id of a new node from the public key of its request: 128
// bits of the key's SHA-256, written as api.NewID writes ids.
func NodeIDOf(csrPEM []byte) (string, error) {
	key, err := requestedKey(csrPEM)
	if err != nil {
		return "", api.Errorf(api.Invalid, "certificate request: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", api.Errorf(api.Invalid, "certificate request: %w", err)
	}
	sum := sha256.Sum256(der)
	return digits(sum[:16], secretLength), nil
}

func requestedKey(csrPEM []byte) (*ecdsa.PublicKey, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != pemCSR {
		return nil, fmt.Errorf("no %s in PEM text", pemCSR)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("public key is not ECDSA P-256")
	}
	return key, nil
}

// RenewAt returns when a certificate should be renewed: between 50 and 80 percent
// of its lifetime, where fraction, from 0 to 1 and random at the caller, decides.
// The back-dated hour does not count as lifetime.
func RenewAt(cert *x509.Certificate, fraction float64) time.Time {
	start := cert.NotBefore.Add(Backdate)
	lifetime := cert.NotAfter.Sub(start)
	fraction = min(max(fraction, 0), 1)
	return start.Add(time.Duration(float64(lifetime) * (0.5 + 0.3*fraction)))
}
