package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"shoal/overlay/netns"
)

const (
	sinkPort  = 5001 // takes what it is sent
	echoPort  = 5002 // sends it back
	questions = 4    // connections that ask at once
	question  = 64   // bytes
)

// serve starts the servers of an arm, which end with the process.
func (a *arm) serve(ctx context.Context) error {
	for port, handle := range map[uint16]func(net.Conn){
		sinkPort: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		echoPort: func(c net.Conn) { _, _ = io.Copy(c, c) },
	} {
		l, err := netns.Listen(ctx, a.to, "tcp4", netip.AddrPortFrom(a.addr, port).String())
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { handle(c); c.Close() }()
			}
		}()
	}
	return nil
}

func (a *arm) dial(ctx context.Context, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		c, err := netns.Dial(ctx, a.from, "tcp4", netip.AddrPortFrom(a.addr, port).String())
		if err == nil || ctx.Err() != nil {
			return c, err
		}
		time.Sleep(50 * time.Millisecond) // a neighbour or a session is still to be made
	}
}

// bulk sends on one connection for so long; the unit is a megabit.
func bulk(ctx context.Context, a *arm, length time.Duration) (rate, cpu float64, err error) {
	c, err := a.dial(ctx, sinkPort)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	block := make([]byte, 128<<10)
	sent := 0
	return timed(length, func(end time.Time) (float64, error) {
		if err := c.SetDeadline(end); err != nil {
			return 0, err
		}
		for {
			n, err := c.Write(block)
			sent += n
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return float64(sent) * 8 / 1e6, nil
			}
			if err != nil {
				return 0, err
			}
		}
	})
}

// requests sends questions on some connections and waits for each answer.
func requests(ctx context.Context, a *arm, length time.Duration) (rate, cpu float64, err error) {
	conns := make([]net.Conn, questions)
	for i := range conns {
		if conns[i], err = a.dial(ctx, echoPort); err != nil {
			return 0, 0, err
		}
		defer conns[i].Close()
	}
	var answers atomic.Int64
	return timed(length, func(end time.Time) (float64, error) {
		errs := make(chan error, len(conns))
		for _, c := range conns {
			go func() { errs <- ask(c, end, &answers) }()
		}
		var err error
		for range conns {
			err = errors.Join(err, <-errs)
		}
		return float64(answers.Load()), err
	})
}

func ask(c net.Conn, end time.Time, answers *atomic.Int64) error {
	if err := c.SetDeadline(end); err != nil {
		return err
	}
	block := make([]byte, question)
	for {
		_, err := c.Write(block)
		if err == nil {
			_, err = io.ReadFull(c, block)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		answers.Add(1)
	}
}

// timed runs f until its end, and divides what it did by the time and into the
// CPU time that the machine was busy.
func timed(length time.Duration, f func(end time.Time) (float64, error)) (rate, cpu float64, err error) {
	busy, err := busyTime()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	amount, err := f(start.Add(length))
	if err != nil || amount == 0 {
		return 0, 0, errors.Join(err, errors.New("nothing arrived"))
	}
	took := time.Since(start)
	after, err := busyTime()
	return amount / took.Seconds(), float64((after - busy).Microseconds()) / amount, err
}

// busyTime is the time that the CPUs did not idle (proc(5), first line of stat, in
// hundredths of a second).
func busyTime() (time.Duration, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var user, nice, system, idle, wait, irq, softirq int64
	if _, err := fmt.Sscanf(string(raw), "cpu %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &softirq); err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	return time.Duration(user+nice+system+irq+softirq) * 10 * time.Millisecond, nil
}
