package zone

import (
	"net/netip"
	"strconv"
	"strings"
)

// Zone answers for every network of a model. It never changes and may be
// asked from any number of goroutines.
type Zone struct {
	networks map[string]*index
}

// index holds one network's names, lower-case and without the final dot.
type index struct {
	names   map[string][]netip.Addr
	reverse map[netip.Addr]string
	srv     map[string][]Target
}

// Target is one SRV answer: a name of this zone, its port and its addresses.
type Target struct {
	Name  string
	Port  uint16
	Addrs []netip.Addr
}

// Build indexes a model. When two things of a network want the same name, a
// service wins over an alias, an alias over a task.
func Build(m Model) *Zone {
	z := &Zone{networks: make(map[string]*index, len(m.Networks))}
	for _, n := range m.Networks {
		z.networks[n.ID] = build(n)
	}
	return z
}

func build(n Network) *index {
	x := &index{names: map[string][]netip.Addr{}, reverse: map[netip.Addr]string{}, srv: map[string][]Target{}}
	b := builder{x, canonical(n.Name)}
	for _, s := range n.Services {
		b.service(s)
	}
	for _, s := range n.Services {
		b.aliases(s)
	}
	for _, s := range n.Services {
		b.tasks(s)
	}
	return x
}

type builder struct {
	*index
	network string
}

func (b builder) service(s Service) {
	b.own(s.Name, front(s))
	b.own("tasks."+s.Name, ready(s))
	for _, vip := range s.VirtualIPs {
		b.reverse[vip] = s.Name + "." + b.network
	}
	b.ports(s)
}

// aliases may be shared: services with the same alias answer together.
func (b builder) aliases(s Service) {
	own := map[string]bool{}
	for _, o := range []string{s.Name, "tasks." + s.Name} {
		own[canonical(o)] = true
	}
	for _, a := range s.Aliases {
		if !own[canonical(a)] {
			b.share(a, front(s))
		}
	}
}

func (b builder) tasks(s Service) {
	for _, t := range s.Tasks {
		b.own(t.FullName, t.Addrs)
		b.own(t.Name, t.Addrs)
		if len(t.ContainerID) >= shortID {
			b.own(t.ContainerID[:shortID], t.Addrs)
		}
		for _, a := range t.Addrs {
			b.reverse[a] = t.FullName + "." + b.network
		}
	}
}

const shortID = 12 // hex digits of a container's short id

// own sets a name, bare and followed by the network's, unless it is taken.
func (b builder) own(name string, addrs []netip.Addr) {
	name = canonical(name)
	if name == "" {
		return
	}
	for _, n := range []string{name, name + "." + b.network} {
		if _, taken := b.names[n]; !taken {
			b.names[n] = addrs
		}
	}
}

func (b builder) share(name string, addrs []netip.Addr) {
	name = canonical(name)
	for _, n := range []string{name, name + "." + b.network} {
		b.names[n] = append(b.names[n][:len(b.names[n]):len(b.names[n])], addrs...)
	}
}

// ports adds the SRV names of a service (RFC 2782): _port._proto.service, where
// port is the port's name or its number.
func (b builder) ports(s Service) {
	for _, p := range s.Ports {
		var targets []Target
		for _, t := range s.Tasks {
			if !t.Draining {
				targets = append(targets, Target{Name: t.FullName + "." + b.network, Port: p.Port, Addrs: t.Addrs})
			}
		}
		for _, label := range []string{p.Name, strconv.Itoa(int(p.Port))} {
			if label != "" {
				name := canonical("_" + label + "._" + p.Protocol + "." + s.Name)
				b.srv[name], b.srv[name+"."+b.network] = targets, targets
			}
		}
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

// Addrs gives the addresses of a name for a client on the networks named, in
// the client's order: the first network that knows the name answers. known is
// true even when the name has no address just now.
func (z *Zone) Addrs(networks []string, name string) (addrs []netip.Addr, known bool) {
	name = canonical(name)
	for _, id := range networks {
		if x := z.networks[id]; x != nil {
			if addrs, known = x.names[name]; known {
				return addrs, true
			}
		}
	}
	return nil, false
}

// Name gives the name of an address.
func (z *Zone) Name(networks []string, addr netip.Addr) (name string, known bool) {
	for _, id := range networks {
		if x := z.networks[id]; x != nil {
			if name, known = x.reverse[addr]; known {
				return name, true
			}
		}
	}
	return "", false
}

// Targets gives the SRV answers of a name.
func (z *Zone) Targets(networks []string, name string) (targets []Target, known bool) {
	name = canonical(name)
	for _, id := range networks {
		if x := z.networks[id]; x != nil {
			if targets, known = x.srv[name]; known {
				return targets, true
			}
		}
	}
	return nil, false
}

// Names lists every name of a network with its addresses; for people.
func (z *Zone) Names(network string) map[string][]netip.Addr {
	if x := z.networks[network]; x != nil {
		return x.names
	}
	return nil
}
