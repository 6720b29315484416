package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
)

// brief is for the search of a size once it is known that peers answer.
var brief = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond}

// patience is how long each try waits for its answer; a path that loses all of
// them is taken for broken.
var patience = []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond}

// Path is what a test found out about the way to a peer, in the order in which
// it is found out.
type Path struct {
	// Answers says that anything at all comes back.
	Answers bool
	// Sums says that packets whose checksum was left to the network card arrive.
	Sums bool
	// MTU is the largest packet, in bytes, that arrives whole; the one that was
	// asked for when all is well.
	MTU int
}

// check tests the way from a namespace to a peer's address. mtu is the size, in
// bytes, of the largest packet that should pass. An error is the node's own.
func check(ctx context.Context, namespace string, peer netip.AddrPort, mtu int) (p Path, err error) {
	plain, err := dial(ctx, namespace, peer, true)
	if err != nil {
		return p, err
	}
	defer plain.Close()
	if p.Answers, err = passes(ctx, plain, 0, patience); err != nil || !p.Answers {
		return p, err
	}
	summed, err := dial(ctx, namespace, peer, false)
	if err != nil {
		return p, err
	}
	defer summed.Close()
	if p.Sums, err = passes(ctx, summed, 0, patience); err != nil {
		return p, err
	}
	p.MTU, err = largest(ctx, plain, mtu)
	return p, err
}

// leastMTU is what is taken for granted when something small passes.
const leastMTU = headerBytes + packetOverhead

// largest finds the largest packet that passes, by halves when the one that
// should does not.
func largest(ctx context.Context, c net.Conn, mtu int) (int, error) {
	whole, err := passes(ctx, c, mtu-packetOverhead, patience)
	if whole || err != nil {
		return mtu, err
	}
	low, high := leastMTU, mtu // low passes, high does not
	for high-low > 1 {
		middle := (low + high) / 2
		ok, err := passes(ctx, c, middle-packetOverhead, brief)
		if err != nil {
			return low, err
		}
		if ok {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// dial opens a socket towards the peer that never has its packets cut to pieces.
// Without a checksum nothing on the way can spoil one.
func dial(ctx context.Context, namespace string, peer netip.AddrPort, noChecksum bool) (c net.Conn, err error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return set(raw, noChecksum) }}
	err = netns.Do(namespace, func() (err error) {
		c, err = d.DialContext(ctx, "udp4", peer.String())
		return err
	})
	return c, err
}

func set(raw syscall.RawConn, noChecksum bool) (err error) {
	outer := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		if noChecksum {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1))
		}
	})
	return errors.Join(outer, err)
}

// passes sends a message of the size until it is answered or patience is over.
func passes(ctx context.Context, c net.Conn, size int, patience []time.Duration) (bool, error) {
	nonce := rand.Uint64() &^ answerBit
	for _, wait := range patience {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if _, err := c.Write(question(nonce, size)); err != nil {
			if tooBig(err) {
				return false, nil
			}
			if !refused(err) {
				return false, err
			}
		}
		if answered(c, nonce, time.Now().Add(wait)) {
			return true, nil
		}
	}
	return false, nil
}

// tooBig says that this node itself cannot send packets of the size.
func tooBig(err error) bool { return errors.Is(err, unix.EMSGSIZE) }

// refused says that the network answered by a message of its own: the peer does
// not listen yet, or something on the way says no.
func refused(err error) bool {
	for _, is := range []error{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EPERM} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// answered reads until the answer to the nonce has come or the time is over.
func answered(c net.Conn, nonce uint64, until time.Time) bool {
	c.SetReadDeadline(until)
	b := make([]byte, headerBytes)
	for {
		n, err := c.Read(b)
		if got, isAnswer, ok := parse(b[:n]); err == nil && ok && isAnswer && got == nonce {
			return true
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || err != nil && !refused(err) {
			return false
		}
		if err != nil { // told at once that nobody listens: the next try may find somebody
			time.Sleep(time.Until(until))
			return false
		}
	}
}
