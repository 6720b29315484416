package netfilter

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

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

// RouteLocal lets the link that leads to an address carry flows that a process
// of the namespace began at 127.0.0.0/8.
func RouteLocal(namespace string, to netip.Addr) error {
	h, err := handle(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	routes, err := h.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return fmt.Errorf("find the route to %s in namespace %q: %w", to, namespace, err)
	}
	link, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return fmt.Errorf("find the link to %s in namespace %q: %w", to, namespace, err)
	}
	_, err = Sysctl(namespace, "net/ipv4/conf/"+link.Attrs().Name+"/route_localnet", "1")
	return err
}
