//go:build lab

package wglink

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
	"shoal/overlay/rtnl"
	"shoal/overlay/vxlan"
	"shoal/overlay/wireguard"
)

// Two networks of a node: one that is encrypted and one that is not.
const (
	sealedVNI = 4097
	openVNI   = 4098
	taskPort  = 9000
)

// mark is what tasks say, alien what comes in frames that no node sent.
var (
	mark  = []byte("said by a task, 7f3a9c51e2")
	alien = []byte("put on the wire by somebody")
)

// taskAddr is the address of a node's task on a network.
func taskAddr(vni int, number uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(vni - 4000), 0, byte(number)})
}

func taskMAC(vni int, number uint32) string {
	return fmt.Sprintf("02:42:0a:%02x:00:%02x", vni-4000, number)
}

func (n *node) task() string {
	return filepath.Join(filepath.Dir(n.host), fmt.Sprintf("task%d", n.number))
}

// networks gives the node a task on both networks.
func (n *node) networks(other *node) {
	n.t.Helper()
	must(n.t, netns.Create(n.task()))
	box := vxlan.Sandbox{ID: "task", Namespace: n.task()}
	var d vxlan.Desired
	for i, vni := range []int{sealedVNI, openVNI} {
		net := vxlan.Network{ID: fmt.Sprint(vni), Namespace: filepath.Join(filepath.Dir(n.host), fmt.Sprintf("net%d-%d", vni, n.number)),
			VNI: uint32(vni), Underlay: n.Path, Local: wireguard.Addr(n.number), Port: 4789, MTU: 1390}
		vtep := wireguard.Addr(other.number)
		if vni == openVNI {
			net.Underlay, net.Local, vtep = "", n.underlay(), other.underlay()
		}
		net.Peers = []vxlan.Peer{{Addrs: []netip.Addr{taskAddr(vni, other.number)}, MAC: taskMAC(vni, other.number), VTEP: vtep}}
		d.Networks = append(d.Networks, net)
		box.Interfaces = append(box.Interfaces, vxlan.Interface{Name: fmt.Sprintf("eth%d", i), NetworkID: net.ID, MTU: 1390,
			MAC: taskMAC(vni, n.number), Addrs: []netip.Prefix{netip.PrefixFrom(taskAddr(vni, n.number), 24)}})
		n.t.Cleanup(func() { _ = netns.Delete(net.Namespace) })
	}
	n.t.Cleanup(func() { _ = netns.Delete(n.task()) })
	d.Sandboxes = []vxlan.Sandbox{box}
	k, err := rtnl.New(rtnl.Config{Host: n.host})
	must(n.t, err)
	n.t.Cleanup(func() { k.Close() })
	actual, err := k.Read(n.t.Context(), d)
	must(n.t, err)
	must(n.t, k.Apply(n.t.Context(), vxlan.Plan(d, actual)))
	if actual, err = k.Read(n.t.Context(), d); err != nil || len(vxlan.Plan(d, actual)) != 0 {
		n.t.Fatalf("left to do: %v, %v", vxlan.Plan(d, actual), err)
	}
}

// listens returns what a task takes at the port of its address on a network.
func (n *node) listens(vni int) <-chan []byte {
	n.t.Helper()
	conn, err := netns.ListenPacket(n.t.Context(), n.task(), "udp4", netip.AddrPortFrom(taskAddr(vni, n.number), taskPort).String())
	must(n.t, err)
	n.t.Cleanup(func() { conn.Close() })
	heard := make(chan []byte, 1024)
	go func() {
		for {
			buf := make([]byte, 2048)
			k, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			heard <- buf[:k]
		}
	}()
	return heard
}

// says has a task send to another until it is heard, for so long.
func (n *node) says(other *node, vni int, heard <-chan []byte, patience time.Duration) bool {
	n.t.Helper()
	conn, err := netns.Dial(n.t.Context(), n.task(), "udp4", netip.AddrPortFrom(taskAddr(vni, other.number), taskPort).String())
	must(n.t, err)
	defer conn.Close()
	said.Add(1)
	words := fmt.Appendf(slices.Clone(mark), " for the %d. time", said.Load())
	for end := time.Now().Add(patience); time.Now().Before(end); {
		_, _ = conn.Write(words)
		if hears(heard, words, 100*time.Millisecond) {
			return true
		}
	}
	return false
}

// said makes what is said different each time.
var said atomic.Int64

// hears waits for the words, whatever else comes.
func hears(heard <-chan []byte, words []byte, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case got := <-heard:
			if bytes.Equal(got, words) {
				return true
			}
		case <-timer.C:
			return false
		}
	}
}

// tap listens on a host's link to the other, and returns a function that says
// how many frames came since the last call, and how many of them held the mark.
func (n *node) tap() func() (frames, clear int) {
	n.t.Helper()
	fd := -1
	must(n.t, netns.Do(n.host, func() error {
		link, err := netlink.LinkByName("under")
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL>>8 | (unix.ETH_P_ALL&0xff)<<8 // network byte order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index})
	}))
	n.t.Cleanup(func() { unix.Close(fd) })
	return func() (frames, clear int) {
		buf := make([]byte, 1<<16)
		for {
			k, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return frames, clear
			}
			frames++
			if bytes.Contains(buf[:k], mark) {
				clear++
			}
		}
	}
}

// frame is a datagram to a task in a frame of a network, RFC 7348.
func frame(vni int, to uint32) []byte {
	dst, src := taskAddr(vni, to), taskAddr(vni, 200)
	hw, _ := net.ParseMAC(taskMAC(vni, to))
	strange, _ := net.ParseMAC(taskMAC(vni, 200))
	ip := []byte{0x45, 0, 0, byte(28 + len(alien)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, src.AsSlice()...), dst.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := binary.BigEndian.AppendUint16([]byte{0x30, 0x39}, taskPort)
	udp = append(udp, 0, byte(8+len(alien)), 0, 0) // no checksum
	outer := []byte{8, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}
	return slices.Concat(outer, hw, strange, []byte{8, 0}, ip, udp, alien)
}

// intrudes puts frames of both networks on the wire to another host. Those of the
// open network arrive, which shows that they are right; of the encrypted one none.
func (n *node) intrudes(other *node, sealed, open <-chan []byte) {
	n.t.Helper()
	intruder, err := netns.Dial(n.t.Context(), n.host, "udp4", netip.AddrPortFrom(other.underlay(), 4789).String())
	must(n.t, err)
	defer intruder.Close()
	for range 3 {
		for _, vni := range []int{sealedVNI, openVNI} {
			_, err := intruder.Write(frame(vni, other.number))
			must(n.t, err)
		}
	}
	for range 3 { // those of the open network show that the frames are right
		if !hears(open, alien, 10*time.Second) {
			n.t.Fatal("a frame of the open network does not arrive")
		}
	}
	if hears(sealed, alien, 100*time.Millisecond) {
		n.t.Error("a task of the encrypted network took a frame that came in the clear")
	}
}

// bare makes a vault without any device.
func (n *node) bare() {
	n.t.Helper()
	must(n.t, n.Apply(n.t.Context(), []wireguard.Op{
		wireguard.AddVault{Path: n.Path}, wireguard.SetLoopback{}, wireguard.SetAddr{Addr: wireguard.Addr(n.number)}}))
}

// TestAVaultWithoutDevicesIsSilent: without any WireGuard device, as before the
// first one is made or on a kernel that has none, nothing of an encrypted network
// leaves the node, and nothing of it is taken.
func TestAVaultWithoutDevicesIsSilent(t *testing.T) {
	nodes := hosts(t)
	a, b := nodes[0], nodes[1]
	a.bare()
	b.bare()
	a.networks(b)
	b.networks(a)
	sealed, open := b.listens(sealedVNI), b.listens(openVNI)
	wire := a.tap()
	if !a.says(b, openVNI, open, 20*time.Second) {
		t.Fatal("the open network does not work")
	}
	if frames, clear := wire(); clear == 0 {
		t.Fatalf("of %d frames of the open network none is seen to be in the clear", frames)
	}
	if a.says(b, sealedVNI, sealed, time.Second) {
		t.Error("the encrypted network works")
	}
	if frames, clear := wire(); clear != 0 {
		t.Errorf("%d of %d frames are in the clear", clear, frames)
	}
	a.intrudes(b, sealed, open)
}

// TestNothingInTheClear: what tasks of an encrypted network say is on no wire as
// they said it, whatever is missing; and what is on the wire in the clear for
// such a network reaches no task.
func TestNothingInTheClear(t *testing.T) {
	nodes := pair(t)
	a, b := nodes[0], nodes[1]
	b.converge(b.wish(a, 7))
	a.converge(a.wish(b, 7))
	a.networks(b)
	b.networks(a)
	sealed, open := b.listens(sealedVNI), b.listens(openVNI)
	wire := a.tap()
	if !a.says(b, openVNI, open, 20*time.Second) {
		t.Fatal("the open network does not work")
	}
	if frames, clear := wire(); clear == 0 {
		t.Fatalf("of %d frames of the open network none is seen to be in the clear", frames)
	}
	if !a.says(b, sealedVNI, sealed, 20*time.Second) {
		t.Fatal("the encrypted network does not work")
	}
	if frames, clear := wire(); clear != 0 || frames == 0 {
		t.Errorf("%d of %d frames are in the clear", clear, frames)
	}
	a.intrudes(b, sealed, open)
	for name, missing := range map[string]func() error{
		"the peer": func() error {
			return a.Apply(t.Context(), []wireguard.Op{wireguard.DelPeer{Device: "wg7", Key: b.public(7)}})
		},
		"the route": func() error {
			return a.Apply(t.Context(), []wireguard.Op{wireguard.DelRoute{Route: wireguard.Route{Addr: wireguard.Addr(2), Device: "wg7"}}})
		},
		"the device": func() error { return a.Apply(t.Context(), []wireguard.Op{wireguard.DelLink{Name: "wg7"}}) },
	} {
		must(t, missing())
		_, _ = wire()
		if a.says(b, sealedVNI, sealed, 500*time.Millisecond) {
			t.Errorf("without %s the task is still heard", name)
		}
		if frames, clear := wire(); clear != 0 {
			t.Errorf("without %s %d of %d frames are in the clear", name, clear, frames)
		}
		a.converge(a.wish(b, 7))
		if !a.says(b, sealedVNI, sealed, 20*time.Second) {
			t.Errorf("after %s came back the task is not heard", name)
		}
	}
	if _, clear := wire(); clear != 0 {
		t.Errorf("%d frames were in the clear afterwards", clear)
	}
}

// TestTunnelsOfAVaultThatWentAreMadeAgain: whoever takes the vault's name away
// takes its tunnels' way, and they come back in the new one.
func TestTunnelsOfAVaultThatWentAreMadeAgain(t *testing.T) {
	a := hosts(t)[0]
	a.bare()
	path := filepath.Join(filepath.Dir(a.host), "net")
	t.Cleanup(func() { _ = netns.Delete(path) })
	d := vxlan.Desired{Networks: []vxlan.Network{{ID: "net", Namespace: path, VNI: sealedVNI, Underlay: a.Path,
		Local: wireguard.Addr(1), Port: 4789, MTU: 1390}}}
	k, err := rtnl.New(rtnl.Config{Host: a.host})
	must(t, err)
	defer k.Close()
	settle := func() (ops []vxlan.Op) {
		t.Helper()
		actual, err := k.Read(t.Context(), d)
		must(t, err)
		ops = vxlan.Plan(d, actual)
		must(t, k.Apply(t.Context(), ops))
		return ops
	}
	settle()
	if ops := settle(); len(ops) != 0 {
		t.Fatalf("left to do: %v", ops)
	}
	must(t, netns.Delete(a.Path))
	a.bare()
	added := slices.ContainsFunc(settle(), func(op vxlan.Op) bool { _, ok := op.(vxlan.AddVXLAN); return ok })
	if !added {
		t.Error("the tunnel is not made again")
	}
	if ops := settle(); len(ops) != 0 {
		t.Errorf("left to do: %v", ops)
	}
}
