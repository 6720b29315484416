package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/overlay/netns"
)

// Sighting is a marked packet on one link of one namespace.
type Sighting struct {
	Namespace, Link string
	// Out says that it left by the link.
	Out bool
	At  time.Time // the kernel's
	Packet
}

// stampsBegin is how long the kernel may take to begin to note when packets come,
// which it puts off when the first socket asks for it.
const stampsBegin = 20 * time.Millisecond

// pollEvery is how often a socket looks whether it shall end.
const pollEvery = 50 * time.Millisecond

// Watch tells seen of every packet with the mark in the namespaces until ctx ends.
// It returns when all sockets are open; wait returns when all are closed. Calls of
// seen follow each other. A namespace that is gone is passed over.
func Watch(ctx context.Context, namespaces []string, p lb.Protocol, mark uint32, vxlan uint16, seen func(Sighting)) (wait func(), err error) {
	program, err := filter(p, mark, vxlan)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var done sync.WaitGroup
	opened := 0
	for _, path := range namespaces {
		s, openErr := open(path, program)
		if openErr != nil {
			err = openErr
			continue
		}
		opened++
		done.Go(func() {
			defer unix.Close(s.fd)
			s.read(ctx, func(b []byte, sighting Sighting) {
				packet, ours := parse(b, p, mark, vxlan)
				if !ours {
					return
				}
				sighting.Packet = packet
				mu.Lock()
				defer mu.Unlock()
				seen(sighting)
			})
		})
	}
	if opened == 0 && err != nil {
		cancel()
		return nil, err
	}
	select { // before the kernel notes times, everything seems to happen when it is read
	case <-time.After(stampsBegin):
	case <-ctx.Done():
	}
	return func() { done.Wait(); cancel() }, nil
}

// socket sees every packet of a namespace that its program takes.
type socket struct {
	fd    int
	path  string
	links map[int]string
}

func open(path string, program []bpf.RawInstruction) (*socket, error) {
	s := &socket{fd: -1, path: path, links: map[int]string{}}
	err := netns.Do(path, func() (err error) {
		// No protocol at first: nothing arrives before the program is there.
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		links, err := net.Interfaces()
		for _, l := range links {
			s.links[l.Index] = l.Name
		}
		return err
	})
	if err == nil {
		err = s.prepare(program)
	}
	if err != nil {
		if s.fd >= 0 {
			unix.Close(s.fd)
		}
		return nil, fmt.Errorf("watch packets in namespace %q: %w", path, err)
	}
	return s, nil
}

func (s *socket) prepare(program []bpf.RawInstruction) error {
	code := make([]unix.SockFilter, len(program))
	for i, in := range program {
		code[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	every := unix.NsecToTimeval(int64(pollEvery))
	return errors.Join(
		unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}),
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &every),
		unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)}),
	)
}

func bigEndian(v uint16) uint16 { return v<<8 | v>>8 }

// snap is how much of a packet is read: headers, and those inside a tunnel.
const snap = 256

// read tells of packets until ctx ends.
func (s *socket) read(ctx context.Context, seen func([]byte, Sighting)) {
	b, oob := make([]byte, snap), make([]byte, 128)
	for ctx.Err() == nil {
		n, oobn, _, from, err := unix.Recvmsg(s.fd, b, oob, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // the namespace is gone
		}
		at := Sighting{Namespace: s.path, At: stamp(oob[:oobn])}
		if link, ok := from.(*unix.SockaddrLinklayer); ok {
			at.Link, at.Out = s.links[link.Ifindex], link.Pkttype == unix.PACKET_OUTGOING
		}
		seen(b[:n], at)
	}
}

// stamp is when the kernel saw the packet.
func stamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return time.Unix((*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Unix())
		}
	}
	return time.Now()
}
