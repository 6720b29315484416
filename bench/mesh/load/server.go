package load

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// backlog is as large as the kernel lets it be.
const backlog = 4096

// peer is a client of the server.
type peer struct {
	open  bool
	kind  byte
	have  int   // of a question
	count int64 // of bytes, for a client that wants that
}

type server struct {
	epoll, listener int
	peers           []peer // by descriptor
	buffer          []byte
	answer          [answerSize]byte
}

// Serve answers clients on a port of every IPv4 address, until its process ends.
func Serve(port int) error {
	s := &server{buffer: make([]byte, 256<<10)}
	var err error
	if s.listener, err = listen(port); err != nil {
		return err
	}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make an epoll: %w", err)
	}
	if err := watch(s.epoll, s.listener, unix.EPOLLIN); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for clients: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == s.listener {
				err = s.accept()
			} else {
				err = s.read(int(e.Fd))
			}
			if err != nil {
				return err
			}
		}
	}
}

func listen(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("listen on port %d: %w", port, err), unix.Close(fd))
	}
	return fd, nil
}

func (s *server) accept() error {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		for fd >= len(s.peers) {
			s.peers = append(s.peers, peer{})
		}
		s.peers[fd] = peer{open: true}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("set no delay: %w", err)
		}
		if err := watch(s.epoll, fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
}

// read takes what a client has sent. A client that breaks off is no error.
func (s *server) read(fd int) error {
	p := &s.peers[fd]
	n, err := unix.Read(fd, s.buffer)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return s.drop(fd)
	case n == 0:
		if p.kind == wantsCount {
			var count [countSize]byte
			binary.BigEndian.PutUint64(count[:], uint64(p.count))
			_, _ = unix.Write(fd, count[:]) // whoever is gone needs no count
		}
		return s.drop(fd)
	}
	if p.have == 0 && p.kind == 0 {
		p.kind = s.buffer[0]
	}
	if p.kind == wantsCount {
		p.count += int64(n)
		return nil
	}
	for p.have += n; p.have >= questionSize; p.have -= questionSize {
		if m, err := unix.Write(fd, s.answer[:]); err != nil || m != answerSize {
			return s.drop(fd)
		}
	}
	return nil
}

func (s *server) drop(fd int) error {
	s.peers[fd] = peer{}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close a client: %w", err)
	}
	return nil
}
