//go:build lab

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/bench/lab/labtest"
	"shoal/bench/need"
	"shoal/control/api"
	"shoal/node/plan"
	"shoal/overlay/netns"
	"shoal/overlay/probe"
	"shoal/overlay/rtnl"
	"shoal/overlay/vxlan"
)

// middle carries frames between two links as a bad network would, which begins
// with the network cards: a checksum that the sender has left to them is filled in
// where it is the frame's own, but not inside a tunnel.
type middle struct {
	largest atomic.Int64 // packets larger than this are lost, in bytes
	fds     [2]int
	done    sync.WaitGroup
}

// What a frame read from the links begins with: a virtio_net_hdr (linux/
// virtio_net.h), which says which checksum is still to be filled in, and the
// Ethernet header. Then come an IPv4 header and UDP.
const (
	vnetBytes, ethernetBytes, ipBytes = 10, 14, 20
	needsChecksum                     = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
)

// fill does what the card knows how to do.
func fill(frame []byte) {
	vnet, packet := frame[:vnetBytes], frame[vnetBytes:]
	start, offset := int(binary.NativeEndian.Uint16(vnet[6:])), int(binary.NativeEndian.Uint16(vnet[8:]))
	if vnet[0]&needsChecksum != 0 && start == ethernetBytes+ipBytes && start+offset+2 <= len(packet) {
		var sum uint32
		for i, b := range packet[start:] {
			sum += uint32(b) << (8 * (1 - i&1))
			sum = sum&0xffff + sum>>16
		}
		binary.BigEndian.PutUint16(packet[start+offset:], ^uint16(sum))
	}
	clear(vnet)
}

func newMiddle(t *testing.T, ns string, links ...string) *middle {
	t.Helper()
	m := &middle{}
	m.largest.Store(9000)
	err := netns.Do(ns, func() error {
		for i, name := range links {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			m.fds[i] = fd
			index, err := linkIndex(fd, name)
			if err != nil {
				return err
			}
			all := uint16(unix.ETH_P_ALL)
			if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: index}); err != nil {
				return err
			}
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
				return err
			}
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.done.Go(func() { m.carry(ctx, m.fds[0], m.fds[1]) })
	m.done.Go(func() { m.carry(ctx, m.fds[1], m.fds[0]) })
	t.Cleanup(func() {
		cancel()
		m.done.Wait()
		unix.Close(m.fds[0])
		unix.Close(m.fds[1])
	})
	return m
}

func linkIndex(fd int, name string) (int, error) {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	return int(r.Uint32()), err
}

func (m *middle) carry(ctx context.Context, from, to int) {
	frame := make([]byte, 1<<16)
	for ctx.Err() == nil {
		n, addr, err := unix.Recvfrom(from, frame, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		if ll, ok := addr.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING || int64(n-vnetBytes-ethernetBytes) > m.largest.Load() {
			continue
		}
		fill(frame[:n])
		unix.Write(to, frame[:n]) // what does not fit is lost
	}
}

// probed is one node of the test: its kernel made by the product's own plan, and
// its prober.
type probed struct {
	self     plan.Self
	kernel   *rtnl.Kernel
	mu       sync.Mutex
	nodes    []*api.Node
	messages []string
	prober   *probe.Prober
	t        *testing.T
}

func (p *probed) wish() vxlan.Desired {
	return plan.Compile(plan.Input{Self: p.self, Nodes: p.nodes}).Overlay
}

func (p *probed) converge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	wish := p.wish()
	actual, err := p.kernel.Read(context.Background(), wish)
	if err == nil {
		err = p.kernel.Apply(context.Background(), vxlan.Plan(wish, actual))
	}
	if err != nil {
		p.t.Error(err)
	}
}

func (p *probed) targets() probe.Targets {
	p.mu.Lock()
	defer p.mu.Unlock()
	return plan.ProbeTargets(p.self, p.nodes, nil)
}

func (p *probed) soften() {
	p.mu.Lock()
	p.self.SoftwareChecksums = true
	p.mu.Unlock()
	p.converge()
}

func (p *probed) report(messages []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = messages
}

func (p *probed) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.messages, "\n")
}

// TestDataPath: two nodes test the way between them. What a network card does to
// checksums is found and got round, and packets that are lost for their size, or
// all of them, are reported until they pass again.
//
//	host A 192.0.2.1 --- pa [middle, carried by this test] pb --- host B 192.0.2.2
func TestDataPath(t *testing.T) {
	dir := t.TempDir()
	make := func(name string) string {
		path := filepath.Join(dir, name)
		need.Feature(t, "netns", netns.Create(path))
		t.Cleanup(func() { netns.Delete(path) })
		return path
	}
	hub := make("middle")
	var all []*probed
	for i, name := range []string{"a", "b"} {
		host := make("host-" + name)
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		for _, line := range []string{
			"ip link add p" + name + " type veth peer name under netns " + host,
			"ip link set p" + name + " up",
		} {
			in(t, hub, line)
		}
		in(t, host, "ip addr add "+addr.String()+"/24 dev under")
		in(t, host, "ip link set under up")
		kernel, err := rtnl.New(rtnl.Config{Host: host, Directory: filepath.Join(dir, "ns-"+name)})
		if err != nil {
			t.Fatal(err)
		}
		p := &probed{t: t, kernel: kernel, self: plan.Self{ID: name, Number: uint32(i + 1), VTEP: addr, Port: 4789, Probes: true,
			NamespaceDir: filepath.Join(dir, "ns-"+name)}}
		if p.self.MTU, p.self.GatewayMTU, err = kernel.MTUs(addr); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
		t.Cleanup(func() {
			p.mu.Lock()
			p.nodes = nil
			p.mu.Unlock()
			p.converge()
			kernel.Close()
		})
	}
	m := newMiddle(t, hub, "pa", "pb")
	for _, p := range all {
		for _, other := range all {
			n := &api.Node{Number: other.self.Number, DataPathAddr: other.self.VTEP}
			n.ID, n.Description.Hostname = other.self.ID, "host-"+other.self.ID
			p.nodes = append(p.nodes, n)
		}
		p.converge()
		p.prober = probe.New(probe.Config{Targets: p.targets, Soften: p.soften, Report: p.report, Logger: slog.New(slog.DiscardHandler)})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, p := range all {
		running.Go(func() { p.prober.Run(ctx) })
	}
	defer running.Wait()
	defer cancel()
	says := func(what, want string, not string) {
		t.Helper()
		began := time.Now()
		for _, p := range all {
			labtest.Eventually(t, 30*time.Second, what, func() error {
				if said := p.said(); !strings.Contains(said, want) || not != "" && strings.Contains(said, not) {
					return fmt.Errorf("host-%s says %q", p.self.ID, said)
				}
				return nil
			})
		}
		t.Logf("%s: after %s", what, time.Since(began).Round(time.Millisecond))
	}
	says("spoiled checksums are got round", "network card spoils the checksums", "data path to node")
	m.largest.Store(1400)
	for _, p := range all {
		retest(t, p.prober)
	}
	says("what the way carries is found", "packets of more than 1400 bytes get lost on the way, and this node's interface sends 1500", "")
	t.Log(all[0].said())
	m.largest.Store(10)
	for _, p := range all {
		retest(t, p.prober)
	}
	says("a closed way is found", "nothing comes back; let UDP port 4789 pass", "")
	m.largest.Store(9000)
	for _, p := range all {
		retest(t, p.prober)
	}
	says("a healed way is found", "network card", "data path to node")
}

func in(t *testing.T, ns, line string) {
	t.Helper()
	if err := netns.Do(ns, func() error {
		out, err := exec.Command("sh", "-c", line).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", line, err, out)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// retest does not wait for the result.
func retest(t *testing.T, p *probe.Prober) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Again(ctx); !errors.Is(err, context.Canceled) && err != nil {
		t.Error(err)
	}
}
