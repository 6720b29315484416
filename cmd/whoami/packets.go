package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Socket options and control messages of linux/in6.h that the standard library
// does not name everywhere.
const (
	ipv6RecvPktinfo = 49
	ipv6Pktinfo     = 50
)

// packets is a UDP socket for all addresses that knows for each packet which of
// them it came to, and answers from that one: a container has several.
type packets struct {
	conn *net.UDPConn
	port uint16
}

func listenPackets(address string) (*packets, error) {
	listener, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	conn, ok := listener.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("socket of type %T for udp", listener)
	}
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	level, option := syscall.IPPROTO_IPV6, ipv6RecvPktinfo
	if local.Addr().Is4() {
		level, option = syscall.IPPROTO_IP, syscall.IP_PKTINFO
	}
	if err := setOption(conn, level, option); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for the address of packets: %w", err), conn.Close())
	}
	return &packets{conn: conn, port: local.Port()}, nil
}

func setOption(conn *net.UDPConn, level, option int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(err, failed)
}

// serve answers every packet with the lines until the socket is closed.
func (p *packets) serve() error {
	buffer, control := make([]byte, 2048), make([]byte, 256)
	for {
		_, n, _, client, err := p.conn.ReadMsgUDPAddrPort(buffer, control)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		local, from := destination(control[:n])
		client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		text := lines(client.String(), netip.AddrPortFrom(local, p.port).String())
		if _, _, err := p.conn.WriteMsgUDPAddrPort([]byte(text), from, client); err != nil {
			fmt.Fprintln(os.Stderr, "whoami: answer over UDP:", err)
		}
	}
}

// destination is the address that a packet came to, and the control message
// that makes an answer leave from it, by whichever interface the route says.
func destination(control []byte) (netip.Addr, []byte) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return netip.IPv6Unspecified(), nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == syscall.IPPROTO_IPV6 && m.Header.Type == ipv6Pktinfo && len(m.Data) >= 20:
			binary.NativeEndian.PutUint32(m.Data[16:], 0)
			return netip.AddrFrom16([16]byte(m.Data[:16])).Unmap(), control
		case m.Header.Level == syscall.IPPROTO_IP && m.Header.Type == syscall.IP_PKTINFO && len(m.Data) >= 12:
			binary.NativeEndian.PutUint32(m.Data, 0)
			copy(m.Data[4:8], m.Data[8:12])
			return netip.AddrFrom4([4]byte(m.Data[8:12])), control
		}
	}
	return netip.IPv6Unspecified(), nil
}
