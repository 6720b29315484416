package netfilter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Flow is one tracked flow: where it was sent, and who answers.
type Flow struct {
	Protocol byte // IPPROTO_*
	Source   netip.AddrPort
	Dest     netip.AddrPort // as the client sent it
	Server   netip.AddrPort // the source of the replies
}

// matcher lets the netlink library ask about a flow.
type matcher func(Flow) bool

// MatchConntrackFlow is called by the library for each entry of the table.
func (m matcher) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return m(Flow{
		Protocol: f.Forward.Protocol,
		Source:   addrPort(f.Forward.SrcIP, f.Forward.SrcPort),
		Dest:     addrPort(f.Forward.DstIP, f.Forward.DstPort),
		Server:   addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort),
	})
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// interruptedMax bounds how often a listing that changed under the reader is read again.
const interruptedMax = 4

// Forget deletes the namespace's tracked flows that match, so that their next
// packet is judged as a new flow's first. It returns how many were deleted.
func Forget(namespace string, f Family, match func(Flow) bool) (int, error) {
	h, err := handle(namespace)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	total := 0
	for range interruptedMax {
		n, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(inetFamily(f)), matcher(match))
		total += int(n)
		if err == nil {
			return total, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return total, fmt.Errorf("forget flows in namespace %q: %w", namespace, err)
		}
	}
	return total, nil
}

func inetFamily(f Family) byte {
	if f.Proto == IPv4.Proto {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// handle opens netlink for conntrack in a namespace.
func handle(namespace string, families ...int) (*netlink.Handle, error) {
	if len(families) == 0 {
		families = []int{unix.NETLINK_NETFILTER}
	}
	if namespace == "" {
		return netlink.NewHandle(families...)
	}
	f, err := os.Open(namespace)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), families...)
	if err != nil {
		return nil, fmt.Errorf("open netlink in namespace %q: %w", namespace, err)
	}
	return h, nil
}
