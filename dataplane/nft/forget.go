package nft

import (
	"net/netip"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// forget cuts the flows that the changes made wrong: those to a changed front
// whose server is not one of its backends any more. A flow that began while the
// front was not balanced is one of them.
func forget(wish lb.Desired, ops []lb.Op) error {
	changed := map[netfilter.Family]bool{}
	stale := map[lb.Front]bool{}
	for _, op := range ops {
		switch op.Kind {
		case lb.AddService, lb.RemoveService, lb.RemoveBackend:
			stale[op.Service.Front] = true
			changed[netfilter.FamilyOf(op.Service.Addr)] = true
		}
	}
	current := map[lb.Front]lb.Service{}
	for _, s := range wish.Services {
		current[s.Front] = s
	}
	for f := range changed {
		if _, err := netfilter.Forget(wish.Namespace, f, func(flow netfilter.Flow) bool {
			return isStale(flow, stale, current)
		}); err != nil {
			return err
		}
	}
	return nil
}

// isStale says whether a flow belongs to a changed front and has a server that
// this front has not.
func isStale(flow netfilter.Flow, stale map[lb.Front]bool, current map[lb.Front]lb.Service) bool {
	port := lb.Front{Addr: flow.Dest.Addr(), Port: flow.Dest.Port(), Protocol: protocolOf(flow.Protocol)}
	all := lb.Front{Addr: flow.Dest.Addr()}
	if !stale[port] && !stale[all] {
		return false
	}
	s, ok := current[port]
	if !ok {
		s, ok = current[all]
	}
	return !ok || !serves(s, flow.Server)
}

func serves(s lb.Service, server netip.AddrPort) bool {
	for _, b := range s.Backends {
		if b.Addr == server.Addr() && (b.Port == 0 || b.Port == server.Port()) {
			return true
		}
	}
	return false
}
