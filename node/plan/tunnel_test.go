package plan

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
	"shoal/overlay/wireguard"
)

func sealedNetwork(id string, vni uint32, subnet string) *api.Network {
	n := aNetwork(id, vni, subnet)
	n.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay", Options: map[string]string{api.EncryptedOption: ""}}
	return n
}

func publicKey(node byte, epoch uint64) wireguard.Key { return wireguard.Key{node, byte(epoch)} }

func ownKey(epoch uint64) OwnKey { return OwnKey{Epoch: epoch, Public: publicKey(1, epoch)} }

// sealedNode is node number n of the underlay's address, with keys for the epochs.
func sealedNode(n byte, epochs ...uint64) *api.Node {
	node := &api.Node{Number: uint32(n), DataPathAddr: netip.AddrFrom4([4]byte{192, 0, 2, n})}
	node.ID, node.Status.State = "n"+string('0'+n), swarm.NodeStateReady
	for _, e := range epochs {
		key := publicKey(n, e)
		node.Tunnel.Keys = append(node.Tunnel.Keys, api.TunnelKey{Epoch: e, Public: key[:]})
	}
	return node
}

// sealedWorld is a node with a task on an encrypted network, of which node 2 has
// one too, and node 3 has none.
func sealedWorld(epochs ...uint64) Input {
	in := Input{
		Self: me, Networks: []*api.Network{sealedNetwork("net", 4097, "10.0.1.0/24")},
		Nodes:   []*api.Node{sealedNode(1, epochs...), sealedNode(2, epochs...), sealedNode(3, epochs...)},
		Records: []endpoint.Record{rec("n2", "t2", "web", 1, "net", "10.0.1.4")},
		Local:   []Local{localTask("cli", "net", "10.0.1.9/24")},
	}
	for _, e := range epochs {
		in.Tunnels.Own = append(in.Tunnels.Own, ownKey(e))
	}
	return in
}

func at(node byte, epoch uint64) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, node}), wireguard.Port(epoch))
}

func TestEncryptedNetwork(t *testing.T) {
	out := Compile(sealedWorld(7))
	n := out.Overlay.Networks[0]
	if n.Underlay != "/run/ns/vault" || n.Local != wireguard.Addr(1) || n.MTU != 1390 || n.Peers[0].VTEP != wireguard.Addr(2) {
		t.Errorf("the network is %+v", n)
	}
	if leg := out.Overlay.Sandboxes[0].Interfaces[0]; leg.MTU != 1390 {
		t.Errorf("the task's leg is %+v", leg)
	}
	want := wireguard.Desired{Namespace: "/run/ns/vault", Addr: wireguard.Addr(1), MTU: 1440,
		Devices: []wireguard.Device{{Name: "wg7", Port: 7948, Public: publicKey(1, 7), Peers: []wireguard.Peer{
			{Key: publicKey(2, 7), Endpoint: at(2, 7), Addr: wireguard.Addr(2), Active: true},
			{Key: publicKey(3, 7), Endpoint: at(3, 7), Addr: wireguard.Addr(3)},
		}}},
		Routes: []wireguard.Route{{Addr: wireguard.Addr(2), Device: "wg7"}}}
	if !reflect.DeepEqual(out.Vault, want) || out.Settled != 7 || len(out.Blocked) != 0 {
		t.Errorf("the vault is %+v\nwant %+v\nsettled %d, blocked %v", out.Vault, want, out.Settled, out.Blocked)
	}
	in := sealedWorld(7)
	in.Self.VTEP = netip.MustParseAddr("2001:db8::1")
	if out := Compile(in); out.Overlay.Networks[0].MTU != 1370 || out.Vault.MTU != 1420 {
		t.Errorf("over IPv6 %d and %d bytes", out.Overlay.Networks[0].MTU, out.Vault.MTU)
	}
}

// TestNothingInTheClear: whatever the node lacks, no tunnel of an encrypted
// network has its socket anywhere but in the vault, and none leads to an address
// of the underlay.
func TestNothingInTheClear(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*Input)
		blocked string // part of the reason
		peers   int
	}{
		{"nothing is missing", func(*Input) {}, "", 1},
		{"no kernel for it", func(in *Input) { in.Tunnels = Tunnels{Missing: "no WireGuard"} }, "network name-of-net is encrypted, and this node cannot encrypt: no WireGuard", 0},
		{"no keys yet", func(in *Input) { in.Tunnels = Tunnels{} }, "not begun to count keys", 0},
		{"nobody has been told of its keys", func(in *Input) { in.Nodes[0] = sealedNode(1) }, "not passed its keys on", 0},
		{"others were told of another key", func(in *Input) { in.Nodes[0] = sealedNode(1, 8) }, "not passed its keys on", 0},
		{"the owner of a record is no node", func(in *Input) { in.Nodes = in.Nodes[:1] }, "", 0},
		{"the owner has no key", func(in *Input) { in.Nodes[1].Tunnel = api.Tunnel{} }, "", 1},
		{"the owner has no address", func(in *Input) { in.Nodes[1].DataPathAddr = netip.Addr{} }, "", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := sealedWorld(7)
			tt.change(&in)
			out := Compile(in)
			if got := out.Blocked["net"]; !strings.Contains(got, tt.blocked) || (got == "") != (tt.blocked == "") {
				t.Errorf("blocked because of %q", got)
			}
			if (tt.blocked == "") != (len(out.Overlay.Networks) == 1) || (tt.blocked == "") != (out.Vault.Namespace != "") {
				t.Errorf("the overlay is %+v, the vault %+v", out.Overlay.Networks, out.Vault)
			}
			if tt.blocked != "" && len(out.Overlay.Sandboxes[0].Interfaces) != 0 {
				t.Errorf("the task has a leg: %+v", out.Overlay.Sandboxes[0])
			}
			for _, n := range out.Overlay.Networks {
				inVault(t, n)
				if len(n.Peers) != tt.peers {
					t.Errorf("%d peers, want %d", len(n.Peers), tt.peers)
				}
			}
		})
	}
}

func inVault(t *testing.T, n vxlan.Network) {
	t.Helper()
	tunnels := netip.MustParsePrefix("169.254.0.0/18")
	if n.Underlay != "/run/ns/vault" || !tunnels.Contains(n.Local) {
		t.Errorf("the socket is in %q at %s", n.Underlay, n.Local)
	}
	for _, p := range n.Peers {
		if !tunnels.Contains(p.VTEP) {
			t.Errorf("frames go to %s", p.VTEP)
		}
	}
}

func TestABlockedIngressNetworkLeadsNobody(t *testing.T) {
	in := sealedWorld()
	ingress := ingressNetwork()
	ingress.Spec.DriverConfiguration = &swarm.Driver{Options: map[string]string{api.EncryptedOption: "true"}}
	in.Networks, in.Tunnels.Missing = append(in.Networks, ingress), "no WireGuard"
	web := aService("web", "", "net")
	publish(web, 80, 8000, swarm.PortConfigPublishModeIngress)
	in.Services = []*api.Service{web}
	if out := Compile(in); len(out.Translations[0].Forwards) != 0 || len(out.Overlay.Networks) != 0 {
		t.Errorf("forwards %+v, networks %+v", out.Translations[0].Forwards, out.Overlay.Networks)
	}
}

// TestAChangeOfKeys follows one node through a rotation.
func TestAChangeOfKeys(t *testing.T) {
	heard := func(devices ...uint64) map[string]map[wireguard.Key]bool {
		live := map[string]map[wireguard.Key]bool{}
		for _, e := range devices {
			live[wireguard.DeviceName(e)] = map[wireguard.Key]bool{publicKey(2, e): true}
		}
		return live
	}
	tests := []struct {
		name    string
		own     []uint64
		other   []uint64 // of node 2
		live    map[string]map[wireguard.Key]bool
		through string
		settled uint64
	}{
		{"one epoch", []uint64{7}, []uint64{7}, heard(7), "wg7", 7},
		{"this node's new key is not passed on yet", []uint64{7, 8}, []uint64{7}, heard(7), "wg7", 7},
		{"the other has no new key yet", []uint64{7, 8}, []uint64{7}, heard(7), "wg7", 7},
		{"it has, but was not heard under it", []uint64{7, 8}, []uint64{7, 8}, heard(7), "wg7", 7},
		{"it was heard under both", []uint64{7, 8}, []uint64{7, 8}, heard(7, 8), "wg8", 8},
		{"it was heard under the new one alone", []uint64{7, 8}, []uint64{7, 8}, heard(8), "wg8", 8},
		{"it was never heard: nothing can be lost", []uint64{7, 8}, []uint64{7, 8}, nil, "wg8", 8},
		{"it was never heard and has the old key alone", []uint64{7, 8}, []uint64{7}, nil, "wg7", 8},
		{"the old epoch is over", []uint64{8}, []uint64{7, 8}, heard(8), "wg8", 8},
		{"the other has missed the epoch", []uint64{8}, []uint64{7}, nil, "", 8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := sealedWorld(tt.own...)
			if strings.HasPrefix(tt.name, "this node's new key") {
				in.Nodes[0] = sealedNode(1, 7)
			}
			in.Nodes[1], in.Tunnels.Live = sealedNode(2, tt.other...), tt.live
			out := Compile(in)
			if len(out.Vault.Devices) != len(tt.own) {
				t.Errorf("%d devices", len(out.Vault.Devices))
			}
			through := ""
			for _, r := range out.Vault.Routes {
				through = r.Device
			}
			if through != tt.through || out.Settled != tt.settled {
				t.Errorf("sends through %q, settled %d; want %q, %d", through, out.Settled, tt.through, tt.settled)
			}
		})
	}
}

func TestAKeyIsNotTakenFromAnother(t *testing.T) {
	in := sealedWorld(7)
	thief := sealedNode(3)
	stolen := publicKey(2, 7)
	thief.Tunnel.Keys = []api.TunnelKey{{Epoch: 7, Public: stolen[:]}}
	in.Nodes[2] = thief
	in.Nodes[0], in.Nodes[2] = in.Nodes[2], in.Nodes[0]
	peers := Compile(in).Vault.Devices[0].Peers
	if len(peers) != 1 || peers[0].Addr != wireguard.Addr(2) || peers[0].Endpoint != at(2, 7) {
		t.Errorf("peers are %+v", peers)
	}
}

// A daemon that is down does not end its tasks, nor what they are in the middle of.
func TestPartnersThatAreDown(t *testing.T) {
	in := sealedWorld(7)
	want := Compile(in).Vault
	in.Nodes[1].Status.State = swarm.NodeStateDown
	in.Silent = map[string]bool{"n2": true}
	if got := Compile(in).Vault; !reflect.DeepEqual(got, want) {
		t.Errorf("without its daemon a node is reached by %+v, with it by %+v", got, want)
	}
}
