// Package load is a load generator and its server, small enough that what is
// between them is most of what is measured: one thread each, readiness instead
// of goroutines, no allocation once a job runs. A client works through jobs that
// come as lines of JSON, so that one process serves a whole comparison. Every job
// is bounded in time. The package knows nothing of what it is used to compare.
package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The wire: a client sends questions of one size, whose first byte says what it
// wants, and the server sends answers of one size. After a bulk question the
// client sends what it likes until it shuts its side, and is told how many
// bytes came.
const (
	questionSize = 64
	answerSize   = 256
	countSize    = 8

	wantsAnswer = 'a'
	wantsCount  = 'b'
)

// Kind is what a job measures.
type Kind string

// The kinds of jobs.
const (
	// Ask asks on connections that stay, one question at a time on each.
	Ask Kind = "ask"
	// Connect opens a connection for each question.
	Connect Kind = "connect"
	// Bulk sends as much as goes through.
	Bulk Kind = "bulk"
)

// Limits of a job.
const (
	maxConns  = 1024
	maxLength = time.Minute
	// patience is how long a connection or an answer may take before it counts as
	// failed.
	patience = 10 * time.Second
	// maxSamples bounds the memory of a job; later answers are counted, not timed.
	maxSamples = 1 << 19
	// maxFailures ends a job that gets nowhere.
	maxFailures = 100
)

// Job is what a client is to do.
type Job struct {
	Kind   Kind
	Target netip.AddrPort
	// Conns is how many connections are open, or being opened, at a time.
	Conns int
	// Warm is worked but not counted, Length counted.
	Warm, Length time.Duration
}

func (j Job) check() error {
	switch {
	case j.Kind != Ask && j.Kind != Connect && j.Kind != Bulk:
		return fmt.Errorf("unknown kind of job %q", j.Kind)
	case !j.Target.Addr().Is4() || j.Target.Port() == 0:
		return fmt.Errorf("target %s is no IPv4 address and port", j.Target)
	case j.Conns < 1 || j.Conns > maxConns:
		return fmt.Errorf("1 to %d connections, not %d", maxConns, j.Conns)
	case j.Warm < 0 || j.Length <= 0 || j.Warm+j.Length > maxLength:
		return fmt.Errorf("a job takes at most %s, not %s and %s", maxLength, j.Warm, j.Length)
	}
	return nil
}

// Result is what came of a job.
type Result struct {
	// Count is the number of answers within Length, Bytes what a bulk job brought
	// across, Seconds how long that took.
	Count, Bytes int64
	Seconds      float64
	// Total counts the answers, or bytes, of the warm-up too: what the CPU time of
	// the whole job was spent on.
	Total int64
	// P50 and P99 are the times of answers in microseconds: from question to answer,
	// or from the connection's first packet.
	P50, P99 float64
	// Failed counts connections that broke or were refused; Failure is the first.
	Failed  int
	Failure string `json:",omitempty"`
}

// errEnded is a connection that the other side closed too early.
var errEnded = errors.New("the server closed the connection")

// dial opens a connection without waiting for it.
func dial(target netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, errors.Join(fmt.Errorf("set no delay: %w", err), unix.Close(fd))
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(target.Port()), Addr: target.Addr().As4()})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, errors.Join(fmt.Errorf("connect to %s: %w", target, err), unix.Close(fd))
	}
	return fd, nil
}

// connected waits until a connection is open.
func connected(fd int, target netip.AddrPort) error {
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for end := time.Now().Add(patience); ; {
		n, err := unix.Poll(ready, int(time.Until(end).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for %s: %w", target, err)
		}
		if n == 0 {
			return fmt.Errorf("connect to %s: no answer within %s", target, patience)
		}
		return connectError(fd, target)
	}
}

func connectError(fd int, target netip.AddrPort) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w", target, err)
	}
	return nil
}

// watch adds a descriptor to a set that is waited on.
func watch(epoll, fd int, events uint32) error {
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}
