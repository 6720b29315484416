// Package load asks services of a lab at a steady pace along several ways at
// once, remembers every request, and says what an event cost. Every run ends with
// its context; requests in flight are bounded.
package load

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
	// Timeout is when a request counts as lost: before TCP sends its first packet
	// again, which it does after a second (RFC 6298), so that who was sent to the
	// dead does not pass for answered.
	Timeout = time.Second
	// maxFlying bounds the requests in flight: all that can time out at once.
	maxFlying = 1024
	// landing bounds the wait for requests in flight, which is longer than any takes.
	landing = 10 * time.Second
	// pollPause is how exactly that wait ends.
	pollPause = 5 * time.Millisecond
)

// Ask makes one request and returns the task that answered.
type Ask func(ctx context.Context) (task string, err error)

// Dialer makes a connection, perhaps in another network namespace.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Asker asks a whoami service at an address for every request anew, by a dialer
// or, when that is nil, from this machine.
func Asker(address string, dial Dialer) Ask {
	return AskerWithin(Timeout, address, dial)
}

// AskerWithin is Asker with a time-out of its own.
func AskerWithin(timeout time.Duration, address string, dial Dialer) Ask {
	return asker(timeout, address, &http.Transport{DisableKeepAlives: true, DialContext: dial})
}

// KeepAlive asks as Asker does, over connections that stay open. A request that
// meets a connection which its server is just closing goes over a new one, as
// clients of HTTP do (RFC 9112, 9.3.1).
func KeepAlive(address string, dial Dialer) Ask {
	return asker(Timeout, address, &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 4})
}

func asker(timeout time.Duration, address string, transport *http.Transport) Ask {
	c := http.Client{Timeout: timeout, Transport: transport}
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
		return taskOf(string(body))
	}
}

func taskOf(answer string) (string, error) {
	for line := range strings.Lines(answer) {
		if task, ok := strings.CutPrefix(line, "task="); ok {
			return strings.TrimSpace(task), nil
		}
	}
	return "", errors.New("the answer names no task")
}

// Route is one way into the service.
type Route struct {
	Name string
	Ask  Ask
	off  bool
}

// Sample is one request that ended.
type Sample struct {
	Began, Ended time.Time
	Route, Task  string
	// Failed is why, empty when it was answered.
	Failed string
}

// Prober asks along its routes in turn, at a steady pace, and remembers every
// request.
type Prober struct {
	mu      sync.Mutex
	pause   time.Duration
	routes  []*Route
	samples []Sample
	flying  map[int]Sample
	number  int
	// heldBack counts turns in which too many requests were in flight.
	heldBack int
	requests sync.WaitGroup
}

// New makes a prober that makes one request every pause.
func New(pause time.Duration, routes ...*Route) *Prober {
	return &Prober{pause: pause, routes: routes, flying: map[int]Sample{}}
}

// Run asks until ctx ends, and returns when no request is in flight.
func (p *Prober) Run(ctx context.Context) {
	defer p.requests.Wait()
	pace := time.NewTicker(p.pause)
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
func (p *Prober) next(ctx context.Context, turn int) {
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
	p.flying[number] = Sample{Began: time.Now(), Route: r.Name}
	p.requests.Go(func() {
		task, err := r.Ask(ctx)
		p.done(ctx, number, task, err)
	})
}

// done remembers a request; one that the end of the prober cut off is nobody's
// fault.
func (p *Prober) done(ctx context.Context, number int, task string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.flying[number]
	delete(p.flying, number)
	if err != nil && ctx.Err() != nil {
		return
	}
	s.Ended, s.Task, s.Failed = time.Now(), task, reason(err)
	p.samples = append(p.samples, s)
}

// Use turns a route on or off. When it turns it off it returns once no request
// is in flight on it.
func (p *Prober) Use(ctx context.Context, name string, on bool) error {
	p.mu.Lock()
	for _, r := range p.routes {
		if r.Name == name {
			r.off = !on
		}
	}
	p.mu.Unlock()
	if on {
		return nil
	}
	return p.await(ctx, func(s Sample) bool { return s.Route == name })
}

// Landed waits until every request that began before a time has ended.
func (p *Prober) Landed(ctx context.Context, before time.Time) error {
	return p.await(ctx, func(s Sample) bool { return s.Began.Before(before) })
}

// await waits until no request that which accepts is in flight.
func (p *Prober) await(ctx context.Context, which func(Sample) bool) error {
	ctx, cancel := context.WithTimeout(ctx, landing)
	defer cancel()
	pause := time.NewTicker(pollPause)
	defer pause.Stop()
	for {
		err := p.without(which)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-pause.C:
		}
	}
}

// without complains while a request that which accepts is in flight.
func (p *Prober) without(which func(Sample) bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.flying {
		if which(s) {
			return fmt.Errorf("a request %s is in flight", s.Route)
		}
	}
	return nil
}

// Taken is every request that ended so far.
func (p *Prober) Taken() []Sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.samples)
}

// HeldBack is how many turns were left out because too many requests were in flight.
func (p *Prober) HeldBack() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heldBack
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
		return "no answer in time"
	}
	return err.Error()
}
