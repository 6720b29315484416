//go:build lab

package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
)

const echoPort = 7007

// echo answers on UDP and TCP in a namespace until the test ends.
func echo(t testing.TB, ns string) {
	t.Helper()
	address := fmt.Sprintf("[::]:%d", echoPort)
	packets, err := netns.ListenPacket(context.Background(), ns, "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := netns.Listen(context.Background(), ns, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close(); streams.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(buf[:n], from)
		}
	}()
	go func() {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}()
}

// ask sends size bytes that must not be fragmented and waits for their echo.
func ask(ns, network string, to netip.Addr, size int, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	conn, err := netns.Dial(ctx, ns, network, netip.AddrPortFrom(to, echoPort).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if udp, ok := conn.(*net.UDPConn); ok {
		if err := unfragmented(udp); err != nil {
			return err
		}
	}
	_ = conn.SetDeadline(time.Now().Add(wait))
	if _, err := conn.Write(make([]byte, size)); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, size))
	return err
}

func unfragmented(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var four, six error
	err = raw.Control(func(fd uintptr) {
		four = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		six = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	if err == nil && four != nil && six != nil {
		err = errors.Join(four, six)
	}
	return err
}

// reaches asks until it is answered, for at most some seconds.
func reaches(t testing.TB, ns, network string, to netip.Addr, size int) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if err = ask(ns, network, to, size, time.Second); err == nil {
			return
		}
	}
	t.Fatalf("%s to %s (%d bytes) from %s: %v", network, to, size, ns, err)
}

func TestTasksReachEachOther(t *testing.T) {
	a, b := pair(t)
	targets := append(append(taskAddrs(1, 2), taskAddrs(2, 1)...), taskAddrs(2, 2)...)
	for _, target := range targets {
		reaches(t, a.sandbox(1), "udp", target, 64)
		reaches(t, a.sandbox(1), "tcp", target, 300_000)
	}
	reaches(t, b.sandbox(2), "udp", taskAddrs(1, 1)[0], 64)
}

func TestPacketsOfTheFullMTUPass(t *testing.T) {
	a, _ := pair(t)
	const headers4, headers6 = 28, 48
	reaches(t, a.sandbox(1), "udp", taskAddrs(2, 1)[0], 1450-headers4)
	reaches(t, a.sandbox(1), "udp", taskAddrs(2, 1)[1], 1450-headers6)
	err := ask(a.sandbox(1), "udp", taskAddrs(2, 1)[0], 1450-headers4+1, time.Second)
	if !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("one byte more than the MTU: %v, want EMSGSIZE", err)
	}
}

func TestGatewayBridge(t *testing.T) {
	a, _ := pair(t)
	reaches(t, a.sandbox(1), "udp", netip.MustParseAddr("172.18.0.1"), 64)
	reaches(t, a.sandbox(1), "tcp", a.vtep, 64) // by the default route
	if err := ask(a.sandbox(1), "tcp", netip.MustParseAddr("172.18.0.3"), 64, time.Second); err == nil {
		t.Error("two tasks talk over the gateway bridge")
	}
}

// capture counts the VXLAN frames that leave or reach a host's underlay link.
type capture struct {
	t  testing.TB
	fd int
}

func newCapture(t testing.TB, ns, link string) *capture {
	t.Helper()
	c := &capture{t: t}
	err := netns.Do(ns, func() error {
		index, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL>>8 | (unix.ETH_P_ALL&0xff)<<8 // network byte order
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all); err != nil {
			return err
		}
		return unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.fd) })
	return c
}

// frames returns how many VXLAN frames came since the last call.
func (c *capture) frames() (count int) {
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if err != nil {
			return count
		}
		const ip, udp = 14, 34
		if n > udp+4 && buf[12] == 8 && buf[13] == 0 && buf[ip+9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(buf[udp+2:]) == 4789 {
			count++
		}
	}
}

// sendFrame sends one Ethernet frame out of a task's eth0.
func sendFrame(t testing.TB, ns string, frame []byte) {
	t.Helper()
	err := netns.Do(ns, func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		copy(frame[6:12], link.HardwareAddr)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsFlooded(t *testing.T) {
	a, _ := pair(t)
	wire := newCapture(t, a.host, "under")
	reaches(t, a.sandbox(1), "udp", taskAddrs(2, 1)[0], 64)
	if wire.frames() == 0 {
		t.Fatal("the capture sees no frame to a known destination")
	}
	for _, unknown := range []string{"10.20.9.9", "fd00:20::9:9", "10.20.255.255"} {
		_ = ask(a.sandbox(1), "udp", netip.MustParseAddr(unknown), 64, time.Second)
	}
	for _, dst := range []string{"02:42:de:ad:be:ef", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "01:00:5e:00:00:01"} {
		hw, err := net.ParseMAC(dst)
		if err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, 60)
		copy(frame, hw)
		frame[12], frame[13] = 0x88, 0xb5 // local experimental EtherType, IEEE 802
		sendFrame(t, a.sandbox(1), frame)
	}
	reaches(t, a.sandbox(1), "udp", taskAddrs(1, 2)[0], 64) // the bridge has worked through all before
	if n := wire.frames(); n != 0 {
		t.Errorf("%d frames for unknown destinations were sent to other hosts", n)
	}
}
