package nft

import (
	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// forget cuts the flows that the changes made wrong.
func forget(wish lb.Desired, ops []lb.Op) error {
	stale, changed := lb.Stale(wish, ops)
	families := map[byte]netfilter.Family{}
	for _, front := range changed {
		f := netfilter.FamilyOf(front.Addr)
		families[f.Proto] = f
	}
	for _, f := range families {
		if _, err := netfilter.Forget(wish.Namespace, f, func(flow netfilter.Flow) bool {
			return stale(lb.Flow{Protocol: protocolOf(flow.Protocol), Dest: flow.Dest, Server: flow.Server})
		}); err != nil {
			return err
		}
	}
	return nil
}
