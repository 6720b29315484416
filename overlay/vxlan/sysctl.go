package vxlan

import (
	"net/netip"
	"slices"
)

// The kernel settings that the plan needs (Documentation/networking/
// ip-sysctl.rst and the bridge's netfilter settings), per kind of namespace.

const (
	forward4 = "net.ipv4.ip_forward"
	// account makes connection tracking count what goes over each flow.
	account = "net.netfilter.nf_conntrack_acct"
)

// Forwarding6 is the setting by which a namespace forwards IPv6.
const Forwarding6 = "net.ipv6.conf.all.forwarding"

// HostSysctls are the keys of the node's own namespace that Plan compares.
func HostSysctls() []string { return []string{forward4, Forwarding6} }

// OverlaySysctls are the keys of an overlay namespace that Plan compares.
func OverlaySysctls() []string {
	var keys []string
	for _, s := range overlaySysctls(Network{Balancer: &Balancer{}}) {
		keys = append(keys, s.Key)
	}
	return keys
}

func needsForwarding(d Desired) bool {
	for _, n := range d.Networks {
		if n.Balancer != nil {
			return true
		}
	}
	return d.Gateway != nil
}

// forwarding makes the node forward for its tasks. IPv6 is switched only where
// the node has IPv6 addresses towards tasks; whoever applies it sees to it that
// the node's other links go on listening to router advertisements. Neither is
// ever switched off again: somebody else may need it too.
func forwarding(d Desired) []SetSysctl {
	out := []SetSysctl{{Key: forward4, Value: "1"}}
	is6 := func(p netip.Prefix) bool { return p.Addr().Is6() }
	six := d.Gateway != nil && slices.ContainsFunc(d.Gateway.Addrs, is6)
	for _, n := range d.Networks {
		six = six || n.Balancer != nil && slices.ContainsFunc(n.Balancer.HostAddrs, is6)
	}
	if six {
		out = append(out, SetSysctl{Key: Forwarding6, Value: "1"})
	}
	return out
}

// overlaySysctls are set before any link exists, so that links inherit the
// defaults: source addresses are not checked against the routes (clients of
// published ports come from anywhere), what is bridged does not pass the
// namespace's netfilter rules a second time, and IPv6 is on whatever the machine's
// default is, configures nothing by itself and does not probe for duplicates,
// since managers assign addresses.
func overlaySysctls(n Network) []SetSysctl {
	out := []SetSysctl{
		{n.Namespace, "net.bridge.bridge-nf-call-iptables", "0"},
		{n.Namespace, "net.bridge.bridge-nf-call-ip6tables", "0"},
		{n.Namespace, "net.bridge.bridge-nf-call-arptables", "0"},
		{n.Namespace, "net.ipv4.conf.all.rp_filter", "0"},
		{n.Namespace, "net.ipv4.conf.default.rp_filter", "0"},
		{n.Namespace, "net.ipv6.conf.all.disable_ipv6", "0"},
		{n.Namespace, "net.ipv6.conf.default.disable_ipv6", "0"},
		{n.Namespace, "net.ipv6.conf.default.accept_dad", "0"},
		{n.Namespace, "net.ipv6.conf.default.accept_ra", "0"},
		{n.Namespace, "net.ipv6.conf.default.autoconf", "0"},
	}
	// Link-local addresses are made only where the namespace is an endpoint itself:
	// the kernel asks for a neighbour in the name of one when it passes on a packet
	// of somebody else.
	mode := "1"
	if n.Balancer != nil {
		mode = "0"
	}
	for _, links := range []string{"all", "default"} {
		out = append(out, SetSysctl{n.Namespace, "net.ipv6.conf." + links + ".addr_gen_mode", mode})
	}
	if n.Balancer != nil {
		out = append(out,
			SetSysctl{n.Namespace, forward4, "1"},
			SetSysctl{n.Namespace, Forwarding6, "1"},
			SetSysctl{n.Namespace, account, "1"},
		)
	}
	return out
}

// sandboxSysctls are written before a task's first leg is made and not looked
// at again: after that they belong to the task. Sources are not checked against
// the routes, since clients of published ports come from anywhere. A connection
// keeps the mark of the packet that began it, and so does what the kernel itself
// answers, so that replies take the way back that the mark stands for. Sockets
// are not looked up ahead of address translation: where two clients' flows look
// alike until one is translated, the wrong socket would be found.
func sandboxSysctls(path string) []SetSysctl {
	return []SetSysctl{
		{path, "net.ipv4.conf.all.rp_filter", "0"},
		{path, "net.ipv4.conf.default.rp_filter", "0"},
		{path, account, "1"},
		{path, "net.ipv4.tcp_fwmark_accept", "1"},
		{path, "net.ipv4.fwmark_reflect", "1"},
		{path, "net.ipv6.fwmark_reflect", "1"},
		{path, "net.ipv4.tcp_early_demux", "0"},
		{path, "net.ipv4.udp_early_demux", "0"},
		{path, "net.ipv6.conf.all.disable_ipv6", "0"},
		{path, "net.ipv6.conf.default.disable_ipv6", "0"},
		{path, "net.ipv6.conf.default.accept_dad", "0"},
		{path, "net.ipv6.conf.default.accept_ra", "0"},
		{path, "net.ipv6.conf.default.autoconf", "0"},
	}
}
