package zone

import (
	"net/netip"
	"strings"
)

// Zone answers for every network of a model. It never changes and may be
// asked from any number of goroutines.
type Zone struct {
	networks map[string]*index
	names    int
}

// Target is one SRV answer: a name of this zone, its port and its addresses.
type Target struct {
	Name  string
	Port  uint16
	Addrs []netip.Addr
}

// Build indexes a model.
func Build(m Model) *Zone {
	z := &Zone{networks: make(map[string]*index, len(m.Networks))}
	for _, n := range m.Networks {
		z.put(build(n))
	}
	return z
}

func (z *Zone) put(x *index) {
	z.drop(x.id)
	z.networks[x.id] = x
	z.names += len(x.names)
}

func (z *Zone) drop(id string) {
	if old := z.networks[id]; old != nil {
		z.names -= len(old.names)
		delete(z.networks, id)
	}
}

// Size is how many names the zone has, those with a network's name behind them
// not counted.
func (z *Zone) Size() int { return z.names }

// Find gives what a name stands for, to a client on the networks named, in the
// client's order. The name is canonical: lower-case and without the final dot.
// The whole name counts first, then NAME.NETWORK with a longer and longer name of
// a network, for both may have dots; the first network that knows the name
// answers alone. Found is true even when the name has no address just now.
func (z *Zone) Find(networks []string, name []byte) (a Answer, found bool) {
	for _, id := range networks {
		if x := z.networks[id]; x != nil {
			if a, found = x.names[string(name)]; found {
				return a, true
			}
		}
	}
	for dot := len(name) - 1; dot > 0; dot-- {
		if name[dot] != '.' {
			continue
		}
		for _, id := range networks {
			if x := z.networks[id]; x != nil && x.suffix == string(name[dot+1:]) {
				if a, found = x.names[string(name[:dot])]; found {
					return a, true
				}
			}
		}
	}
	return Answer{}, false
}

// Addrs gives the addresses of a name as Find does.
func (z *Zone) Addrs(networks []string, name string) (addrs []netip.Addr, known bool) {
	a, known := z.Find(networks, []byte(canonical(name)))
	return a.addrs, known
}

// Name gives the name of an address.
func (z *Zone) Name(networks []string, addr netip.Addr) (name string, known bool) {
	for _, id := range networks {
		if x := z.networks[id]; x != nil {
			if name, known = x.reverse[addr.Unmap()]; known {
				return name, true
			}
		}
	}
	return "", false
}

// Targets gives the SRV answers of a name, by the same rules as Find.
func (z *Zone) Targets(networks []string, name string) (targets []Target, known bool) {
	name = canonical(name)
	if !strings.HasPrefix(name, "_") {
		return nil, false
	}
	for _, id := range networks {
		if x := z.networks[id]; x != nil {
			if targets, known = x.srv[name]; known {
				return targets, true
			}
		}
	}
	for _, id := range networks {
		if x := z.networks[id]; x != nil {
			bare, ours := strings.CutSuffix(name, "."+x.suffix)
			if targets, known = x.srv[bare]; ours && known {
				return targets, true
			}
		}
	}
	return nil, false
}

// Names lists every name of a network with its addresses, and those of its SRV
// names with the addresses of their targets; for people.
func (z *Zone) Names(network string) map[string][]netip.Addr {
	x := z.networks[network]
	if x == nil {
		return nil
	}
	out := make(map[string][]netip.Addr, len(x.names)+len(x.srv))
	for name, a := range x.names {
		out[name] = a.addrs
	}
	for name, targets := range x.srv {
		for _, t := range targets {
			out[name] = append(out[name], t.Addrs...)
		}
	}
	return out
}
