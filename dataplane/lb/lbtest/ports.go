package lbtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/overlay/netns"
)

// hangUp answers each TCP connection on a port with one line and ends it first,
// so that the client can use its port again at once while everybody on the way
// still remembers the connection.
func (h *host) hangUp(port uint16) {
	h.n.t.Helper()
	l, err := netns.Listen(context.Background(), h.ns, "tcp", fmt.Sprintf("[::]:%d", port))
	if err != nil {
		h.n.t.Fatal(err)
	}
	h.n.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, reply(h.name, c.RemoteAddr()))
			c.Close()
		}
	}()
}

// fromPort connects from one of the host's own ports and reads until the server
// hangs up. repeats is how many segments had to be sent again.
func (h *host) fromPort(port uint16, to netip.AddrPort) (answer string, repeats uint8, err error) {
	d := net.Dialer{Timeout: h.n.s.patience(), LocalAddr: &net.TCPAddr{Port: int(port)},
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			outer := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			if outer != nil {
				return outer
			}
			return err
		}}
	var c net.Conn
	if err := netns.Do(h.ns, func() (err error) {
		c, err = d.Dial("tcp", to.String())
		return err
	}); err != nil {
		return "", 0, err
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return "", 0, err
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return "", 0, err
	}
	outer := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			repeats = uint8(min(info.Total_retrans, 255))
		}
	})
	if outer != nil {
		err = outer
	}
	return string(b), repeats, err
}

// onePort is the port of a front of one port.
const onePort = 8090

// firstRepeat is a little less than what TCP waits for the answer to a segment that
// begins a connection (RFC 6298): what took longer because of the machine alone has
// repeated nothing.
const firstRepeat = 900 * time.Millisecond

// portsAgain: clients that use few source ports over and over are never kept
// waiting for a segment to be sent again, also while servers drain and come back.
func portsAgain(c *scene) {
	for _, h := range c.servers {
		h.hangUp(90)
		h.hangUp(91) // another than 90: a server knows connections by its own port
	}
	svc, one := c.any(c.servers...), c.port(lb.TCP, onePort, 91, c.servers...)
	one.Addr = address(c.six, 101)
	c.apply(svc, one)
	round := func(when string) {
		c.t.Helper()
		for range 15 {
			for port := uint16(40001); port <= 40004; port++ {
				for _, to := range []netip.AddrPort{c.at(90), netip.AddrPortFrom(one.Addr, onePort)} {
					began := time.Now()
					answer, repeats, err := c.client.fromPort(port, to)
					took := time.Since(began)
					if err != nil || answer == "" || repeats > 0 && took > firstRepeat {
						c.t.Fatalf("%s, from port %d to %s: %q after %s, %d segments sent again, %v", when, port, to, answer, took, repeats, err)
					}
				}
			}
		}
	}
	round("at first")
	for _, draining := range []bool{true, false} {
		svc.Backends[0].Draining, one.Backends[0].Draining = draining, draining
		c.apply(svc, one)
		round(fmt.Sprintf("while the first server drains (%t)", draining))
	}
	svc.Backends, one.Backends = svc.Backends[1:], one.Backends[1:]
	c.apply(svc, one)
	round("without the first server")
}
