package lb

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// WeightMax is the largest weight a backend may have.
const WeightMax = 65535

// String is the front as people write it: "10.0.1.2" for every port, else
// "10.0.1.2:80/tcp".
func (f Front) String() string {
	if f.Protocol == Any {
		return f.Addr.String()
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String() + "/" + string(f.Protocol)
}

// String is the backend as people write it: address, port and, where it is not
// plain, weight and draining.
func (b Backend) String() string {
	s := b.Addr.String()
	if b.Port != 0 {
		s = netip.AddrPortFrom(b.Addr, b.Port).String()
	}
	if b.Draining {
		return s + " draining"
	}
	if b.Weight > 1 {
		s += fmt.Sprintf(" weight %d", b.Weight)
	}
	return s
}

// Canonical returns d in the one form in which two equal wishes are equal
// values: defaults filled in, services and backends sorted. It refuses what no
// kernel could balance: a front twice, a backend twice, families mixed, a port
// where the protocol has none.
func (d Desired) Canonical() (Desired, error) {
	out := Desired{Namespace: d.Namespace}
	var err error
	if out.MasqueradeFrom, err = canonicalSources(d.MasqueradeFrom); err != nil {
		return Desired{}, err
	}
	for _, s := range d.Services {
		c, err := s.canonical()
		if err != nil {
			return Desired{}, err
		}
		out.Services = append(out.Services, c)
	}
	slices.SortFunc(out.Services, func(a, b Service) int { return compareFronts(a.Front, b.Front) })
	for i := 1; i < len(out.Services); i++ {
		if out.Services[i].Front == out.Services[i-1].Front {
			return Desired{}, fmt.Errorf("balance %s: services %q and %q both claim it",
				out.Services[i].Front, out.Services[i-1].Name, out.Services[i].Name)
		}
	}
	return out, nil
}

// canonicalSources masks and sorts prefixes and drops repetitions; none is nil.
func canonicalSources(from []netip.Prefix) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, p := range from {
		if !p.IsValid() {
			return nil, fmt.Errorf("masquerade from %s: not a prefix", p)
		}
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out), nil
}

// Masquerades says whether any balanced flow may get the namespace's own source.
func (d Desired) Masquerades() bool {
	return len(d.MasqueradeFrom) > 0 || slices.ContainsFunc(d.Services, func(s Service) bool { return s.Masquerade })
}

// Forwarded are addresses of fronts, at most one of each family, for which the
// namespace has to pass on packets that are not its own: where it masquerades.
func (d Desired) Forwarded() (out []netip.Addr) {
	if !d.Masquerades() {
		return nil
	}
	for _, s := range d.Services {
		if !slices.ContainsFunc(out, func(a netip.Addr) bool { return a.Is4() == s.Addr.Is4() }) {
			out = append(out, s.Addr)
		}
	}
	return out
}

func (s Service) canonical() (Service, error) {
	if err := s.check(); err != nil {
		return Service{}, err
	}
	s.Addr = s.Addr.Unmap()
	if s.Algorithm == "" {
		s.Algorithm = RoundRobin
	}
	backends := make([]Backend, 0, len(s.Backends))
	for _, b := range s.Backends {
		b.Addr = b.Addr.Unmap()
		if err := s.checkBackend(b); err != nil {
			return Service{}, err
		}
		backends = append(backends, b.canonical())
	}
	slices.SortFunc(backends, compareBackends)
	for i := 1; i < len(backends); i++ {
		if compareBackends(backends[i], backends[i-1]) == 0 {
			return Service{}, fmt.Errorf("balance %s: backend %s is listed twice", s.Front, backends[i])
		}
	}
	s.Backends = backends
	if len(backends) == 0 {
		s.Backends = nil
	}
	return s, nil
}

// canonical fills the default weight. A draining backend gets no new flow
// whatever its weight, so its weight is not kept.
func (b Backend) canonical() Backend {
	if b.Weight == 0 || b.Draining {
		b.Weight = 1
	}
	return b
}

func (s Service) check() error {
	switch {
	case !s.Addr.IsValid() || s.Addr.IsUnspecified() || s.Addr.IsMulticast() || s.Addr.Zone() != "":
		return fmt.Errorf("balance %s: not an address a client can connect to", s.Front)
	case s.Protocol == Any && s.Port != 0:
		return fmt.Errorf("balance %s port %d: a port needs a protocol", s.Addr, s.Port)
	case s.Protocol == Any && s.Masquerade:
		return fmt.Errorf("balance %s: only a front of one port can masquerade", s.Front)
	case s.Sticky < 0 || s.Sticky > StickyMax || s.Sticky%time.Second != 0:
		return fmt.Errorf("balance %s: clients cannot be kept for %s: whole seconds up to %s", s.Front, s.Sticky, StickyMax)
	case s.Protocol != Any && s.Port == 0:
		return fmt.Errorf("balance %s: protocol %q needs a port", s.Addr, s.Protocol)
	}
	switch s.Protocol {
	case Any, TCP, UDP, SCTP:
	default:
		return fmt.Errorf("balance %s: unknown protocol %q", s.Addr, s.Protocol)
	}
	switch s.Algorithm {
	case "", RoundRobin, WeightedRoundRobin, LeastConn, WeightedLeastConn, SourceHash, Maglev:
		return nil
	}
	return fmt.Errorf("balance %s: unknown algorithm %q", s.Front, s.Algorithm)
}

func (s Service) checkBackend(b Backend) error {
	switch {
	case !b.Addr.IsValid() || b.Addr.IsUnspecified() || b.Addr.IsMulticast() || b.Addr.Zone() != "":
		return fmt.Errorf("balance %s: backend %s is not an address", s.Front, b)
	case b.Addr.Is4() != s.Addr.Unmap().Is4():
		return fmt.Errorf("balance %s: backend %s is of the other address family", s.Front, b)
	case s.Protocol == Any && b.Port != 0:
		return fmt.Errorf("balance %s: backend %s must keep the client's port", s.Front, b)
	case s.Protocol != Any && b.Port == 0:
		return fmt.Errorf("balance %s: backend %s needs a port", s.Front, b)
	case b.Weight > WeightMax:
		return fmt.Errorf("balance %s: backend %s has a weight above %d", s.Front, b, WeightMax)
	}
	return nil
}

// Alike says whether the services balance in the same way, whatever their
// backends. Names are for people and do not count.
func (s Service) Alike(o Service) bool {
	return s.Front == o.Front && s.Algorithm == o.Algorithm && s.Masquerade == o.Masquerade && s.Sticky == o.Sticky
}

func compareFronts(a, b Front) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
}

// compareBackends orders by what identifies a backend within its service.
func compareBackends(a, b Backend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
}
