package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// probePause is the time between two requests of the prober.
	probePause = 10 * time.Millisecond
	// probeTimeout is when a request counts as lost.
	probeTimeout = time.Second
	// maxFlying bounds the requests in flight: all that can time out at once.
	maxFlying = 128
)

// ask makes one request on a connection of its own, and returns the task that
// answered.
type ask func(ctx context.Context) (task string, err error)

// asker asks a whoami service at an address, by a dialer or, when that is nil,
// from this machine.
func asker(address string, dial func(ctx context.Context, network, address string) (net.Conn, error)) ask {
	c := http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	return func(ctx context.Context) (string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
		if err != nil {
			return "", err
		}
		response, err := c.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
		if err != nil {
			return "", err
		}
		if response.StatusCode != http.StatusOK {
			return "", errors.New(response.Status)
		}
		for line := range strings.Lines(string(body)) {
			if task, ok := strings.CutPrefix(line, "task="); ok {
				return strings.TrimSpace(task), nil
			}
		}
		return "", errors.New("the answer names no task")
	}
}

// route is one way into the service.
type route struct {
	name string
	ask  ask
	off  bool
}

// sample is one request that ended.
type sample struct {
	began, ended time.Time
	route, task  string
	// failed is why, empty when it was answered.
	failed string
}

// prober asks along its routes in turn, at a steady pace, and remembers every
// request.
type prober struct {
	mu      sync.Mutex
	routes  []*route
	samples []sample
	flying  map[int]sample
	number  int
	// heldBack counts turns in which too many requests were in flight.
	heldBack int
	requests sync.WaitGroup
}

func newProber(routes ...*route) *prober {
	return &prober{routes: routes, flying: map[int]sample{}}
}

// run asks until ctx ends, and returns when no request is in flight.
func (p *prober) run(ctx context.Context) {
	defer p.requests.Wait()
	pace := time.NewTicker(probePause)
	defer pace.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
			p.next(ctx, turn)
		}
	}
}

// next begins one request, unless its route is off or too many are in flight.
func (p *prober) next(ctx context.Context, turn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.routes[turn%len(p.routes)]
	if r.off {
		return
	}
	if len(p.flying) >= maxFlying {
		p.heldBack++
		return
	}
	p.number++
	number := p.number
	p.flying[number] = sample{began: time.Now(), route: r.name}
	p.requests.Go(func() {
		task, err := r.ask(ctx)
		p.done(ctx, number, task, err)
	})
}

// done remembers a request; one that the end of the prober cut off is nobody's
// fault.
func (p *prober) done(ctx context.Context, number int, task string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.flying[number]
	delete(p.flying, number)
	if err != nil && ctx.Err() != nil {
		return
	}
	s.ended, s.task, s.failed = time.Now(), task, reason(err)
	p.samples = append(p.samples, s)
}

// use turns a route on or off. When it turns it off it returns once no request
// is in flight on it.
func (p *prober) use(ctx context.Context, name string, on bool) error {
	p.mu.Lock()
	for _, r := range p.routes {
		if r.name == name {
			r.off = !on
		}
	}
	p.mu.Unlock()
	if on {
		return nil
	}
	_, err := await(ctx, "the last requests "+name, func() error {
		return p.without(func(s sample) bool { return s.route == name })
	})
	return err
}

// landed waits until every request that began before a time has ended.
func (p *prober) landed(ctx context.Context, before time.Time) error {
	_, err := await(ctx, "the requests in flight", func() error {
		return p.without(func(s sample) bool { return s.began.Before(before) })
	})
	return err
}

// without complains while a request that which accepts is in flight.
func (p *prober) without(which func(sample) bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.flying {
		if which(s) {
			return fmt.Errorf("a request %s is in flight", s.route)
		}
	}
	return nil
}

// taken is every request that ended so far.
func (p *prober) taken() []sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.samples)
}

// reason says in a few words why a request failed.
func reason(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed without an answer"
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %s", probeTimeout)
	}
	return err.Error()
}
