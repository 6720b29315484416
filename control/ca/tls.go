package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/swarm"
)

// Want says which peer a connection may end at. Its zero value is any node of the cluster.
type Want struct {
	// Role is the role the peer must have, "" for any.
	Role swarm.NodeRole
	// NodeID is the node the peer must be, "" for any.
	NodeID string
}

func (w Want) check(id Identity) error {
	if w.Role != "" && id.Role != w.Role {
		return fmt.Errorf("peer %s is a %s, want a %s", id.NodeID, id.Role, w.Role)
	}
	if w.NodeID != "" && id.NodeID != w.NodeID {
		return fmt.Errorf("peer is node %s, want node %s", id.NodeID, w.NodeID)
	}
	return nil
}

// ServerConfig is for the control listener: TLS 1.3, a client certificate is
// verified when one is shown and not required, since a joining node has none yet.
// Who may do what is decided by route; see PeerOf.
func ServerConfig(src *Source, protocols ...string) *tls.Config {
	return serverConfig(src, tls.VerifyClientCertIfGiven, protocols)
}

// MutualServerConfig is for listeners that only nodes of the cluster, of either
// role, may reach: the client must show a certificate of the same cluster.
func MutualServerConfig(src *Source, protocols ...string) *tls.Config {
	return serverConfig(src, tls.RequireAndVerifyClientCert, protocols)
}

// serverConfig takes the credentials anew for each handshake, which is what makes
// certificate and root swappable. Sessions are not resumed: a resumed one would
// outlive the certificate it was made with.
func serverConfig(src *Source, auth tls.ClientAuthType, protocols []string) *tls.Config {
	forClient := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := src.Current()
		return &tls.Config{
			MinVersion:             tls.VersionTLS13,
			NextProtos:             protocols,
			Certificates:           []tls.Certificate{*c.certificate()},
			ClientAuth:             auth,
			ClientCAs:              c.pool,
			SessionTicketsDisabled: true,
			VerifyConnection:       c.verifyClient,
		}, nil
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protocols,
		SessionTicketsDisabled: true,
		GetConfigForClient:     forClient,
		// Never used, since GetConfigForClient answers first; listeners
		// refuse a configuration without any certificate.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return src.Current().certificate(), nil
		},
	}
}

// verifyClient checks the subject of a client whose chain crypto/tls has verified.
func (c *Credentials) verifyClient(state tls.ConnectionState) error {
	if len(state.VerifiedChains) == 0 {
		return nil // no certificate shown, and allowed not to
	}
	id, err := IdentityOf(state.VerifiedChains[0][0])
	if err != nil {
		return err
	}
	return c.sameCluster(id)
}

func (c *Credentials) sameCluster(id Identity) error {
	if id.ClusterID != c.Identity.ClusterID {
		return fmt.Errorf("node %s is of cluster %s, not of %s", id.NodeID, id.ClusterID, c.Identity.ClusterID)
	}
	return nil
}

// ClientConfig is for connections to a node of the cluster: it shows the own
// certificate, and accepts only a peer that the cluster's root vouches for and
// that is who want says. Names and addresses of hosts play no part.
func ClientConfig(src *Source, want Want, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		// Node certificates name nodes, not hosts. VerifyConnection runs on
		// every handshake and checks the chain in place of the host's name.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return src.Current().verifyServer(state, want)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return src.Current().certificate(), nil
		},
	}
}

// MutualClientConfig is the other end of MutualServerConfig: any node of the cluster.
func MutualClientConfig(src *Source, protocols ...string) *tls.Config {
	return ClientConfig(src, Want{}, protocols...)
}

func (c *Credentials) verifyServer(state tls.ConnectionState, want Want) error {
	id, err := verifyChain(state.PeerCertificates, c.pool)
	if err != nil {
		return err
	}
	if err := c.sameCluster(id); err != nil {
		return err
	}
	return want.check(id)
}

// verifyChain checks what a server showed against the trusted roots.
func verifyChain(shown []*x509.Certificate, roots *x509.CertPool) (Identity, error) {
	if len(shown) == 0 {
		return Identity{}, errors.New("peer showed no certificate")
	}
	between := x509.NewCertPool()
	for _, cert := range shown[1:] {
		between.AddCert(cert)
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if _, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: usages}); err != nil {
		return Identity{}, fmt.Errorf("certificate of peer %q: %w", shown[0].Subject.CommonName, err)
	}
	return IdentityOf(shown[0])
}

// ErrPin is the refusal of a cluster whose root is not the one that the join token
// was made for.
var ErrPin = errors.New("the remote manager's root certificate is not the one that the join token names")

// JoinConfig is for a node that has nothing but a token: the peer must be a
// manager whose chain ends at the root that the token pins.
func JoinConfig(token Token, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		// The token's digest stands in for a list of trusted roots.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyPinned(state.PeerCertificates, token)
		},
	}
}

func verifyPinned(shown []*x509.Certificate, token Token) error {
	roots := x509.NewCertPool()
	pinned := false
	for _, cert := range shown {
		if cert.IsCA && token.Pins(cert) {
			roots.AddCert(cert)
			pinned = true
		}
	}
	if !pinned {
		return ErrPin
	}
	id, err := verifyChain(shown, roots)
	if err != nil {
		return err
	}
	return Want{Role: swarm.NodeRoleManager}.check(id)
}
