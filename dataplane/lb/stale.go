package lb

import "net/netip"

// Flow is a tracked flow as a balancer sees it: where the client sent it, and
// which server answers.
type Flow struct {
	Protocol Protocol
	Dest     netip.AddrPort
	Server   netip.AddrPort
}

// Stale returns what tells the flows that ops made wrong, for the state wish
// that they led to: those to a changed front whose server is not one of its
// backends. A flow that began while the front was not balanced is one of them;
// one to a draining backend is not. changed lists the fronts it depends on; none
// means that no flow can be stale.
func Stale(wish Desired, ops []Op) (stale func(Flow) bool, changed []Front) {
	suspect := map[Front]bool{}
	for _, op := range ops {
		switch op.Kind {
		case AddService, RemoveService, RemoveBackend:
			if !suspect[op.Service.Front] {
				changed = append(changed, op.Service.Front)
			}
			suspect[op.Service.Front] = true
		}
	}
	current := make(map[Front]Service, len(wish.Services))
	for _, s := range wish.Services {
		current[s.Front] = s
	}
	return func(f Flow) bool {
		port := Front{Addr: f.Dest.Addr(), Port: f.Dest.Port(), Protocol: f.Protocol}
		every := Front{Addr: f.Dest.Addr()}
		if !suspect[port] && !suspect[every] {
			return false
		}
		s, ok := current[port]
		if !ok {
			s, ok = current[every]
		}
		return !ok || !s.serves(f.Server)
	}, changed
}

func (s Service) serves(server netip.AddrPort) bool {
	for _, b := range s.Backends {
		if b.Addr == server.Addr() && (b.Port == 0 || b.Port == server.Port()) {
			return true
		}
	}
	return false
}
