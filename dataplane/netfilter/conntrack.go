package netfilter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Flow is one tracked flow: where it was sent, and who answers.
type Flow struct {
	Protocol byte // IPPROTO_*
	Source   netip.AddrPort
	Dest     netip.AddrPort // as the client sent it
	Server   netip.AddrPort // the source of the replies
}

// Forget deletes the namespace's tracked flows that match, so that their next
// packet is judged as a new flow's first. It returns how many were deleted. The
// kernel keeps the flows of all namespaces in one table and walks the whole of it
// for every reading, so both families are read at once, and a namespace without
// flows not at all.
func Forget(namespace string, match func(Flow) bool) (forgotten int, err error) {
	err = withFlows(namespace, func(conn *netlink.Conn, messages []netlink.Message) error {
		for _, m := range messages {
			t, err := parseFlow(m.Data)
			if err != nil || !match(t.Flow) {
				continue
			}
			_, err = conn.Execute(netlink.Message{
				Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | ctDelete, Flags: netlink.Request | netlink.Acknowledge},
				Data:   naming(m.Data),
			})
			switch {
			case err == nil:
				forgotten++
			case !errors.Is(err, unix.ENOENT): // it ended by itself
				return fmt.Errorf("forget the flow from %s to %s: %w", t.Source, t.Dest, err)
			}
		}
		return nil
	})
	if err != nil {
		return forgotten, fmt.Errorf("forget flows in namespace %q: %w", namespace, err)
	}
	return forgotten, nil
}

// naming cuts a flow's message down to what names the flow: its original
// direction, which holds that direction's zone, its zone and its number, by which
// a later flow that looks alike is another one.
func naming(msg []byte) []byte {
	const header = 4 // struct nfgenmsg
	out := slices.Clone(msg[:header])
	wholeAttributes(msg[header:], func(kind uint16, whole []byte) {
		if kind == ctaOriginal || kind == ctaZone || kind == ctaID {
			out = append(out, whole...)
		}
	})
	return out
}
