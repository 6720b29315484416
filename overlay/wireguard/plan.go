package wireguard

import (
	"maps"
	"net/netip"
	"slices"
)

// sysctls are the vault's settings. Sources are not checked against the routes:
// while keys change, a peer may send through one device and be sent to through
// the other. Nothing is forwarded.
var sysctls = []SetSysctl{
	{"net.ipv4.conf.all.rp_filter", "0"},
	{"net.ipv4.conf.default.rp_filter", "0"},
	{"net.ipv4.ip_forward", "0"},
}

// Sysctls lists the settings that Plan looks at.
func Sysctls() []string {
	var keys []string
	for _, s := range sysctls {
		keys = append(keys, s.Key)
	}
	return keys
}

// Plan returns the operations that lead from actual to desired. Devices of
// epochs that are over go first, since a new one may need their port. A device
// has its key before it is up, and its peers before anything is sent through it.
// Where nothing differs Plan returns nothing.
func Plan(desired Desired, actual Actual, path string) []Op {
	if desired.Namespace == "" {
		if actual.Exists {
			return []Op{DelVault{path}}
		}
		return nil
	}
	p := &planner{want: desired, have: actual}
	if !actual.Exists {
		p.do(AddVault{desired.Namespace})
	}
	p.space()
	for _, name := range p.unwanted() {
		p.do(DelLink{name})
	}
	for _, d := range desired.Devices {
		p.device(d)
	}
	p.routes()
	return p.ops
}

type planner struct {
	want Desired
	have Actual
	ops  []Op
}

func (p *planner) do(op Op) { p.ops = append(p.ops, op) }

// space sees to settings and addresses.
func (p *planner) space() {
	for _, s := range sysctls {
		value, known := p.have.Sysctls[s.Key]
		if !p.have.Exists || known && value != s.Value {
			p.do(s)
		}
	}
	if !p.have.Loopback {
		p.do(SetLoopback{})
	}
	if !slices.Contains(p.have.Addrs, p.want.Addr) {
		p.do(SetAddr{p.want.Addr})
	}
	for _, a := range p.have.Addrs {
		if a != p.want.Addr {
			p.do(DelAddr{a})
		}
	}
}

func (p *planner) unwanted() []string {
	out := slices.Clone(p.have.Others)
	for name := range p.have.Devices {
		if !slices.ContainsFunc(p.want.Devices, func(d Device) bool { return d.Name == name }) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (p *planner) device(d Device) {
	have, exists := p.have.Devices[d.Name]
	if !exists {
		p.do(AddDevice{d.Name, p.want.MTU})
		have = State{MTU: p.want.MTU}
	}
	set := SetDevice{Name: d.Name}
	if have.Public != d.Public {
		set.Private = d.Private
	}
	if have.Port != d.Port {
		set.Port = d.Port
	}
	if have.MTU != p.want.MTU {
		set.MTU = p.want.MTU
	}
	set.Up = !have.Up
	if set != (SetDevice{Name: d.Name}) {
		p.do(set)
	}
	p.peers(d, have.Peers)
}

// peers changes a device's peers. A peer that went away gives its address back
// before another gets it.
func (p *planner) peers(d Device, have map[Key]PeerState) {
	wanted := make(map[Key]bool, len(d.Peers))
	for _, peer := range d.Peers {
		wanted[peer.Key] = true
	}
	gone := slices.SortedFunc(maps.Keys(have), func(a, b Key) int { return slices.Compare(a[:], b[:]) })
	for _, key := range gone {
		if !wanted[key] {
			p.do(DelPeer{d.Name, key})
		}
	}
	for _, peer := range d.Peers {
		state, known := have[peer.Key]
		if op := peer.set(d.Name, state, known); op != nil {
			p.do(*op)
		}
	}
}

// set returns what makes the peer right, nil for nothing. Where a live peer
// sends from is where it is sent to, whatever the managers say: it may be behind
// an address translation. One that is not heard is tried where it should be.
func (peer Peer) set(device string, have PeerState, known bool) *SetPeer {
	keepalive := 0
	if peer.Active {
		keepalive = Keepalive
	}
	astray := have.Endpoint != peer.Endpoint && !have.Live
	allowed := []netip.Prefix{netip.PrefixFrom(peer.Addr, peer.Addr.BitLen())}
	if known && !astray && have.Keepalive == keepalive && slices.Equal(have.Allowed, allowed) {
		return nil
	}
	op := &SetPeer{Device: device, Key: peer.Key, Addr: peer.Addr, Active: peer.Active}
	if !known || astray {
		op.Endpoint = peer.Endpoint
	}
	return op
}

// routes changes the ways to tunnel addresses; setting one replaces another to
// the same address.
func (p *planner) routes() {
	wanted := make(map[netip.Addr]bool, len(p.want.Routes))
	have := make(map[Route]bool, len(p.have.Routes))
	lost := p.unwanted() // with their routes
	for _, r := range p.have.Routes {
		have[r] = !slices.Contains(lost, r.Device)
	}
	for _, r := range p.want.Routes {
		wanted[r.Addr] = true
		if !have[r] {
			p.do(SetRoute{r})
		}
	}
	for _, r := range p.have.Routes {
		if !wanted[r.Addr] && have[r] {
			p.do(DelRoute{r})
		}
	}
}
