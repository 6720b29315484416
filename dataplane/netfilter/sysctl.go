package netfilter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
)

// Sysctl sets one value below /proc/sys, as the namespace sees it; key is the
// path, as "net/ipv4/ip_forward". It says whether the value was another before.
func Sysctl(namespace, key, value string) (changed bool, err error) {
	err = netns.Do(namespace, func() error {
		file := filepath.Join("/proc/sys", key)
		have, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(have)) == value {
			return nil
		}
		changed = true
		return os.WriteFile(file, []byte(value), 0o644)
	})
	if err != nil {
		return false, fmt.Errorf("set sysctl %s to %s in namespace %q: %w", key, value, namespace, err)
	}
	return changed, nil
}

// Forward lets the namespace pass on packets of the family.
func Forward(namespace string, f Family) error {
	key := "net/ipv4/ip_forward"
	if f.Proto == IPv6.Proto {
		key = "net/ipv6/conf/all/forwarding"
	}
	_, err := Sysctl(namespace, key, "1")
	return err
}

// loopbackMetric is of the routes that RouteLocal makes: beyond the kernel's own.
const loopbackMetric = 4096

// RouteLocal lets the link that leads to an address carry flows that a process of
// the namespace began at 127.0.0.0/8 or, towards an IPv6 address, at ::1. For IPv6
// there is no setting for it: a packet for ::1 must be routed by the link it came
// in by, so that link gets a route of its own. What outsiders send for ::1 the
// kernel drops before it looks at routes.
func RouteLocal(namespace string, to netip.Addr) error {
	h, err := routing(namespace)
	if err != nil {
		return err
	}
	defer h.Close()
	routes, err := h.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return fmt.Errorf("find the route to %s in namespace %q: %w", to, namespace, err)
	}
	if to.Is6() {
		return routeLoopback(h, namespace, routes[0].LinkIndex)
	}
	link, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return fmt.Errorf("find the link to %s in namespace %q: %w", to, namespace, err)
	}
	_, err = Sysctl(namespace, "net/ipv4/conf/"+link.Attrs().Name+"/route_localnet", "1")
	return err
}

// routeLoopback adds a route to ::1 by the link, unless it is there.
func routeLoopback(h *netlink.Handle, namespace string, link int) error {
	route := &netlink.Route{
		Dst:       &net.IPNet{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		LinkIndex: link, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Priority: loopbackMetric, Protocol: unix.RTPROT_STATIC,
	}
	// Appended, since links share the destination and the metric.
	if err := h.RouteAppend(route); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("lead ::1 to link %d in namespace %q: %w", link, namespace, err)
	}
	return nil
}

// routing opens rtnetlink in a namespace.
func routing(namespace string) (*netlink.Handle, error) {
	if namespace == "" {
		return netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	f, err := os.Open(namespace)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	h, err := netlink.NewHandleAt(vns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in namespace %q: %w", namespace, err)
	}
	return h, nil
}
