package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// Listen opens a stream listener (network tcp, tcp4 or tcp6) inside the
// namespace at path. The listener and the connections it accepts stay there,
// whichever goroutine uses them. The address is numeric, ADDR:PORT.
func Listen(ctx context.Context, path, network, address string) (net.Listener, error) {
	return inside(path, address, func() (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, network, address)
	})
}

// ListenPacket opens a datagram socket (network udp, udp4 or udp6) inside the
// namespace at path; otherwise as Listen.
func ListenPacket(ctx context.Context, path, network, address string) (net.PacketConn, error) {
	return inside(path, address, func() (net.PacketConn, error) {
		return new(net.ListenConfig).ListenPacket(ctx, network, address)
	})
}

// Dial connects from inside the namespace at path to a numeric ADDR:PORT. A
// name is refused: looking it up would use threads outside the namespace. The
// call holds a thread until it is connected or ctx ends.
func Dial(ctx context.Context, path, network, address string) (net.Conn, error) {
	return inside(path, address, func() (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	})
}

// inside runs make in the namespace, after checking that the address needs no
// resolver.
func inside[T any](path, address string, make func() (T, error)) (socket T, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return socket, fmt.Errorf("open socket in network namespace %q: %w", path, err)
	}
	err = Do(path, func() (err error) {
		socket, err = make()
		return err
	})
	if err != nil {
		return socket, fmt.Errorf("open socket in network namespace %q: %w", path, err)
	}
	return socket, nil
}
