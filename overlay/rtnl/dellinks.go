package rtnl

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"shoal/overlay/vxlan"
)

// doomed is the link group that links are put into to be deleted together. The
// kernel waits some ten milliseconds for its readers at every deletion, once
// for a whole group (IFLA_GROUP in rtnetlink(7)).
const doomed = 0x53686f61

// deletions returns how many operations from the first on delete links of one
// namespace.
func deletions(ops []vxlan.Op) (count int) {
	for _, op := range ops {
		del, ok := op.(vxlan.DelLink)
		if !ok || del.Namespace != ops[0].(vxlan.DelLink).Namespace {
			break
		}
		count++
	}
	return count
}

// delLinks deletes several links of one namespace at once. Those that are gone
// already are passed over.
func (k *Kernel) delLinks(ops []vxlan.Op) error {
	first := ops[0].(vxlan.DelLink)
	s, err := k.open(first.Namespace)
	if err != nil {
		return gone(err)
	}
	marked := false
	for _, op := range ops {
		name := op.(vxlan.DelLink).Name
		err := k.on(first.Namespace, name, func(s *space, index int) error {
			delete(s.index, name)
			return s.netlink.LinkSetGroup(byIndex(index), doomed)
		})
		if gone(err) != nil {
			return err
		}
		marked = marked || err == nil
	}
	if !marked {
		return nil
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s.socket}
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(doomed)))
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	return gone(err)
}
