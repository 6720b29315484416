package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
	"shoal/overlay/rtnl"
	"shoal/overlay/vxlan"
	"shoal/overlay/wglink"
	"shoal/overlay/wireguard"
)

// MTUs, in bytes: of the underlay, and inside what is put on top of it.
const (
	underlayMTU = 1500
	vxlanMTU    = underlayMTU - 50
	// espOverhead is SPI and sequence (8), IV (8), padding and its length (up to
	// 2 + 3 to a multiple of 4) and the tag (16).
	espOverhead = 40
)

// arm is one way from a client's namespace to a server's.
type arm struct {
	name     string
	from, to string     // namespaces
	addr     netip.Addr // the server's
}

// scene holds what is to be taken away at the end.
type scene struct {
	dir     string
	paths   []string
	kernels []*rtnl.Kernel
}

func (s *scene) close() error {
	var errs []error
	for _, k := range s.kernels {
		errs = append(errs, k.Close())
	}
	for _, path := range s.paths {
		errs = append(errs, netns.Delete(path))
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

func (s *scene) space(name string) (string, error) {
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "shoal-crypt-")
		if err != nil {
			return "", err
		}
		s.dir = dir
	}
	path := filepath.Join(s.dir, name)
	s.paths = append(s.paths, path)
	return path, netns.Create(path)
}

// underlayAddr is the address of host 1 or 2 of an arm.
func underlayAddr(host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, byte(host)}) }

// hosts makes two hosts joined by a veth pair.
func (s *scene) hosts(name string) (hosts [2]string, err error) {
	for i := range hosts {
		if hosts[i], err = s.space(fmt.Sprintf("%s-h%d", name, i+1)); err != nil {
			return hosts, err
		}
	}
	other, err := netns.Open(hosts[1])
	if err != nil {
		return hosts, err
	}
	defer other.Close()
	err = netns.Do(hosts[0], func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "under", underlayMTU
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerNamespace = "under", netlink.NsFd(other.Fd())
		return netlink.LinkAdd(veth)
	})
	for i := range hosts {
		if err != nil {
			return hosts, err
		}
		err = netns.Do(hosts[i], func() error {
			return errors.Join(up("lo"), up("under"), addAddr("under", netip.PrefixFrom(underlayAddr(i+1), 24)))
		})
	}
	return hosts, err
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func addAddr(name string, p netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	ipnet := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: ipnet})
}

// overlay makes an overlay network with a task on each host, as the product does.
func (s *scene) overlay(ctx context.Context, name string, hosts [2]string, mtu int, at func(host int) (underlay string, addr netip.Addr)) (*arm, error) {
	a := &arm{name: name, addr: taskAddr(2)}
	for i := range hosts {
		task, err := s.space(fmt.Sprintf("%s-task%d", name, i+1))
		if err != nil {
			return nil, err
		}
		if i == 0 {
			a.from = task
		} else {
			a.to = task
		}
		path := filepath.Join(s.dir, fmt.Sprintf("%s-net%d", name, i+1))
		s.paths = append(s.paths, path)
		underlay, local := at(i + 1)
		_, remote := at(2 - i)
		d := vxlan.Desired{
			Networks: []vxlan.Network{{
				ID: name, Namespace: path, VNI: 4097, Underlay: underlay, Local: local, Port: 4789, MTU: mtu,
				Subnets: []netip.Prefix{netip.MustParsePrefix("10.98.0.0/24")},
				Peers:   []vxlan.Peer{{Addrs: []netip.Addr{taskAddr(2 - i)}, MAC: taskMAC(2 - i), VTEP: remote}},
			}},
			Sandboxes: []vxlan.Sandbox{{ID: name, Namespace: task, Interfaces: []vxlan.Interface{{
				Name: "eth0", NetworkID: name, MAC: taskMAC(i + 1), MTU: mtu, Addrs: []netip.Prefix{netip.PrefixFrom(taskAddr(i+1), 24)},
			}}}},
		}
		k, err := rtnl.New(rtnl.Config{Host: hosts[i]})
		if err != nil {
			return nil, err
		}
		s.kernels = append(s.kernels, k)
		actual, err := k.Read(ctx, d)
		if err == nil {
			err = k.Apply(ctx, vxlan.Plan(d, actual))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return a, nil
}

func taskAddr(host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 98, 0, byte(host)}) }
func taskMAC(host int) string      { return fmt.Sprintf("02:42:0a:62:00:%02x", host) }

func (s *scene) clear(ctx context.Context) (*arm, error) {
	hosts, err := s.hosts("clear")
	if err != nil {
		return nil, err
	}
	return s.overlay(ctx, "clear", hosts, vxlanMTU, func(host int) (string, netip.Addr) { return "", underlayAddr(host) })
}

// tunnels makes a WireGuard device in a namespace of each host.
func (s *scene) tunnels(ctx context.Context, hosts, vaults [2]string) error {
	var private [2]wireguard.Private
	var public [2]wireguard.Key
	for i := range private {
		var err error
		if private[i], err = wireguard.NewPrivate(rand.Reader); err != nil {
			return err
		}
		if public[i], err = private[i].Public(); err != nil {
			return err
		}
	}
	for i := range hosts {
		other := 1 - i
		k := &wglink.Kernel{Host: hosts[i], Path: vaults[i]}
		err := k.Apply(ctx, []wireguard.Op{
			wireguard.SetLoopback{}, wireguard.SetAddr{Addr: wireguard.Addr(uint32(i + 1))},
			wireguard.AddDevice{Name: "wg0", MTU: underlayMTU - wireguard.Overhead(underlayAddr(1))},
			wireguard.SetDevice{Name: "wg0", Port: wireguard.BasePort, Private: private[i], Up: true},
			wireguard.SetPeer{Device: "wg0", Key: public[other], Addr: wireguard.Addr(uint32(other + 1)), Active: true,
				Endpoint: netip.AddrPortFrom(underlayAddr(other+1), wireguard.BasePort)},
			wireguard.SetRoute{Route: wireguard.Route{Addr: wireguard.Addr(uint32(other + 1)), Device: "wg0"}},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *scene) wireguard(ctx context.Context) (*arm, error) {
	hosts, err := s.hosts("wireguard")
	if err == nil {
		err = s.tunnels(ctx, hosts, hosts)
	}
	return &arm{"wireguard", hosts[0], hosts[1], wireguard.Addr(2)}, err
}

func (s *scene) shoal(ctx context.Context) (*arm, error) {
	hosts, err := s.hosts("shoal")
	if err != nil {
		return nil, err
	}
	var vaults [2]string
	for i := range vaults {
		if vaults[i], err = s.space(fmt.Sprintf("shoal-vault%d", i+1)); err != nil {
			return nil, err
		}
	}
	if err := s.tunnels(ctx, hosts, vaults); err != nil {
		return nil, err
	}
	mtu := vxlanMTU - wireguard.Overhead(underlayAddr(1))
	return s.overlay(ctx, "shoal", hosts, mtu, func(host int) (string, netip.Addr) {
		return vaults[host-1], wireguard.Addr(uint32(host))
	})
}

// protect makes all UDP or TCP between the hosts of an arm ESP in transport mode,
// AES-128-GCM as RFC 4106 has it.
func protect(hosts [2]string, proto netlink.Proto) error {
	var keys [2][20]byte // one for each direction: a counter is used once with a key
	for i := range keys {
		if _, err := rand.Read(keys[i][:]); err != nil {
			return err
		}
	}
	for _, host := range hosts {
		err := netns.Do(host, func() error {
			var errs []error
			for from := 1; from <= 2; from++ {
				errs = append(errs, addState(from, keys[from-1][:]), addPolicy(host == hosts[from-1], from, proto))
			}
			return errors.Join(errs...)
		})
		if err != nil {
			return fmt.Errorf("ESP: %w", err)
		}
	}
	return nil
}

func addState(from int, key []byte) error {
	return netlink.XfrmStateAdd(&netlink.XfrmState{
		Src: underlayAddr(from).AsSlice(), Dst: underlayAddr(3 - from).AsSlice(), Proto: netlink.XFRM_PROTO_ESP,
		Mode: netlink.XFRM_MODE_TRANSPORT, Spi: 0x1000 + from, ReplayWindow: 32,
		Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: key, ICVLen: 128},
	})
}

func addPolicy(out bool, from int, proto netlink.Proto) error {
	dir := netlink.XFRM_DIR_IN
	if out {
		dir = netlink.XFRM_DIR_OUT
	}
	src, dst := underlayAddr(from).AsSlice(), underlayAddr(3-from).AsSlice()
	all := net.CIDRMask(32, 32)
	return netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{
		Src: &net.IPNet{IP: src, Mask: all}, Dst: &net.IPNet{IP: dst, Mask: all}, Proto: proto, Dir: dir,
		Tmpls: []netlink.XfrmPolicyTmpl{{Src: src, Dst: dst, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TRANSPORT, Spi: 0x1000 + from}},
	})
}

func (s *scene) esp(context.Context) (*arm, error) {
	hosts, err := s.hosts("esp")
	if err == nil {
		err = protect(hosts, unix.IPPROTO_TCP)
	}
	return &arm{"esp", hosts[0], hosts[1], underlayAddr(2)}, err
}

func (s *scene) vxlanESP(ctx context.Context) (*arm, error) {
	hosts, err := s.hosts("vxlan-esp")
	if err == nil {
		err = protect(hosts, unix.IPPROTO_UDP)
	}
	if err != nil {
		return nil, err
	}
	return s.overlay(ctx, "vxlan-esp", hosts, vxlanMTU-espOverhead, func(host int) (string, netip.Addr) { return "", underlayAddr(host) })
}
