package ca

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/moby/moby/api/types/swarm"
)

// The organisational units that say a node's role, as Swarm's certificates have them.
const (
	unitManager = "swarm-manager"
	unitWorker  = "swarm-worker"
)

// Identity is what a node's certificate says of it.
type Identity struct {
	// NodeID is the certificate's common name.
	NodeID string
	// Role is read from the organisational unit.
	Role swarm.NodeRole
	// ClusterID is the certificate's organisation.
	ClusterID string
}

// IdentityOf reads the identity out of a certificate. The caller must have
// verified the certificate's chain; an error means that the subject is not that
// of a node.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	subject := cert.Subject
	if subject.CommonName == "" || len(subject.OrganizationalUnit) != 1 || len(subject.Organization) != 1 || subject.Organization[0] == "" {
		return Identity{}, fmt.Errorf("certificate subject %q is not that of a node", subject)
	}
	id := Identity{NodeID: subject.CommonName, ClusterID: subject.Organization[0]}
	switch subject.OrganizationalUnit[0] {
	case unitManager:
		id.Role = swarm.NodeRoleManager
	case unitWorker:
		id.Role = swarm.NodeRoleWorker
	default:
		return Identity{}, fmt.Errorf("certificate of node %s has unknown role %q", id.NodeID, subject.OrganizationalUnit[0])
	}
	return id, nil
}

// PeerOf returns the identity of the client of a connection that was accepted
// with one of this package's server configurations; false when the client showed
// no certificate.
func PeerOf(state *tls.ConnectionState) (Identity, bool) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return Identity{}, false
	}
	id, err := IdentityOf(state.VerifiedChains[0][0])
	return id, err == nil
}

// unit returns the organisational unit of a role.
func unit(role swarm.NodeRole) (string, error) {
	switch role {
	case swarm.NodeRoleManager:
		return unitManager, nil
	case swarm.NodeRoleWorker:
		return unitWorker, nil
	}
	return "", fmt.Errorf("no certificate unit for role %q", role)
}
