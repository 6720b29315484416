package fabric

import (
	"context"
	"net/netip"
)

// A task in the node's own network has no namespace, no address and no name server
// of ours: nothing is wired for it, and it is in no wish.

// acceptsOnHost says whether something on the node accepts connections on all of the
// TCP ports. A program may listen on loopback, on every address or on the node's
// alone; nobody is sent to it by what is answered here.
func (f *Fabric) acceptsOnHost(ctx context.Context, ports []uint16) bool {
	at := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if vtep := f.cfg.Self.VTEP; vtep.IsValid() {
		at = append(at, vtep)
	}
	for _, port := range ports {
		if !f.anyAccepts(ctx, at, port) {
			return false
		}
	}
	return true
}

func (f *Fabric) anyAccepts(ctx context.Context, at []netip.Addr, port uint16) bool {
	for _, addr := range at {
		if f.dials(ctx, "", netip.AddrPortFrom(addr, port)) {
			return true
		}
	}
	return false
}

// dials says whether a connection from inside the namespace is accepted.
func (f *Fabric) dials(ctx context.Context, namespace string, to netip.AddrPort) bool {
	conn, err := f.cfg.Namespaces.Dial(ctx, namespace, "tcp", to.String())
	return err == nil && conn.Close() == nil
}
