// Package sockdiag reads the state of TCP sockets in a network namespace from the
// kernel (sock_diag(7)). It changes nothing.
package sockdiag

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
)

// Unheard counts the connections to listening sockets in the namespace at path of
// whose clients the program has heard nothing yet, though it may: the handshake is
// not over, or whatever has come lies unread. Those that the program has sent to do
// not count: there the server speaks first. It fails where the namespace is gone or
// the kernel has no sock_diag for TCP.
func Unheard(path string) (count int, err error) {
	var sockets []*netlink.InetDiagTCPInfoResp
	err = netns.Do(path, func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			found, err := netlink.SocketDiagTCPInfo(family)
			// A dump that others' changes interrupted still shows most of it.
			if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
				return err
			}
			sockets = append(sockets, found...)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("list tcp sockets in network namespace %q: %w", path, err)
	}
	return unheard(sockets), nil
}

func unheard(sockets []*netlink.InetDiagTCPInfoResp) (count int) {
	listening := map[uint16]bool{}
	for _, s := range sockets {
		if s.InetDiagMsg.State == netlink.TCP_LISTEN {
			listening[s.InetDiagMsg.ID.SourcePort] = true
		}
	}
	for _, s := range sockets {
		if listening[s.InetDiagMsg.ID.SourcePort] && waits(s) {
			count++
		}
	}
	return count
}

// waits says whether the client of a connection waits to be heard for the first time.
func waits(s *netlink.InetDiagTCPInfoResp) bool {
	switch s.InetDiagMsg.State {
	case netlink.TCP_SYN_RECV:
		return true
	case netlink.TCP_ESTABLISHED, netlink.TCP_CLOSE_WAIT:
		i := s.TCPInfo
		return i != nil && i.Bytes_sent == 0 && uint64(s.InetDiagMsg.RQueue) >= i.Bytes_received
	}
	return false
}
