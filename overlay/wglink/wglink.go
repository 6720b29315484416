// Package wglink is the kernel side of the vault: it reads and changes the
// namespace in which the VXLAN sockets of encrypted networks live, with its
// WireGuard devices, their peers, addresses and routes, as overlay/wireguard
// planned. Devices are spoken to over generic netlink (family wireguard,
// include/uapi/linux/wireguard.h).
//
// Everything in the vault is Shoal's: a link that nobody wished for is named, to
// be deleted. Nothing outside the vault is touched but the devices' UDP sockets,
// which the kernel opens in the node's own namespace.
//
// The package decides nothing, and no private key that it reads leaves it.
package wglink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
	"shoal/overlay/wireguard"
)

// ErrMissing is wrapped by the errors of Probe.
var ErrMissing = errors.New("the kernel has no WireGuard")

// Probe returns nil, or why this kernel cannot encrypt networks. It makes a
// device in a namespace of its own, which loads the module where there is one.
func Probe(context.Context) error {
	return netns.Scratch(func(path string) error {
		err := netns.Do(path, func() error {
			return netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs("probe", 0)})
		})
		if err == nil {
			_, err = netlink.GenlFamilyGet(unix.WG_GENL_NAME)
		}
		if err != nil {
			err = fmt.Errorf("%w (module wireguard, Linux 5.6 or newer): %w", ErrMissing, err)
		}
		return err
	})
}

// Kernel reads and changes one node's vault.
type Kernel struct {
	// Host is the node's own namespace, "" for the process's own.
	Host string
	// Path is where the vault is mounted.
	Path string
}

// space is an open namespace with sockets inside.
type space struct {
	ns      *netns.Handle
	route   *netlink.Handle
	generic *nl.NetlinkSocket
}

func open(path string) (*space, error) {
	ns, err := netns.Open(path)
	if err != nil {
		return nil, err
	}
	s := &space{ns: ns}
	err = ns.Do(func() error {
		var err error
		if s.route, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		s.generic, err = nl.Subscribe(unix.NETLINK_GENERIC)
		return err
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *space) close() {
	if s.route != nil {
		s.route.Close()
	}
	if s.generic != nil {
		s.generic.Close()
	}
	s.ns.Close()
}

// Read returns what the vault holds now.
func (k *Kernel) Read(ctx context.Context) (wireguard.Actual, error) {
	var a wireguard.Actual
	if !netns.Exists(k.Path) {
		return a, ctx.Err()
	}
	s, err := open(k.Path)
	if err != nil {
		return a, fmt.Errorf("open the vault: %w", err)
	}
	defer s.close()
	a = wireguard.Actual{Exists: true, Sysctls: map[string]string{}, Devices: map[string]wireguard.State{}}
	for _, step := range []func(*wireguard.Actual) error{s.readLinks, s.readAddrs, s.readRoutes, s.readSysctls} {
		if err := errors.Join(ctx.Err(), step(&a)); err != nil {
			return a, fmt.Errorf("read the vault: %w", err)
		}
	}
	return a, nil
}

func (s *space) readLinks(a *wireguard.Actual) error {
	links, err := s.route.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		l := link.Attrs()
		up := l.Flags&net.FlagUp != 0
		switch {
		case l.Flags&net.FlagLoopback != 0:
			a.Loopback = up
		case link.Type() == "wireguard":
			state, err := s.device(l.Name)
			if err != nil {
				return fmt.Errorf("device %s: %w", l.Name, err)
			}
			state.MTU, state.Up = l.MTU, up
			a.Devices[l.Name] = state
		default:
			a.Others = append(a.Others, l.Name)
		}
	}
	return nil
}

func (s *space) readAddrs(a *wireguard.Actual) error {
	lo, err := s.route.LinkByName("lo")
	if err != nil {
		return err
	}
	addrs, err := s.route.AddrList(lo, netlink.FAMILY_V4)
	for _, addr := range addrs {
		if ip, ok := netip.AddrFromSlice(addr.IP); ok && !ip.Unmap().IsLoopback() {
			a.Addrs = append(a.Addrs, ip.Unmap())
		}
	}
	return err
}

// readRoutes lists the host routes of the main table through devices.
func (s *space) readRoutes(a *wireguard.Actual) error {
	routes, err := s.route.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	for _, r := range routes {
		link, err := s.route.LinkByIndex(r.LinkIndex)
		if err != nil || r.Dst == nil {
			continue // gone with its link since, or no route that we make
		}
		if dst, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			a.Routes = append(a.Routes, wireguard.Route{Addr: dst.Unmap(), Device: link.Attrs().Name})
		}
	}
	return nil
}

func (s *space) readSysctls(a *wireguard.Actual) error {
	return s.ns.Do(func() error {
		for _, key := range wireguard.Sysctls() {
			value, err := os.ReadFile(sysctlFile(key))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			a.Sysctls[key] = strings.TrimSpace(string(value))
		}
		return nil
	})
}

// sysctlFile is where the calling thread's namespace keeps a setting.
func sysctlFile(key string) string { return "/proc/sys/" + strings.ReplaceAll(key, ".", "/") }

func attrs(name string, mtu int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = name, mtu
	return a
}
