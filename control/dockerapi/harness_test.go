package dockerapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/dockerapi/wire"
	"shoal/control/genesis"
	"shoal/control/store"
)

// epoch is the time of the first commit; every later one is a second after.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// cluster is a manager of one: a real store behind the API, written through a
// proposer that sends operations through JSON as a Raft log does, and a
// lifecycle that refuses what the real one refuses.
type cluster struct {
	testing.TB
	store  *store.Store
	api    *API
	router *wire.Router

	mu   sync.Mutex
	info swarm.Info
	// known are what a worker was told of.
	known []network.Inspect
	// interfere runs before the next commit, once: somebody else is faster.
	interfere func()
}

func newCluster(t testing.TB) *cluster {
	c := &cluster{TB: t, store: store.New()}
	c.info.LocalNodeState = swarm.LocalNodeStateInactive
	c.api = New(Config{
		Store: c.current, Proposer: c, Lifecycle: c, LocalNetworks: c,
		Now: func() time.Time { return epoch },
	})
	c.router = wire.NewRouter(slog.New(slog.NewTextHandler(io.Discard, nil)))
	wire.HandlePing(c.router, c.Info)
	c.api.Mount(c.router)
	c.router.Handle("GET", "/info", func(w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
		return wire.WriteJSON(w, http.StatusOK, system.Info{ID: "x", Name: "h1", OSType: "linux", Swarm: c.Info()})
	})
	return c
}

// newManager is newCluster after swarm init.
func newManager(t testing.TB) *cluster {
	c := newCluster(t)
	if _, err := c.Init(t.Context(), swarm.InitRequest{ListenAddr: "0.0.0.0:2377"}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) Info() swarm.Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info
}

// current is the store while the node is a manager.
func (c *cluster) current() *store.Store {
	if !c.Info().ControlAvailable {
		return nil
	}
	return c.store
}

func (c *cluster) become(state swarm.LocalNodeState, manager bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info.LocalNodeState, c.info.ControlAvailable = state, manager
}

func (c *cluster) Init(ctx context.Context, req swarm.InitRequest) (string, error) {
	if c.store.View().Cluster() != nil {
		return "", api.Errorf(api.Unavailable, textPart)
	}
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		return "", err
	}
	f := genesis.Founder{
		ClusterID: api.NewID(), NodeID: api.NewID(), IngressID: api.NewID(),
		RootCertPEM: root.CertPEM(), RootKeyPEM: []byte("key"),
		Tokens:    swarm.JoinTokens{Worker: ca.NewToken(root.Cert).Reveal(), Manager: ca.NewToken(root.Cert).Reveal()},
		GossipKey: bytes.Repeat([]byte{1}, 32),
		Report: api.NodeReport{
			Addr: "10.77.0.1", DataPathAddr: "10.77.0.1", RaftAddr: "10.77.0.1:2377",
			Description: swarm.NodeDescription{Hostname: "h1", Platform: swarm.Platform{Architecture: "x86_64", OS: "linux"}},
		},
	}
	ops, err := genesis.State(req, f)
	if err != nil {
		return "", err
	}
	if err := c.Propose(ctx, ops); err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info.NodeID, c.info.NodeAddr = f.NodeID, "10.77.0.1"
	c.info.LocalNodeState, c.info.ControlAvailable = swarm.LocalNodeStateActive, true
	return f.NodeID, nil
}

func (c *cluster) Join(_ context.Context, req swarm.JoinRequest) error {
	if _, err := ca.ParseToken(req.JoinToken); err != nil {
		return err
	}
	c.become(swarm.LocalNodeStateActive, false)
	return nil
}

func (c *cluster) Leave(context.Context, bool) error {
	c.become(swarm.LocalNodeStateInactive, false)
	return nil
}

func (c *cluster) List() []network.Inspect {
	var n network.Inspect
	n.Name, n.ID, n.Scope, n.Driver = "bridge", "b0b0", "local", "bridge"
	return append([]network.Inspect{n}, c.known...)
}

// Propose commits like a log entry would.
func (c *cluster) Propose(_ context.Context, ops []api.Op) error {
	c.mu.Lock()
	interfere := c.interfere
	c.interfere = nil
	c.mu.Unlock()
	if interfere != nil {
		interfere()
	}
	raw, err := json.Marshal(ops)
	if err != nil {
		return err
	}
	var decoded []api.Op
	if err := json.Unmarshal(raw, &decoded); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.store.View().Index() + 1
	return c.store.Commit(next, epoch.Add(time.Duration(next)*time.Second), decoded)
}

func (c *cluster) commit(ops ...api.Op) {
	c.Helper()
	if err := c.Propose(c.Context(), ops); err != nil {
		c.Fatal(err)
	}
}

// do makes a request and returns status and body.
func (c *cluster) do(method, path string, body any) (int, string) {
	c.Helper()
	var in io.Reader
	if text, ok := body.(string); ok {
		in = bytes.NewBufferString(text)
	} else if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			c.Fatal(err)
		}
		in = bytes.NewReader(raw)
	}
	r := httptest.NewRequest(method, path, in)
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	c.router.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// get reads an answer that must be 200.
func (c *cluster) get(path string, into any) string {
	c.Helper()
	code, body := c.do("GET", path, nil)
	if code != http.StatusOK {
		c.Fatalf("GET %s: %d %s", path, code, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		c.Fatalf("GET %s: %v in %s", path, err, body)
	}
	return body
}

// create makes a service that must be accepted and returns its id.
func (c *cluster) create(spec swarm.ServiceSpec) string {
	c.Helper()
	code, body := c.do("POST", "/v1.47/services/create", spec)
	var out swarm.ServiceCreateResponse
	if code != http.StatusCreated || json.Unmarshal([]byte(body), &out) != nil {
		c.Fatalf("create: %d %s", code, body)
	}
	return out.ID
}

func (c *cluster) createNetwork(name string) string {
	c.Helper()
	code, body := c.do("POST", "/networks/create", network.CreateRequest{Name: name, Driver: "overlay"})
	var out network.CreateResponse
	if code != http.StatusCreated || json.Unmarshal([]byte(body), &out) != nil {
		c.Fatalf("network create: %d %s", code, body)
	}
	return out.ID
}

// spec is a small valid service.
func spec(name string, edit ...func(*swarm.ServiceSpec)) swarm.ServiceSpec {
	s := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: name}}
	s.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "shoal/whoami:latest"}
	for _, e := range edit {
		e(&s)
	}
	return s
}

func publish(ports ...swarm.PortConfig) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) { s.EndpointSpec = &swarm.EndpointSpec{Ports: ports} }
}

func attach(networks ...string) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) {
		for _, n := range networks {
			s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: n})
		}
	}
}

// addTask puts a running task of the service on the node, as the planners would.
func (c *cluster) addTask(serviceID, nodeID string, slot int, edit ...func(*api.Task)) *api.Task {
	c.Helper()
	s := c.store.View().Service(serviceID)
	t := &api.Task{SpecVersion: s.SpecVersion, ServiceName: s.Spec.Name}
	t.ID, t.ServiceID, t.NodeID, t.Slot = api.NewID(), serviceID, nodeID, slot
	t.Spec, t.DesiredState = s.Spec.TaskTemplate, swarm.TaskStateRunning
	t.Status.State = swarm.TaskStateRunning
	for i, a := range s.Spec.TaskTemplate.Networks {
		n := c.store.View().Network(a.Target)
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i + 1), byte(slot + 10)})
		t.NetworksAttachments = append(t.NetworksAttachments, swarm.NetworkAttachment{
			Network: n.Network, Addresses: []netip.Prefix{netip.PrefixFrom(addr, 24)},
		})
	}
	for _, e := range edit {
		e(t)
	}
	c.commit(api.Create(t))
	return c.store.View().Task(t.ID)
}

func (c *cluster) addNode(name string, role swarm.NodeRole, state swarm.NodeState) *api.Node {
	c.Helper()
	n := &api.Node{Number: uint32(len(c.store.View().Nodes()) + 1)}
	n.ID = api.NewID()
	n.Spec.Role, n.Spec.Availability = role, swarm.NodeAvailabilityActive
	n.Description.Hostname = name
	n.Status = swarm.NodeStatus{State: state, Addr: "10.77.0.9"}
	if role == swarm.NodeRoleManager {
		n.ManagerStatus = &swarm.ManagerStatus{Reachability: swarm.ReachabilityReachable, Addr: "10.77.0.9:2377"}
	}
	c.commit(api.Create(n))
	return c.store.View().Node(n.ID)
}

func (c *cluster) self() *api.Node { return c.store.View().Node(c.Info().NodeID) }
