package vxlan

// The kernel settings that the plan needs (Documentation/networking/
// ip-sysctl.rst and the bridge's netfilter settings), per kind of namespace.

const (
	forward4 = "net.ipv4.ip_forward"
	forward6 = "net.ipv6.conf.all.forwarding"
	// account makes connection tracking count what goes over each flow.
	account = "net.netfilter.nf_conntrack_acct"
)

// HostSysctls are the keys of the node's own namespace that Plan compares.
func HostSysctls() []string { return []string{forward4, forward6} }

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
// the node's own addresses towards tasks are IPv6, because it makes the kernel
// stop listening to router advertisements on the node's other links. Neither is
// ever switched off again: somebody else may need it too.
func forwarding(d Desired) []SetSysctl {
	out := []SetSysctl{{Key: forward4, Value: "1"}}
	six := d.Gateway != nil && d.Gateway.Addr.Addr().Is6()
	for _, n := range d.Networks {
		six = six || (n.Balancer != nil && n.Balancer.HostAddr.Addr().Is6())
	}
	if six {
		out = append(out, SetSysctl{Key: forward6, Value: "1"})
	}
	return out
}

// overlaySysctls are set before any link exists, so that links inherit the
// defaults: source addresses are not checked against the routes (clients of
// published ports come from anywhere), what is bridged does not pass the
// namespace's netfilter rules a second time, and IPv6 configures nothing by
// itself and does not probe for duplicates, since managers assign addresses.
func overlaySysctls(n Network) []SetSysctl {
	out := []SetSysctl{
		{n.Namespace, "net.bridge.bridge-nf-call-iptables", "0"},
		{n.Namespace, "net.bridge.bridge-nf-call-ip6tables", "0"},
		{n.Namespace, "net.bridge.bridge-nf-call-arptables", "0"},
		{n.Namespace, "net.ipv4.conf.all.rp_filter", "0"},
		{n.Namespace, "net.ipv4.conf.default.rp_filter", "0"},
		{n.Namespace, "net.ipv6.conf.default.accept_dad", "0"},
		{n.Namespace, "net.ipv6.conf.default.accept_ra", "0"},
		{n.Namespace, "net.ipv6.conf.default.autoconf", "0"},
		{n.Namespace, "net.ipv6.conf.default.addr_gen_mode", "1"}, // no link-local address
	}
	if n.Balancer != nil {
		out = append(out,
			SetSysctl{n.Namespace, forward4, "1"},
			SetSysctl{n.Namespace, forward6, "1"},
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
		{path, "net.ipv4.tcp_early_demux", "0"},
		{path, "net.ipv4.udp_early_demux", "0"},
		{path, "net.ipv6.conf.default.accept_dad", "0"},
		{path, "net.ipv6.conf.default.accept_ra", "0"},
		{path, "net.ipv6.conf.default.autoconf", "0"},
	}
}
