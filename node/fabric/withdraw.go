package fabric

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"shoal/dataplane/lb"
)

// withdrawalsMax bounds the balancers that are changed at the same time: who waits
// for the last of them may meet the dead.
const withdrawalsMax = 8

// withdraw takes the backends that must get no new connection out of every
// balancer, before the step does anything else: reading the overlay takes time,
// and whoever connects meanwhile would meet the dead. What the balancers have
// then is what the rest of the step starts from. One that is in doubt, or that
// does not take it, is left to that.
func (f *Fabric) withdraw(ctx context.Context, wish []lb.Desired) {
	reductions := reduced{}
	done := make([]*lb.Desired, len(wish))
	var applying sync.WaitGroup
	slots := make(chan struct{}, withdrawalsMax)
	for i, d := range wish {
		old, known := f.known.balancers[d.Namespace]
		if !known {
			continue
		}
		services, less := reductions.of(old.Services, d.Services)
		if !less {
			continue
		}
		old.Services, f.moved = services, true
		delete(f.known.balancers, d.Namespace)
		slots <- struct{}{}
		applying.Go(func() {
			defer func() { <-slots }()
			if _, err := f.cfg.Balancer.Apply(ctx, old); err == nil {
				done[i] = &old
			}
		})
	}
	applying.Wait()
	for _, d := range done {
		if d != nil {
			f.known.balancers[d.Namespace] = *d
		}
	}
}

// reduced remembers what lists were reduced to: many tasks share one.
type reduced map[pair]reduction

type reduction struct {
	services []lb.Service
	less     bool
}

// of reduces the services to what of them goes on: without backends that are not
// wanted any more, and with those draining that shall. A service that would be
// left without a usable backend although it gets others waits for these: a moment
// of the dead is better for its clients than a refusal.
func (r reduced) of(now, wish []lb.Service) ([]lb.Service, bool) {
	if len(now) == 0 {
		return now, false
	}
	key := pair{a: &now[0], length: len(now)}
	if len(wish) > 0 {
		key.b = &wish[0]
	}
	known, done := r[key]
	if !done {
		known.services, known.less = reduce(now, wish)
		r[key] = known
	}
	return known.services, known.less
}

func reduce(now, wish []lb.Service) (out []lb.Service, less bool) {
	wanted := map[lb.Front]lb.Service{}
	for _, s := range wish {
		wanted[s.Front] = s
	}
	out = slices.Clone(now)
	for i, s := range now {
		w, stays := wanted[s.Front]
		if !stays || slices.Equal(s.Backends, w.Backends) {
			continue // a service that ends is taken away by the step itself
		}
		if backends, fewer := reduceBackends(s.Backends, w.Backends); fewer && (takesNew(backends) || !takesNew(w.Backends)) {
			out[i].Backends, less = backends, true
		}
	}
	return out, less
}

func reduceBackends(now, wish []lb.Backend) (out []lb.Backend, less bool) {
	wanted := map[netip.AddrPort]lb.Backend{}
	for _, b := range wish {
		wanted[netip.AddrPortFrom(b.Addr, b.Port)] = b
	}
	for _, b := range now {
		w, stays := wanted[netip.AddrPortFrom(b.Addr, b.Port)]
		if !stays {
			less = true
			continue
		}
		less = less || w.Draining && !b.Draining
		b.Draining = b.Draining || w.Draining
		out = append(out, b)
	}
	return out, less
}

func takesNew(backends []lb.Backend) bool {
	return slices.ContainsFunc(backends, func(b lb.Backend) bool { return !b.Draining })
}
