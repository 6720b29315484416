package load

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// reply is a line of the agent's output.
type reply struct {
	Result Result
	Error  string `json:",omitempty"`
}

// Agent works through the jobs that come on in, one line of JSON each, and
// writes a line for each to out, until in ends.
func Agent(in io.Reader, out io.Writer) error {
	jobs, results := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var j Job
		if err := jobs.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a job: %w", err)
		}
		var r reply
		var err error
		if r.Result, err = Run(j); err != nil {
			r.Error = err.Error()
		}
		if err := results.Encode(r); err != nil {
			return fmt.Errorf("write a result: %w", err)
		}
	}
}

// Run does one job.
func Run(j Job) (Result, error) {
	if err := j.check(); err != nil {
		return Result{}, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return Result{}, fmt.Errorf("make an epoll: %w", err)
	}
	defer unix.Close(epoll)
	c := &client{job: j, epoll: epoll, conns: map[int]*conn{}, buffer: make([]byte, 256<<10), events: make([]unix.EpollEvent, 256)}
	defer c.closeAll()
	switch j.Kind {
	case Ask:
		err = c.ask()
	case Connect:
		err = c.connect()
	default:
		err = c.bulk()
	}
	slices.Sort(c.samples)
	c.result.P50, c.result.P99 = quantile(c.samples, 0.5), quantile(c.samples, 0.99)
	return c.result, err
}

// quantile is the value in microseconds that the fraction q of the sorted times
// does not exceed.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Nanoseconds()) / 1000
}

type conn struct {
	open  bool
	since time.Time
	have  int
}

type client struct {
	job      Job
	epoll    int
	conns    map[int]*conn
	free     []*conn
	buffer   []byte
	question [questionSize]byte
	events   []unix.EpollEvent
	result   Result
	samples  []time.Duration
	from, to time.Time
}

func (c *client) closeAll() {
	for fd := range c.conns {
		_ = unix.Close(fd) // the job is over
	}
}

// start begins the clock of a job.
func (c *client) start() {
	c.question[0] = wantsAnswer
	c.from = time.Now().Add(c.job.Warm)
	c.to = c.from.Add(c.job.Length)
	c.samples = make([]time.Duration, 0, min(maxSamples, int(c.job.Length/(2*time.Microsecond))))
}

// wait returns what became ready, with the time, and nothing once the job is over.
func (c *client) wait(stalled time.Time) ([]unix.EpollEvent, time.Time, error) {
	for {
		now := time.Now()
		if !now.Before(c.to) {
			c.result.Seconds = now.Sub(c.from).Seconds()
			return nil, now, nil
		}
		if now.Sub(stalled) > patience {
			return nil, now, fmt.Errorf("%s: nothing came back within %s", c.job.Target, patience)
		}
		n, err := unix.EpollWait(c.epoll, c.events, int(c.to.Sub(now).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, now, fmt.Errorf("wait for answers: %w", err)
		}
		if n > 0 {
			return c.events[:n], time.Now(), nil
		}
	}
}

// answered counts an answer.
func (c *client) answered(now, since time.Time) {
	c.result.Total++
	if now.Before(c.from) {
		return
	}
	c.result.Count++
	if len(c.samples) < cap(c.samples) {
		c.samples = append(c.samples, now.Sub(since))
	}
}

// failed counts a connection that failed; too many end the job.
func (c *client) failed(err error) error {
	if c.result.Failed == 0 {
		c.result.Failure = err.Error()
	}
	if c.result.Failed++; c.result.Failed >= maxFailures {
		return fmt.Errorf("%d connections failed, the last: %w", c.result.Failed, err)
	}
	return nil
}

// dialAll opens the job's connections and watches them for the events.
func (c *client) dialAll(events uint32) error {
	for range c.job.Conns {
		fd, err := dial(c.job.Target)
		if err != nil {
			return err
		}
		c.conns[fd] = &conn{}
		if err := connected(fd, c.job.Target); err != nil {
			return err
		}
		if err := watch(c.epoll, fd, events); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) ask() error {
	if err := c.dialAll(unix.EPOLLIN); err != nil {
		return err
	}
	c.start()
	for fd, conn := range c.conns {
		if err := c.send(fd, conn); err != nil {
			return err
		}
	}
	last := time.Now()
	for {
		events, now, err := c.wait(last)
		if err != nil || events == nil {
			return err
		}
		last = now
		for _, e := range events {
			conn := c.conns[int(e.Fd)]
			done, err := c.take(int(e.Fd), conn)
			if err != nil {
				return fmt.Errorf("ask %s: %w", c.job.Target, err)
			}
			if !done {
				continue
			}
			c.answered(time.Now(), conn.since)
			if err := c.send(int(e.Fd), conn); err != nil {
				return err
			}
		}
	}
}

func (c *client) send(fd int, to *conn) error {
	to.since, to.have = time.Now(), 0
	n, err := unix.Write(fd, c.question[:])
	if err == nil && n < questionSize {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.job.Target, err)
	}
	return nil
}

// take reads, and reports whether the answer is whole.
func (c *client) take(fd int, from *conn) (bool, error) {
	n, err := unix.Read(fd, c.buffer)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, os.NewSyscallError("read", err)
	case n == 0:
		return false, errEnded
	}
	from.have += n
	return from.have >= answerSize, nil
}

// connect opens, asks once, closes, and opens the next.
func (c *client) connect() error {
	c.start()
	for range c.job.Conns {
		if err := c.open(); err != nil {
			return err
		}
	}
	last := time.Now()
	for {
		events, now, err := c.wait(last)
		if err != nil || events == nil {
			return err
		}
		last = now
		for _, e := range events {
			done, err := c.step(int(e.Fd))
			if err == nil && !done {
				continue
			}
			if err == nil {
				c.answered(time.Now(), c.conns[int(e.Fd)].since)
			} else if err := c.failed(err); err != nil {
				return err
			}
			if err := c.next(int(e.Fd)); err != nil {
				return err
			}
		}
	}
}

// open begins a connection. A failure counts; the next one is tried.
func (c *client) open() error {
	for {
		since := time.Now()
		fd, err := dial(c.job.Target)
		if err == nil {
			fresh := &conn{}
			if n := len(c.free); n > 0 {
				fresh, c.free = c.free[n-1], c.free[:n-1]
			}
			*fresh = conn{since: since}
			c.conns[fd] = fresh
			return watch(c.epoll, fd, unix.EPOLLOUT)
		}
		if err := c.failed(err); err != nil {
			return err
		}
	}
}

// step brings a connection on: asks when it is open, reads when it is answered.
func (c *client) step(fd int) (done bool, err error) {
	conn := c.conns[fd]
	if conn.open {
		return c.take(fd, conn)
	}
	if err := connectError(fd, c.job.Target); err != nil {
		return false, err
	}
	conn.open = true
	if n, err := unix.Write(fd, c.question[:]); err != nil || n < questionSize {
		return false, errors.Join(err, errEnded)
	}
	return false, unix.EpollCtl(c.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (c *client) next(fd int) error {
	c.free = append(c.free, c.conns[fd])
	delete(c.conns, fd)
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close a connection: %w", err)
	}
	return c.open()
}

// bulk sends on all connections, then asks how much came.
func (c *client) bulk() error {
	if err := c.dialAll(unix.EPOLLOUT); err != nil {
		return err
	}
	c.buffer[0] = wantsCount
	c.from = time.Now()
	c.to = c.from.Add(c.job.Warm + c.job.Length)
	for last := c.from; ; {
		events, now, err := c.wait(last)
		if err != nil {
			return err
		}
		if events == nil {
			break
		}
		last = now
		for _, e := range events {
			if _, err := unix.Write(int(e.Fd), c.buffer); err != nil && !errors.Is(err, unix.EAGAIN) {
				return fmt.Errorf("send to %s: %w", c.job.Target, err)
			}
		}
	}
	for fd := range c.conns {
		if err := c.count(fd); err != nil {
			return err
		}
	}
	c.result.Seconds = time.Since(c.from).Seconds()
	c.result.Total = c.result.Bytes
	return nil
}

// count ends a bulk connection and adds what the server has got on it.
func (c *client) count(fd int) error {
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return fmt.Errorf("end a bulk connection: %w", err)
	}
	got := make([]byte, 0, countSize)
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(patience); len(got) < countSize; {
		if _, err := unix.Poll(ready, int(time.Until(end).Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the count of %s: %w", c.job.Target, err)
		}
		n, err := unix.Read(fd, got[len(got):countSize])
		switch {
		case errors.Is(err, unix.EAGAIN) && time.Now().Before(end), errors.Is(err, unix.EINTR):
			continue
		case err == nil && n == 0:
			return fmt.Errorf("count of %s: %w", c.job.Target, errEnded)
		case err != nil:
			return fmt.Errorf("count of %s: %w", c.job.Target, err)
		}
		got = got[:len(got)+n]
	}
	c.result.Bytes += int64(binary.BigEndian.Uint64(got))
	return nil
}
