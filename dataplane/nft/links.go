package nft

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// canonicalTranslation sorts the wish and refuses what could not be carried out:
// a port or an address forwarded twice, families mixed, no protocol.
func canonicalTranslation(t lb.Translation) (lb.Translation, error) {
	out := lb.Translation{Namespace: t.Namespace, Forwards: slices.Clone(t.Forwards),
		Masquerade: slices.Clone(t.Masquerade), Redirects: slices.Clone(t.Redirects)}
	if len(t.Closed) > 15 {
		return out, fmt.Errorf("close link %q: that is no link's name", t.Closed)
	}
	out.Closed = t.Closed
	var err error
	if out.Return, err = canonicalReturn(t.Return); err != nil {
		return out, err
	}
	if err := canonicalPassing(&t, &out); err != nil {
		return out, err
	}
	if out.Inner, err = canonicalInner(t.Inner); err != nil {
		return out, err
	}
	for i := range out.Forwards {
		f := &out.Forwards[i]
		f.Name, f.To, f.At = netfilter.Clip(boundComment + f.Name)[len(boundComment):], netip.AddrPortFrom(f.To.Addr().Unmap(), f.To.Port()), f.At.Unmap()
		if f.At.IsValid() && f.At.Is4() != f.To.Addr().Is4() {
			return out, fmt.Errorf("forward %s port %d at %s to %s: both addresses must be of one family", f.Protocol, f.Port, f.At, f.To)
		}
		if protocols[f.Protocol] == 0 || f.Port == 0 || !f.To.IsValid() || f.To.Port() == 0 {
			return out, fmt.Errorf("forward %s port %d to %s: needs a protocol, two ports and an address", f.Protocol, f.Port, f.To)
		}
	}
	slices.SortFunc(out.Forwards, compareForwards)
	for i := 1; i < len(out.Forwards); i++ {
		if compareForwards(out.Forwards[i-1], out.Forwards[i]) == 0 {
			return out, fmt.Errorf("forward %s port %d: both %q and %q claim it", out.Forwards[i].Protocol,
				out.Forwards[i].Port, out.Forwards[i-1].Name, out.Forwards[i].Name)
		}
	}
	for i, e := range out.Masquerade {
		if !e.Source.IsValid() || e.Bridge == "" || len(e.Bridge) > 15 {
			return out, fmt.Errorf("masquerade %s of bridge %q: needs a prefix and a link name", e.Source, e.Bridge)
		}
		out.Masquerade[i].Source = e.Source.Masked()
	}
	slices.SortFunc(out.Masquerade, func(a, b lb.Egress) int {
		return cmp.Or(cmp.Compare(a.Source.String(), b.Source.String()), cmp.Compare(a.Bridge, b.Bridge))
	})
	return out, canonicalRedirects(out.Redirects)
}

func canonicalRedirects(redirects []lb.Redirect) error {
	for _, r := range redirects {
		if protocols[r.Protocol] == 0 || r.From.Port() == 0 || r.To.Port() == 0 || r.From.Addr().Is4() != r.To.Addr().Is4() {
			return fmt.Errorf("redirect %s %s to %s: needs a protocol, two ports and one address family", r.Protocol, r.From, r.To)
		}
	}
	slices.SortFunc(redirects, compareRedirects)
	for i := 1; i < len(redirects); i++ {
		if compareRedirects(redirects[i-1], redirects[i]) == 0 {
			return fmt.Errorf("redirect %s %s: listed twice", redirects[i].Protocol, redirects[i].From)
		}
	}
	return nil
}

// compareForwards orders by what identifies a forward: the port, once per family
// or address.
func compareForwards(a, b lb.Forward) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.To.Addr().BitLen(), b.To.Addr().BitLen()), a.At.Compare(b.At))
}

func compareRedirects(a, b lb.Redirect) int {
	return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Protocol, b.Protocol))
}

// prepareLinks lets the namespace pass on forwarded packets, and lets the links
// that forwarded ports lead to carry flows that began at a loopback address.
func prepareLinks(t lb.Translation) error {
	var errs []error
	var targets []netip.Addr
	for _, f := range t.Forwards {
		targets = append(targets, f.To.Addr())
	}
	for _, r := range t.Redirects {
		if !r.To.Addr().IsLoopback() {
			targets = append(targets, r.To.Addr())
		}
	}
	for _, e := range t.Masquerade {
		errs = append(errs, netfilter.Forward(t.Namespace, netfilter.FamilyOf(e.Source.Addr())))
	}
	slices.SortFunc(targets, netip.Addr.Compare)
	for _, to := range slices.Compact(targets) {
		if to.IsLoopback() {
			continue
		}
		errs = append(errs, netfilter.Forward(t.Namespace, netfilter.FamilyOf(to)), netfilter.RouteLocal(t.Namespace, to))
	}
	return errors.Join(errs...)
}

// forgetForwards cuts the flows of ports whose target changed, and those that
// began before the port was forwarded.
func forgetForwards(t, have lb.Translation) error {
	target := map[lb.Forward]netip.AddrPort{}
	key := func(f lb.Forward) lb.Forward {
		return lb.Forward{Protocol: f.Protocol, Port: f.Port, At: f.At, To: netip.AddrPortFrom(netip.Addr{}, uint16(f.To.Addr().BitLen()))}
	}
	for _, f := range t.Forwards {
		target[key(f)] = f.To
	}
	// The servers that flows to a changed port may not have any more.
	stale := map[lb.Forward]netip.AddrPort{}
	for _, f := range have.Forwards {
		if target[key(f)] != f.To {
			stale[key(f)] = f.To
		}
		if target[key(f)] == f.To {
			delete(target, key(f))
		}
	}
	if len(stale)+len(target) == 0 {
		return nil
	}
	_, err := netfilter.Forget(t.Namespace, func(flow netfilter.Flow) bool {
		bits := uint16(flow.Dest.Addr().BitLen())
		k := lb.Forward{Protocol: protocolOf(flow.Protocol), Port: flow.Dest.Port(), To: netip.AddrPortFrom(netip.Addr{}, bits)}
		for _, k.At = range []netip.Addr{{}, flow.Dest.Addr()} {
			old, changed := stale[k]
			_, fresh := target[k]
			if changed && flow.Server == old || fresh && flow.Server == flow.Dest {
				return true
			}
		}
		return false
	})
	return err
}
