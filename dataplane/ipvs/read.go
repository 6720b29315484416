package ipvs

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
)

// state is what the namespace has of ours.
type state struct {
	balance lb.Desired
	// fronts are those of the table; exists and sound speak of the table.
	fronts        fronts
	exists, sound bool
	// strays are services that nothing of ours leads to.
	strays []*ipvs.Service
}

// read returns the state of the namespace. Where the table that says which mark
// means which front is damaged, the marks that the wish would get are assumed.
func (k *kernel) read(ctx context.Context, wish lb.Desired) (state, error) {
	st := state{balance: lb.Desired{Namespace: k.namespace}}
	var err error
	st.fronts, st.balance.MasqueradeFrom, st.exists, st.sound, err = k.readTable()
	if err != nil {
		return st, err
	}
	known := st.fronts
	if !st.sound {
		known = wished(wish, st.fronts)
	}
	marked := map[markKey]netip.Addr{}
	for a, m := range known.marks {
		marked[markKey{a.Is6(), m}] = a
	}
	services, err := k.vs.GetServices()
	if err != nil {
		return st, fmt.Errorf("list ipvs services: %w", err)
	}
	for _, v := range services {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		s, ok := serviceOf(v, marked)
		if !ok {
			st.strays = append(st.strays, v)
			continue
		}
		s.Name, s.Masquerade = known.names[s.Front], known.ports[s.Front]
		destinations, err := k.vs.GetDestinations(v)
		if err != nil {
			return st, fmt.Errorf("list servers of %s: %w", s.Front, err)
		}
		for _, d := range destinations {
			s.Backends = append(s.Backends, backend(d))
		}
		st.balance.Services = append(st.balance.Services, s)
	}
	st.balance, err = st.balance.Canonical()
	return st, err
}

// markKey is what IPVS knows a marked service by.
type markKey struct {
	six  bool
	mark uint32
}

// serviceOf returns a service without its backends.
func serviceOf(v *ipvs.Service, marked map[markKey]netip.Addr) (lb.Service, bool) {
	s := lb.Service{Algorithm: lb.Algorithm(v.SchedName)}
	if v.Flags&persistent != 0 {
		s.Sticky = time.Duration(v.Timeout) * time.Second
	}
	switch s.Algorithm {
	case lb.RoundRobin, lb.WeightedRoundRobin, lb.LeastConn, lb.WeightedLeastConn, lb.SourceHash, lb.Maglev:
	default:
		return s, false
	}
	if v.FWMark != 0 {
		a, ok := marked[markKey{v.AddressFamily == unix.AF_INET6, v.FWMark}]
		s.Front = lb.Front{Addr: a}
		return s, ok
	}
	a, ok := netip.AddrFromSlice(v.Address)
	s.Front = lb.Front{Addr: a.Unmap(), Port: v.Port, Protocol: protocolOf(v.Protocol)}
	return s, ok && s.Protocol != lb.Any && s.Port != 0
}
