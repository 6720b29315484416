package join

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/rpc"
	"shoal/control/store"
)

// Server is the managers' end.
type Server struct {
	// Store is the manager's own.
	Store *store.Store
	// Propose commits operations and returns when Store holds them.
	Propose func(ctx context.Context, ops []api.Op) error
	// Leading returns nil on the leader, else an rpc.NotLeaderError that says
	// where it is.
	Leading func() error
	// AddVoter makes a manager a voting member of Raft; repeating it is free.
	AddVoter func(ctx context.Context, nodeID, addr string) error
	// Now is the clock.
	Now func() time.Time

	// numbering is held while a node number is taken, so that machines that
	// join here at once do not refuse each other.
	numbering sync.Mutex
}

// Register adds the routes.
func (s *Server) Register(mux *rpc.Mux) {
	mux.Open("POST "+joinPath, s.serveJoin)
	mux.Handle("POST "+renewPath, s.serveRenew, swarm.NodeRoleManager, swarm.NodeRoleWorker)
	mux.Handle("POST "+voterPath, s.serveVoter, swarm.NodeRoleManager)
}

// joinRequest is what a machine brings.
type joinRequest struct {
	Token, CSR, Hostname string
	DataPathAddr         netip.Addr
	Availability         swarm.NodeAvailability
}

// issued is what a node gets: its certificate and the root's, PEM.
type issued struct{ Cert, Root string }

func (s *Server) serveJoin(w http.ResponseWriter, r *http.Request) error {
	var in joinRequest
	if err := rpc.ReadJSON(r, &in); err != nil {
		return err
	}
	if err := s.Leading(); err != nil {
		return err
	}
	out, err := s.join(r.Context(), in)
	if err != nil {
		return err
	}
	return rpc.WriteJSON(w, out)
}

// join admits a machine. Its node id is derived from its key, so that a machine
// that lost the answer and asks again stays one node.
func (s *Server) join(ctx context.Context, in joinRequest) (issued, error) {
	cluster, err := s.cluster()
	if err != nil {
		return issued{}, err
	}
	role, err := ca.RoleOf(cluster.JoinTokens, in.Token)
	if err != nil {
		return issued{}, err
	}
	nodeID, err := ca.NodeIDOf([]byte(in.CSR))
	if err != nil {
		return issued{}, err
	}
	availability, err := checkAvailability(in.Availability)
	if err != nil {
		return issued{}, err
	}
	if err := s.checkDataPath(nodeID, in.DataPathAddr.Unmap()); err != nil {
		return issued{}, err
	}
	node := &api.Node{}
	node.ID = nodeID
	node.Spec.Role, node.Spec.Availability = role, availability
	node.Description.Hostname = in.Hostname
	node.Status.State = swarm.NodeStateUnknown
	if node, err = s.create(ctx, node); err != nil {
		return issued{}, err
	}
	return s.issue(node, in.CSR)
}

// checkDataPath refuses a machine that no other node could exchange traffic of
// tasks with: a tunnel has ends of one address family. One that does not say where
// its end will be is taken.
func (s *Server) checkDataPath(nodeID string, addr netip.Addr) error {
	for _, n := range s.Store.View().Nodes() {
		other := n.DataPathAddr.Unmap()
		if !addr.IsValid() || !other.IsValid() || n.ID == nodeID || addr.Is4() == other.Is4() {
			continue
		}
		return api.Errorf(api.Invalid, "data path address %s is of another family than those of the cluster's nodes (%s has %s): give an address of theirs with --data-path-addr",
			addr, n.Description.Hostname, other)
	}
	return nil
}

func checkAvailability(a swarm.NodeAvailability) (swarm.NodeAvailability, error) {
	switch a {
	case "":
		return swarm.NodeAvailabilityActive, nil
	case swarm.NodeAvailabilityActive, swarm.NodeAvailabilityPause, swarm.NodeAvailabilityDrain:
		return a, nil
	}
	return "", api.Errorf(api.Invalid, "invalid node availability %q", a)
}

// create adds the node with the next number, one that nobody has had while there is
// such a one, or returns the one that is there.
// Number and node are one transaction, which is tried again when somebody else
// changed the cluster object meanwhile.
func (s *Server) create(ctx context.Context, node *api.Node) (*api.Node, error) {
	s.numbering.Lock()
	defer s.numbering.Unlock()
	var err error
	for range conflictTries {
		if known := s.Store.View().Node(node.ID); known != nil {
			return known, nil
		}
		var ops []api.Op
		if ops, err = s.numbered(node); err != nil {
			return nil, err
		}
		err = s.Propose(ctx, ops)
		switch api.KindOf(err) {
		case api.OutOfSequence, api.Conflict:
			continue
		}
		if err != nil {
			return nil, err
		}
		return node, nil
	}
	return nil, api.Errorf(api.Unavailable, "too many machines join at once: %w", err)
}

func (s *Server) numbered(node *api.Node) ([]api.Op, error) {
	cluster, err := s.cluster()
	if err != nil {
		return nil, err
	}
	// The cluster is written in any case: who else takes a number is refused by its version.
	next, numbered := cluster.Copy(), node.Copy()
	if numbered.Number = max(cluster.NextNodeNumber, 1); numbered.Number <= api.NodeNumberMax {
		next.NextNodeNumber = numbered.Number + 1
	} else if numbered.Number, err = freeNumber(s.Store.View()); err != nil {
		return nil, err
	}
	return []api.Op{api.Update(next), api.Create(numbered)}, nil
}

// freeNumber is the lowest number that a removed node had and that no node knows as
// its any more.
func freeNumber(v *store.View) (uint32, error) {
	taken := map[uint32]bool{}
	for _, n := range v.Nodes() {
		taken[n.Number] = true
	}
	for _, r := range v.Retired() {
		taken[r.Number] = true
	}
	for number := uint32(1); number <= api.NodeNumberMax; number++ {
		if !taken[number] {
			return number, nil
		}
	}
	return 0, api.Errorf(api.Unavailable, "all %d node numbers of the cluster are in use, or were a moment ago", api.NodeNumberMax)
}

func (s *Server) cluster() (*api.Cluster, error) {
	if cluster := s.Store.View().Cluster(); cluster != nil {
		return cluster, nil
	}
	return nil, api.Errorf(api.Unavailable, "this manager does not know the cluster's state yet")
}

// issue signs a request for the identity that the store gives the node.
func (s *Server) issue(node *api.Node, csr string) (issued, error) {
	cluster, err := s.cluster()
	if err != nil {
		return issued{}, err
	}
	root, err := ca.ParseRoot(cluster.CACert, cluster.CAKey)
	if err != nil {
		return issued{}, err
	}
	id := ca.Identity{NodeID: node.ID, Role: node.Spec.Role, ClusterID: cluster.ID}
	cert, err := root.Issue([]byte(csr), id, s.Now(), cluster.Spec.CAConfig.NodeCertExpiry)
	if err != nil {
		return issued{}, err
	}
	return issued{Cert: string(cert), Root: string(root.CertPEM())}, nil
}

type renewRequest struct{ CSR string }

// serveRenew gives a node a new certificate with the role that the store says.
func (s *Server) serveRenew(w http.ResponseWriter, r *http.Request) error {
	var in renewRequest
	if err := rpc.ReadJSON(r, &in); err != nil {
		return err
	}
	if err := s.Leading(); err != nil {
		return err
	}
	peer, _ := rpc.PeerFrom(r.Context())
	node := s.Store.View().Node(peer.NodeID)
	if node == nil {
		return api.Errorf(api.Forbidden, "node %s is not part of the cluster any more", peer.NodeID)
	}
	out, err := s.issue(node, in.CSR)
	if err != nil {
		return err
	}
	return rpc.WriteJSON(w, out)
}

type voterRequest struct{ Addr string }

// serveVoter makes the calling manager a voter under the address it gives.
func (s *Server) serveVoter(w http.ResponseWriter, r *http.Request) error {
	var in voterRequest
	if err := rpc.ReadJSON(r, &in); err != nil {
		return err
	}
	if err := s.Leading(); err != nil {
		return err
	}
	peer, _ := rpc.PeerFrom(r.Context())
	node := s.Store.View().Node(peer.NodeID)
	if node == nil || node.Spec.Role != swarm.NodeRoleManager {
		return api.Errorf(api.Forbidden, "node %s is not a manager of the cluster", peer.NodeID)
	}
	if err := checkHostPort(in.Addr); err != nil {
		return err
	}
	if err := s.AddVoter(r.Context(), peer.NodeID, in.Addr); err != nil {
		return err
	}
	return rpc.WriteJSON(w, struct{}{})
}
