package zone

import (
	"net/netip"
	"slices"
	"strings"
)

// index holds one network's names, lower-case and without the final dot, and
// without the network's own name behind them.
type index struct {
	id, name, suffix string // the suffix is the canonical name
	services         []Service
	names            map[string]Answer
	reverse          map[netip.Addr]string
	srv              map[string][]Target
}

// Answer is what a name stands for: addresses, those of IPv4 first.
type Answer struct {
	addrs []netip.Addr
	four  int
}

// answer sorts addresses by family and leaves out what is there twice.
func answer(addrs []netip.Addr) Answer {
	var a Answer
	for _, four := range []bool{true, false} {
		for _, addr := range addrs {
			if addr = addr.Unmap(); addr.IsValid() && addr.Is4() == four && !slices.Contains(a.addrs, addr) {
				a.addrs = append(a.addrs, addr)
			}
		}
		if four {
			a.four = len(a.addrs)
		}
	}
	return a
}

// V4 are the IPv4 addresses, V6 the others, All both. Nobody may change them.
func (a Answer) V4() []netip.Addr { return a.addrs[:a.four] }

// V6 are the IPv6 addresses.
func (a Answer) V6() []netip.Addr { return a.addrs[a.four:] }

// All are the addresses of both families.
func (a Answer) All() []netip.Addr { return a.addrs }

// build indexes a network. When two things want the same name, a service or an
// alias wins over a task's own names, and those over a host name. Services and
// aliases of the same name answer together, and so do tasks of one host name.
func build(n Network) *index {
	x := &index{
		id: n.ID, name: n.Name, suffix: canonical(n.Name), services: n.Services,
		names: map[string]Answer{}, reverse: map[netip.Addr]string{}, srv: map[string][]Target{},
	}
	for _, s := range n.Services {
		x.service(s)
	}
	for _, s := range n.Services {
		x.aliases(s)
	}
	for _, s := range n.Services {
		x.tasks(s)
	}
	x.hostnames()
	return x
}

func (x *index) service(s Service) {
	x.own(s.Name, front(s))
	x.own("tasks."+s.Name, ready(s))
	for _, vip := range s.VirtualIPs {
		x.reverse[vip.Unmap()] = s.Name + "." + x.name
	}
	x.ports(s)
}

// aliases may be shared: services with the same alias answer together.
func (x *index) aliases(s Service) {
	own := map[string]bool{canonical(s.Name): true, canonical("tasks." + s.Name): true}
	for _, a := range s.Aliases {
		if a = canonical(a); !own[a] {
			x.share(a, front(s))
			x.share("tasks."+a, ready(s))
		}
	}
}

func (x *index) tasks(s Service) {
	for _, t := range s.Tasks {
		x.own(t.FullName, t.Addrs)
		x.own(t.Name, t.Addrs)
		if len(t.ContainerID) >= shortID {
			x.own(t.ContainerID[:shortID], t.Addrs)
		}
		for _, a := range t.Addrs {
			x.reverse[a.Unmap()] = t.FullName + "." + x.name
		}
	}
}

// hostnames gives what containers call themselves to those that may be sent to,
// and what none of these has to the others.
func (x *index) hostnames() {
	usable, others := map[string][]netip.Addr{}, map[string][]netip.Addr{}
	for _, s := range x.services {
		for _, t := range s.Tasks {
			shared := usable
			if t.Draining {
				shared = others
			}
			name := canonical(t.Hostname)
			shared[name] = append(shared[name], t.Addrs...)
		}
	}
	for _, shared := range []map[string][]netip.Addr{usable, others} {
		for name, addrs := range shared {
			x.own(name, addrs)
		}
	}
}

const shortID = 12 // hex digits of a container's short id

// own sets a name unless it is taken.
func (x *index) own(name string, addrs []netip.Addr) {
	name = canonical(name)
	if _, taken := x.names[name]; name != "" && !taken {
		x.names[name] = answer(addrs)
	}
}

func (x *index) share(name string, addrs []netip.Addr) {
	if name = canonical(name); name != "" {
		x.names[name] = answer(slices.Concat(x.names[name].addrs, addrs))
	}
}

// front is what a service's own name gives.
func front(s Service) []netip.Addr {
	if len(s.VirtualIPs) > 0 {
		return s.VirtualIPs
	}
	return ready(s)
}

func ready(s Service) []netip.Addr {
	var out []netip.Addr
	for _, t := range s.Tasks {
		if !t.Draining {
			out = append(out, t.Addrs...)
		}
	}
	return out
}

func canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
