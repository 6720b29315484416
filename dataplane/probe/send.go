package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/overlay/netns"
)

// Outcome is what the sender of a packet learns.
type Outcome string

// The outcomes.
const (
	Connected Outcome = "connected" // TCP only
	Answered  Outcome = "answered"  // a datagram or a ping came back
	Refused   Outcome = "refused"
	NoRoute   Outcome = "no route"
	Silence   Outcome = "no answer"
)

// text is what a datagram holds behind the mark.
const text = "shoal trace\n"

// Send sends one packet with the mark from inside a namespace, the way that a
// program there would: a connection attempt, a datagram or an echo request. It
// waits until ctx ends for what comes back.
func Send(ctx context.Context, namespace string, p lb.Protocol, dst netip.AddrPort, mark uint32) (Outcome, error) {
	var out Outcome
	err := netns.Do(namespace, func() (err error) {
		switch p {
		case lb.TCP:
			out, err = connect(ctx, dst, mark)
		case lb.UDP:
			out, err = datagram(ctx, dst, mark)
		case Ping:
			out, err = ping(ctx, dst.Addr(), mark)
		default:
			err = fmt.Errorf("no packet of %s is sent: choose tcp, udp or a ping", p)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("send a packet to %s from namespace %q: %w", dst, namespace, err)
	}
	return out, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(dst netip.AddrPort) unix.Sockaddr {
	if dst.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(dst.Port()), Addr: dst.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(dst.Port()), Addr: dst.Addr().As16()}
}

// outcome turns what the kernel says into words; ok is false for real trouble.
func outcome(err error) (Outcome, bool) {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused, true
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return NoRoute, true
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EAGAIN):
		return Silence, true
	}
	return "", false
}

// The values of TCP_REPAIR and TCP_REPAIR_QUEUE (linux/tcp.h).
const (
	repairOn, repairOff = 1, -1
	sendQueue           = 2
)

// connect begins a connection whose first sequence number is the mark: the kernel
// keeps the number that a socket under repair was given.
func connect(ctx context.Context, dst netip.AddrPort, mark uint32) (Outcome, error) {
	fd, err := unix.Socket(family(dst.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOn),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, sendQueue),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(mark)),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOff),
	)
	if err != nil {
		return "", fmt.Errorf("mark the connection: %w", err)
	}
	err = unix.Connect(fd, sockaddr(dst))
	if errors.Is(err, unix.EINPROGRESS) {
		if !ready(ctx, fd, unix.POLLOUT) {
			return Silence, nil
		}
		var number int
		if number, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && number != 0 {
			err = unix.Errno(number)
		}
	}
	if err == nil {
		return Connected, nil
	}
	if o, ok := outcome(err); ok {
		return o, nil
	}
	return "", err
}

// ready waits until the socket has something to tell.
func ready(ctx context.Context, fd int, events int16) bool {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(pollEvery/time.Millisecond))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		if n > 0 {
			return true
		}
	}
	return false
}

func datagram(ctx context.Context, dst netip.AddrPort, mark uint32) (Outcome, error) {
	fd, err := unix.Socket(family(dst.Addr()), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err = unix.Connect(fd, sockaddr(dst)); err == nil {
		_, err = unix.Write(fd, append(binary.BigEndian.AppendUint32(nil, mark), text...))
	}
	if err == nil && !ready(ctx, fd, unix.POLLIN) {
		return Silence, nil
	}
	if err == nil {
		_, err = unix.Read(fd, make([]byte, snap))
	}
	if err == nil {
		return Answered, nil
	}
	if o, ok := outcome(err); ok {
		return o, nil
	}
	return "", err
}

// ping sends an echo request and waits for its reply.
func ping(ctx context.Context, dst netip.Addr, mark uint32) (Outcome, error) {
	proto, kind, answer := unix.IPPROTO_ICMP, byte(echo4), byte(reply4)
	if dst.Is6() {
		proto, kind, answer = unix.IPPROTO_ICMPV6, echo6, reply6
	}
	fd, err := unix.Socket(family(dst), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	request := binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0, byte(mark >> 24), byte(mark >> 16), 0, 1}, mark)
	request = append(request, text...)
	if dst.Is4() {
		binary.BigEndian.PutUint16(request[2:], checksum(request))
	} // the kernel fills in that of ICMPv6
	if err := unix.Sendto(fd, request, 0, sockaddr(netip.AddrPortFrom(dst, 0))); err != nil {
		if o, ok := outcome(err); ok {
			return o, nil
		}
		return "", err
	}
	b := make([]byte, snap)
	for ready(ctx, fd, unix.POLLIN) {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			if o, ok := outcome(err); ok {
				return o, nil
			}
			continue
		}
		if answers(b[:n], dst.Is4(), answer, mark) {
			return Answered, nil
		}
	}
	return Silence, nil
}

// answers says whether a message is the reply to the echo request.
func answers(b []byte, four bool, answer byte, mark uint32) bool {
	if four { // raw sockets of IPv4 are given the IP header too
		_, _, _, rest, ok := network(b)
		if !ok {
			return false
		}
		b = rest
	}
	return len(b) >= markData+4 && b[0] == answer && binary.BigEndian.Uint32(b[markData:]) == mark
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
