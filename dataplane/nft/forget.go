package nft

import (
	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// forget cuts the flows that the changes made wrong.
func forget(wish lb.Desired, ops []lb.Op) error {
	stale, changed := lb.Stale(wish, ops)
	if len(changed) == 0 {
		return nil
	}
	_, err := netfilter.Forget(wish.Namespace, func(flow netfilter.Flow) bool {
		return stale(lb.Flow{Protocol: protocolOf(flow.Protocol), Dest: flow.Dest, Server: flow.Server})
	})
	return err
}
