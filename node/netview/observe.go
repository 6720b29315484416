package netview

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"shoal/dataplane/lb"
	"shoal/dataplane/trace"
	"shoal/overlay/netns"
)

// observe asks the kernel what the wish does not say: the node's own addresses,
// and which ports are listened on.
func (s *Sources) observe() (observed, error) {
	o := observed{addrs: map[string][]netip.Prefix{}, listens: map[string][]trace.Listen{}}
	links, err := net.Interfaces()
	if err != nil {
		return o, fmt.Errorf("links of this node: %w", err)
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			return o, fmt.Errorf("addresses of %s: %w", l.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && (p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast()) {
				o.addrs[l.Name] = append(o.addrs[l.Name], p)
			}
		}
	}
	if o.routes, err = mainRoutes(); err != nil {
		return o, err
	}
	paths := []string{""}
	for _, l := range s.Fabric.Locals() {
		paths = append(paths, l.Namespace)
	}
	for _, path := range paths {
		err := netns.Do(path, func() error {
			found, err := listens()
			o.listens[path] = found
			return err
		})
		if err != nil {
			delete(o.listens, path) // it may be gone by now: then nothing is known of it
		}
	}
	return o, nil
}

// The states of a socket that takes new peers, as /proc/net shows them
// (include/net/tcp_states.h): LISTEN for TCP, CLOSE for an unconnected UDP one.
const (
	tcpListen = "0A"
	udpOpen   = "07"
)

// listens reads the listening ports of the caller's network namespace. It is
// never nil.
func listens() ([]trace.Listen, error) {
	out := []trace.Listen{}
	for _, f := range []struct {
		file, state string
		protocol    lb.Protocol
	}{
		{"tcp", tcpListen, lb.TCP}, {"tcp6", tcpListen, lb.TCP}, {"udp", udpOpen, lb.UDP}, {"udp6", udpOpen, lb.UDP},
	} {
		raw, err := os.ReadFile("/proc/thread-self/net/" + f.file)
		if os.IsNotExist(err) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for _, at := range parseSockets(string(raw), f.state) {
			l := trace.Listen{Protocol: f.protocol, Port: at.Port()}
			if !at.Addr().IsUnspecified() {
				l.Addr = at.Addr()
			}
			out = append(out, l)
		}
	}
	return out, nil
}

// parseSockets reads the local ends of the sockets in a state from a file of
// proc(5) under net/: "sl local_address rem_address st …", addresses in hex.
func parseSockets(text, state string) []netip.AddrPort {
	var out []netip.AddrPort
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || f[3] != state {
			continue
		}
		addrText, portText, _ := strings.Cut(f[1], ":")
		port, err := strconv.ParseUint(portText, 16, 16)
		addr, ok := procAddr(addrText)
		if ok && err == nil {
			out = append(out, netip.AddrPortFrom(addr, uint16(port)))
		}
	}
	return out
}

// procAddr reads an address as proc(5) prints it: words of four bytes, each as a
// number in the machine's order.
func procAddr(text string) (netip.Addr, bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return a.Unmap(), ok
}
