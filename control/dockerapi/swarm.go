package dockerapi

import (
	"net"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/store"
)

func (a *API) mountSwarm(rt *wire.Router) {
	rt.Handle("GET", "/swarm", a.onManager(a.inspectSwarm))
	rt.Handle("POST", "/swarm/init", a.initSwarm)
	rt.Handle("POST", "/swarm/join", a.joinSwarm)
	rt.Handle("POST", "/swarm/leave", a.leaveSwarm)
	rt.Handle("POST", "/swarm/update", a.onManager(a.updateSwarm))
	rt.Handle("GET", "/swarm/unlockkey", a.onManager(a.unlockKey))
	rt.Handle("POST", "/swarm/unlock", a.unlockSwarm)
}

func (a *API) inspectSwarm(w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	c := a.store().View().Cluster()
	if c == nil {
		return api.Errorf(api.Unavailable, textStarting)
	}
	out := c.Swarm
	out.Spec.Labels = present(out.Spec.Labels)
	out.Spec.CAConfig.SigningCAKey = ""
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (a *API) initSwarm(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var req swarm.InitRequest
	if err := wire.ReadJSON(r, &req); err != nil {
		return err
	}
	ignoreNewerInit(&req, wire.VersionOf(r))
	if err := checkInit(&req); err != nil {
		return err
	}
	if !inactive(a.cfg.Lifecycle.Info()) {
		return api.Errorf(api.Unavailable, textPart)
	}
	id, err := a.cfg.Lifecycle.Init(r.Context(), req)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, id)
}

func inactive(info swarm.Info) bool {
	return info.LocalNodeState == swarm.LocalNodeStateInactive || info.LocalNodeState == ""
}

// Bounds of Docker's own for the cluster's address pools and VXLAN port.
const (
	minDataPathPort = 1024
	maxDataPathPort = 49151
	minSubnetSize   = 1
	maxSubnetSize   = 29
)

func checkInit(req *swarm.InitRequest) error {
	if req.ForceNewCluster {
		return api.Errorf(api.Unimplemented, "--force-new-cluster is not supported by this version: "+textNoQuorum)
	}
	if err := checkAddr("ListenAddr", req.ListenAddr); err != nil {
		return err
	}
	if req.AutoLockManagers {
		req.Spec.EncryptionConfig.AutoLockManagers = true
	}
	if err := checkSwarmSpec(&req.Spec); err != nil {
		return err
	}
	if p := req.DataPathPort; p != 0 && (p < minDataPathPort || p > maxDataPathPort) {
		return api.Errorf(api.Invalid, "Datapath port number is not in valid range (%d-%d) : %d", minDataPathPort, maxDataPathPort, p)
	}
	if err := checkAvailability(req.Availability, true); err != nil {
		return err
	}
	return checkPool(req)
}

func checkPool(req *swarm.InitRequest) error {
	if s := req.SubnetSize; s != 0 && (s < minSubnetSize || s > maxSubnetSize) {
		return api.Errorf(api.Invalid, "subnet size is out of range: %d", s)
	}
	for i, p := range req.DefaultAddrPool {
		if !p.IsValid() {
			return api.Errorf(api.Invalid, "invalid empty address pool")
		}
		if req.SubnetSize != 0 && p.Addr().Is4() && p.Bits() > int(req.SubnetSize) {
			return api.Errorf(api.Invalid, "invalid CIDR %s: the address pool is smaller than its subnets of /%d", p, req.SubnetSize)
		}
		for _, other := range req.DefaultAddrPool[:i] {
			if p.Overlaps(other) {
				return api.Errorf(api.Invalid, "address pools %s and %s overlap", other, p)
			}
		}
	}
	return nil
}

// checkAddr says whether text names an address, perhaps with a port: an
// interface, a host or an IP.
func checkAddr(what, text string) error {
	if text == "" {
		return api.Errorf(api.Invalid, "invalid %s %q: invalid empty address", what, text)
	}
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return nil // no port: whoever listens fills in the default
	}
	if _, err := strconv.ParseUint(port, 10, 16); port != "" && err != nil {
		return api.Errorf(api.Invalid, "invalid %s %q: invalid port %q", what, text, port)
	}
	return nil
}

func (a *API) joinSwarm(_ http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var req swarm.JoinRequest
	if err := wire.ReadJSON(r, &req); err != nil {
		return err
	}
	if err := checkJoin(&req); err != nil {
		return err
	}
	if !inactive(a.cfg.Lifecycle.Info()) {
		return api.Errorf(api.Unavailable, textPart)
	}
	return a.cfg.Lifecycle.Join(r.Context(), req)
}

func checkJoin(req *swarm.JoinRequest) error {
	if err := checkAddr("ListenAddr", req.ListenAddr); err != nil {
		return err
	}
	if len(req.RemoteAddrs) == 0 {
		return api.Errorf(api.Invalid, "at least 1 RemoteAddr is required to join")
	}
	for _, addr := range req.RemoteAddrs {
		if err := checkAddr("remoteAddr", addr); err != nil {
			return err
		}
	}
	return checkAvailability(req.Availability, true)
}

func (a *API) leaveSwarm(_ http.ResponseWriter, r *http.Request, _ map[string]string) error {
	force := wire.Bool(r, "force")
	info := a.cfg.Lifecycle.Info()
	if inactive(info) {
		return api.Errorf(api.Unavailable, textNotPart)
	}
	if !force {
		if err := a.mayLeave(info); err != nil {
			return err
		}
	}
	return a.cfg.Lifecycle.Leave(r.Context(), force)
}

// mayLeave refuses what would hurt the cluster unless it is forced.
func (a *API) mayLeave(info swarm.Info) error {
	if info.LocalNodeState == swarm.LocalNodeStateLocked {
		return api.Errorf(api.Unavailable, "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.")
	}
	if !info.ControlAvailable {
		return nil
	}
	m := countManagers(a.store().View(), info.NodeID)
	return LeaveWarning(m.reachable, m.total)
}

// managers counts the managers of the cluster as one of them would leave.
type managers struct {
	total, reachable int
	// quorumWithout says whether those that remain can still decide.
	quorumWithout bool
}

func countManagers(v *store.View, leaving string) managers {
	var m managers
	reachableOthers := 0
	for _, n := range v.Nodes() {
		if n.Spec.Role != swarm.NodeRoleManager {
			continue
		}
		m.total++
		if unreachable(n) {
			continue
		}
		m.reachable++
		if n.ID != leaving {
			reachableOthers++
		}
	}
	m.quorumWithout = m.total > 1 && reachableOthers >= (m.total-1)/2+1
	return m
}

func unreachable(n *api.Node) bool {
	if n.ManagerStatus != nil && n.ManagerStatus.Reachability == swarm.ReachabilityUnreachable {
		return true
	}
	return n.Status.State == swarm.NodeStateDown
}

func (a *API) unlockKey(w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	// Without autolock, which checkSwarmSpec refuses, there is no key.
	return wire.WriteJSON(w, http.StatusOK, swarm.UnlockKeyResponse{})
}

func (a *API) unlockSwarm(_ http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var req swarm.UnlockRequest
	if err := wire.ReadJSON(r, &req); err != nil {
		return err
	}
	info := a.cfg.Lifecycle.Info()
	if info.LocalNodeState == swarm.LocalNodeStateLocked {
		return api.Errorf(api.Unimplemented, "unlocking a swarm is not supported by this version")
	}
	if err := notManager(info); err != nil {
		return err
	}
	return api.Errorf(api.Conflict, "swarm is not locked")
}
