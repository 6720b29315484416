package lbtest

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/overlay/netns"
)

// SCTP returns nil, or why this kernel has no SCTP sockets.
func SCTP() error {
	_ = exec.Command("modprobe", "-q", "sctp").Run() // the question below decides
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// sctp makes a socket in the host's namespace, which waits as long as the suite does.
func (h *host) sctp() (fd int, err error) {
	err = netns.Do(h.ns, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(h.n.s.patience().Nanoseconds())
		for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &wait); err != nil {
				return err
			}
		}
		return nil
	})
	return fd, err
}

// serveSCTP answers each association on a port with the host's name.
func (h *host) serveSCTP(port uint16) {
	h.n.t.Helper()
	fd, err := h.sctp()
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: h.addr(false).As4()})
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		h.n.t.Fatal(err)
	}
	done := make(chan struct{})
	h.n.t.Cleanup(func() {
		unix.Shutdown(fd, unix.SHUT_RDWR)
		unix.Close(fd)
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, _, err := unix.Accept(fd)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil {
				return
			}
			unix.Write(c, []byte(h.name))
			unix.Close(c)
		}
	}()
}

// askSCTP makes an association and returns the server's name.
func (h *host) askSCTP(to netip.AddrPort) (string, error) {
	fd, err := h.sctp()
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: h.addr(false).As4()}); err != nil {
		return "", err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return "", err
	}
	b := make([]byte, 64)
	n, err := unix.Read(fd, b)
	return strings.TrimSpace(string(b[:max(n, 0)])), err
}

// sctp: a front of one port and one of every port balance SCTP, beside TCP and UDP
// on the same ports.
func (s *suite) sctp(t *testing.T) {
	c := &scene{t: t, s: s, d: s.newDriver(t), n: s.newNetwork(t)}
	c.client = c.n.join("client", 1)
	for i, name := range []string{"s1", "s2"} {
		h := c.n.join(name, byte(11+i))
		h.serve(81)
		h.serveSCTP(81)
		c.servers = append(c.servers, h)
	}
	one := c.port(lb.SCTP, onePort, 81, c.servers...)
	one.Addr = address(false, 101)
	beside := one
	beside.Protocol, beside.Backends = lb.TCP, one.Backends[:1]
	c.apply(c.any(c.servers...), one, beside)
	count := func(to netip.AddrPort, names ...string) {
		t.Helper()
		got := map[string]int{}
		for range 6 {
			name, err := c.client.askSCTP(to)
			if err != nil {
				t.Fatalf("sctp to %s: %v (after %v)", to, err, got)
			}
			got[name]++
		}
		c.expect(got, names...)
	}
	at := netip.AddrPortFrom(one.Addr, onePort)
	count(at, "s1", "s2")
	count(c.at(81), "s1", "s2")
	c.expect(c.client.count("tcp", at, 4, c.client.addr(false)), "s1")
	one.Backends = one.Backends[1:]
	c.apply(c.any(c.servers[0]), one, beside)
	count(at, "s2")
	count(c.at(81), "s1")
}
