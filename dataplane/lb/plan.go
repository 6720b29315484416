package lb

import (
	"net/netip"
	"slices"
)

// Plan returns what leads from actual to desired, both canonical: additions
// first, removals last, and nothing when they balance alike. Names of services
// and tasks are for people and are not compared.
func Plan(desired, actual Desired) []Op {
	var first, add, remove, last []Op
	if !slices.Equal(desired.MasqueradeFrom, actual.MasqueradeFrom) {
		first = append(first, Op{Kind: SetMasquerade, From: desired.MasqueradeFrom})
	}
	old := make(map[Front]Service, len(actual.Services))
	for _, s := range actual.Services {
		old[s.Front] = s
	}
	for _, s := range desired.Services {
		have, ok := old[s.Front]
		delete(old, s.Front)
		switch {
		case !ok:
			first = append(first, Op{Kind: AddService, Service: s.bare()})
		case !have.Alike(s):
			first = append(first, Op{Kind: SetService, Service: s.bare()})
		}
		a, r := planBackends(s, have.Backends)
		add, remove = append(add, a...), append(remove, r...)
	}
	for _, s := range actual.Services {
		if _, gone := old[s.Front]; gone {
			last = append(last, Op{Kind: RemoveService, Service: s.bare()})
		}
	}
	return append(append(append(first, add...), remove...), last...)
}

// planBackends returns the additions and changes of one service, then its removals.
func planBackends(s Service, actual []Backend) (add, remove []Op) {
	type key struct {
		addr netip.Addr
		port uint16
	}
	old := make(map[key]Backend, len(actual))
	for _, b := range actual {
		old[key{b.Addr, b.Port}] = b
	}
	var set []Op
	for _, b := range s.Backends {
		k := key{b.Addr, b.Port}
		have, ok := old[k]
		delete(old, k)
		switch {
		case !ok:
			add = append(add, Op{Kind: AddBackend, Service: s.bare(), Backend: b})
		case have.Weight != b.Weight || have.Draining != b.Draining:
			set = append(set, Op{Kind: SetBackend, Service: s.bare(), Backend: b})
		}
	}
	for _, b := range actual {
		if _, gone := old[key{b.Addr, b.Port}]; gone {
			remove = append(remove, Op{Kind: RemoveBackend, Service: s.bare(), Backend: b})
		}
	}
	return append(add, set...), remove
}

func (s Service) bare() Service {
	s.Backends = nil
	return s
}
