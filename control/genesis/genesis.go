// Package genesis makes the first state of a cluster: the cluster object with
// its defaults, the first node and the ingress network. It is pure: keys, ids
// and time are handed in.
package genesis

import (
	"net/netip"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// Defaults that a swarm init without flags leaves open.
const (
	DefaultSubnetSize    = 24   // prefix length of a network's subnet
	DefaultDataPathPort  = 4789 // UDP, the VXLAN port of RFC 7348
	DefaultTaskHistory   = 5    // finished tasks kept per slot
	DefaultHeartbeat     = time.Second
	DefaultCertExpiry    = 90 * 24 * time.Hour
	subnetSize6          = 64    // of an IPv6 subnet, whatever SubnetSize says
	defaultSnapshotEvery = 10000 // Raft entries
	defaultSlowFollowers = 500   // Raft entries
)

// The range a data path port may be in.
const (
	minDataPathPort = 1024
	maxDataPathPort = 49151
)

// DefaultAddrPool is what subnets are cut from.
var DefaultAddrPool = netip.MustParsePrefix("10.0.0.0/8")

// Founder is what the first node brings.
type Founder struct {
	ClusterID, NodeID, IngressID string
	RootCertPEM, RootKeyPEM      []byte
	Tokens                       swarm.JoinTokens
	TLSInfo                      swarm.TLSInfo
	GossipKey                    []byte
	Report                       api.NodeReport
}

// State returns the operations that found a cluster, or an api.Invalid error
// for a request that cannot be met.
func State(req swarm.InitRequest, f Founder) ([]api.Op, error) {
	if err := validate(&req); err != nil {
		return nil, err
	}
	dataPath, err := netip.ParseAddr(f.Report.DataPathAddr)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "data path address %q: %w", f.Report.DataPathAddr, err)
	}
	return []api.Op{
		api.Create(cluster(req, f)),
		api.Create(node(req, f, dataPath)),
		api.Create(Ingress(f.IngressID)),
	}, nil
}

func validate(req *swarm.InitRequest) error {
	if req.Spec.Name == "" {
		req.Spec.Name = "default"
	}
	if req.Spec.Name != "default" {
		return api.Errorf(api.Invalid, "swarm spec must be named \"default\"")
	}
	if req.SubnetSize == 0 {
		req.SubnetSize = DefaultSubnetSize
	}
	if req.DataPathPort == 0 {
		req.DataPathPort = DefaultDataPathPort
	}
	if req.DataPathPort < minDataPathPort || req.DataPathPort > maxDataPathPort {
		return api.Errorf(api.Invalid, "data path port %d is outside the range %d-%d", req.DataPathPort, minDataPathPort, maxDataPathPort)
	}
	if len(req.DefaultAddrPool) == 0 {
		req.DefaultAddrPool = []netip.Prefix{DefaultAddrPool}
	}
	for _, p := range req.DefaultAddrPool {
		if !p.IsValid() {
			return api.Errorf(api.Invalid, "default address pool %s is not a prefix", p)
		}
		if p.Addr().Is6() {
			if p.Bits() > subnetSize6 {
				return api.Errorf(api.Invalid, "default address pool %s is too small for an IPv6 subnet, a /%d", p, subnetSize6)
			}
			continue
		}
		if int(req.SubnetSize) < p.Bits() || req.SubnetSize > 29 {
			return api.Errorf(api.Invalid, "subnet size %d does not fit the default address pool %s (from %d to 29)", req.SubnetSize, p, p.Bits())
		}
	}
	return nil
}

func cluster(req swarm.InitRequest, f Founder) *api.Cluster {
	c := &api.Cluster{
		CACert: f.RootCertPEM, CAKey: f.RootKeyPEM, GossipKeys: [][]byte{f.GossipKey}, NextNodeNumber: 2,
	}
	c.ID = f.ClusterID
	c.Spec = withDefaults(req.Spec)
	c.TLSInfo = f.TLSInfo
	c.DefaultAddrPool, c.SubnetSize, c.DataPathPort = req.DefaultAddrPool, req.SubnetSize, req.DataPathPort
	c.JoinTokens = f.Tokens
	return c
}

func withDefaults(s swarm.Spec) swarm.Spec {
	if s.Orchestration.TaskHistoryRetentionLimit == nil {
		limit := int64(DefaultTaskHistory)
		s.Orchestration.TaskHistoryRetentionLimit = &limit
	}
	if s.Raft.SnapshotInterval == 0 {
		s.Raft.SnapshotInterval = defaultSnapshotEvery
	}
	if s.Raft.LogEntriesForSlowFollowers == 0 {
		s.Raft.LogEntriesForSlowFollowers = defaultSlowFollowers
	}
	if s.Raft.ElectionTick == 0 {
		s.Raft.ElectionTick, s.Raft.HeartbeatTick = 10, 1
	}
	if s.Dispatcher.HeartbeatPeriod == 0 {
		s.Dispatcher.HeartbeatPeriod = DefaultHeartbeat
	}
	if s.CAConfig.NodeCertExpiry == 0 {
		s.CAConfig.NodeCertExpiry = DefaultCertExpiry
	}
	return s
}

func node(req swarm.InitRequest, f Founder, dataPath netip.Addr) *api.Node {
	n := &api.Node{Number: 1, DataPathAddr: dataPath, RaftAddr: f.Report.RaftAddr, Capabilities: f.Report.Capabilities, Tunnel: f.Report.Tunnel}
	n.ID = f.NodeID
	n.Spec.Role = swarm.NodeRoleManager
	n.Spec.Availability = req.Availability
	if n.Spec.Availability == "" {
		n.Spec.Availability = swarm.NodeAvailabilityActive
	}
	n.Description = f.Report.Description
	n.Status = swarm.NodeStatus{State: swarm.NodeStateReady, Addr: f.Report.Addr}
	n.ManagerStatus = &swarm.ManagerStatus{Leader: true, Reachability: swarm.ReachabilityReachable, Addr: f.Report.RaftAddr}
	return n
}

// Ingress is the network of the routing mesh, of both families, its subnets
// still to be allocated.
func Ingress(id string) *api.Network {
	n := &api.Network{}
	n.ID = id
	n.Spec.Name = "ingress"
	n.Spec.Ingress = true
	n.Spec.IPv6Enabled = true
	n.Spec.Scope = "swarm"
	n.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay"}
	n.Spec.IPAMOptions = &swarm.IPAMOptions{Driver: swarm.Driver{Name: "default"}}
	return n
}
