package rtnl

import (
	"fmt"
	"io/fs"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/vxlan"
)

func TestAddressesOfLoopback(t *testing.T) {
	if got, err := InterfaceAddrs("lo"); err == nil {
		t.Errorf("the loopback has addresses for other machines: %v", got)
	}
	if _, err := InterfaceAddrs("no-such-link"); err == nil {
		t.Error("a missing interface has addresses")
	}
	if mtu, err := DataPathMTU(netip.MustParseAddr("127.0.0.1")); err != nil || mtu < 1500 {
		t.Errorf("MTU of the loopback: %d, %v", mtu, err)
	}
	if _, err := DataPathMTU(netip.MustParseAddr("192.0.2.1")); err == nil {
		t.Error("an address that nobody has lies on a link")
	}
}

func TestUsableAddresses(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.1": true, "169.254.1.1": true, "2001:db8::1": true, "fd00::1": true,
		"127.0.0.1": false, "::1": false, "fe80::1": false, "0.0.0.0": false, "224.0.0.1": false,
	} {
		if got := usable(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestDeletionsOfOneNamespaceGoTogether(t *testing.T) {
	a, b := vxlan.DelLink{Namespace: "a"}, vxlan.DelLink{Namespace: "b"}
	for _, c := range []struct {
		ops  []vxlan.Op
		want int
	}{
		{[]vxlan.Op{a}, 1},
		{[]vxlan.Op{a, a, a}, 3},
		{[]vxlan.Op{a, a, b, a}, 2},
		{[]vxlan.Op{a, vxlan.DelNamespace{Path: "a"}, a}, 1},
	} {
		if got := deletions(c.ops); got != c.want {
			t.Errorf("%v: %d together, want %d", c.ops, got, c.want)
		}
	}
}

func TestGoneIsSuccessOfADeletion(t *testing.T) {
	for _, err := range []error{nil, fs.ErrNotExist, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL, fmt.Errorf("x: %w", netlink.LinkNotFoundError{})} {
		if gone(err) != nil {
			t.Errorf("%v is no success", err)
		}
	}
	for _, err := range []error{unix.EPERM, unix.EBUSY, unix.EINVAL} {
		if gone(err) == nil {
			t.Errorf("%v is a success", err)
		}
	}
}
