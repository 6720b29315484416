package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/control/api"
	"shoal/control/rpc"
)

const (
	// firstBackoff and lastBackoff bound the pause between two tries to find
	// a leader; the pause doubles and is jittered by half.
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = time.Second
	// reportWindow is how long statuses are collected into one report.
	reportWindow = 10 * time.Millisecond
	// reportTimeout bounds one report: a leader that takes longer is as good as dead.
	reportTimeout = 2 * time.Second
	// avoidance is how long a manager that kept a node waiting is not tried while
	// there are others, also when they still take it for the leader: to try it again
	// would take as long again.
	avoidance = 2 * time.Second
	// suspicion is the same for a manager that ended a session or refused one, or was
	// only said to be gone. It is shorter than what a node whose stream broke has to be
	// heard again: a leader that is well must not take it for dead.
	suspicion = 500 * time.Millisecond
)

// Source is where a Client takes reports from.
type Source interface {
	// Node describes the node as it is now.
	Node() api.NodeReport
	// All returns the newest status of every task and counts them as taken.
	All() []api.TaskReport
	// Unreported takes the statuses that are new since the last call.
	Unreported() []api.TaskReport
	// Requeue gives back statuses that could not be delivered.
	Requeue([]api.TaskReport)
	// Level is up to which revision the node has put everything into effect.
	Level() uint64
	// Beyond is a higher one that counts for some networks, nil for none.
	Beyond() *api.Beyond
	// Wake is signalled when there is something unreported.
	Wake() <-chan struct{}
}

// Client keeps a node in touch with the leader.
type Client struct {
	// RPC calls managers with the node's certificate.
	RPC *rpc.Client
	// NodeID is the node's own id.
	NodeID string
	// Managers returns host:port of every manager known at the moment.
	Managers func() []string
	// Logger hears of lost and found leaders; slog.Default() when nil.
	Logger *slog.Logger

	mu sync.Mutex
	// with is the manager of the present session, whose end is abandon.
	with    string
	abandon context.CancelCauseFunc
}

// errAbandoned is why a session ends that Abandon was called for.
var errAbandoned = errors.New("the manager is said to be gone")

// Abandon ends a session with the manager at addr, which somebody found to be gone, so
// that the leader is looked for before a report fails. Others are not disturbed.
func (c *Client) Abandon(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.abandon != nil && c.with == addr {
		c.abandon(errAbandoned)
	}
}

// session is talk that Abandon can end.
func (c *Client) session(ctx context.Context, addr string, onAssignment func(api.Assignment) error, source Source) (began bool, err error) {
	ctx, abandon := context.WithCancelCause(ctx)
	defer abandon(nil)
	c.begin(addr, abandon)
	defer c.begin("", nil)
	began, err = c.talk(ctx, addr, onAssignment, source)
	if errors.Is(context.Cause(ctx), errAbandoned) {
		err = errAbandoned
	}
	return began, err
}

func (c *Client) begin(addr string, abandon context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.with, c.abandon = addr, abandon
}

// Run keeps a session with the leader until ctx ends: it hands assignments to
// onAssignment, in order and one at a time, sends reports and heartbeats, and on
// any failure finds the leader again. Each session begins with a full report and
// a full assignment. It returns ctx's error.
func (c *Client) Run(ctx context.Context, onAssignment func(api.Assignment) error, source Source) error {
	search := &search{managers: c.Managers}
	for ctx.Err() == nil {
		addr := search.next(time.Now())
		if addr == "" {
			search.pause(ctx)
			continue
		}
		began, err := c.session(ctx, addr, onAssignment, source)
		if ctx.Err() != nil {
			break
		}
		c.logger().Debug("session with a manager ended", "manager", addr, "err", err)
		if began {
			search.reset()
		}
		if !search.redirected(addr, err, time.Now()) {
			search.pause(ctx)
		}
	}
	return ctx.Err()
}

func (c *Client) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

// talk is a session with one manager; began says whether it was the leader.
func (c *Client) talk(ctx context.Context, addr string, onAssignment func(api.Assignment) error, source Source) (began bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.open(ctx, addr)
	if err != nil {
		return false, err
	}
	defer stream.Close()
	var first api.Assignment
	if err := stream.Next(&first); err != nil {
		return false, err
	}
	if !first.Full {
		return false, fmt.Errorf("manager %s began a session without a full assignment", addr)
	}
	period := first.Heartbeat
	if period <= 0 {
		period = DefaultHeartbeat
	}
	group, inner := errgroup.WithContext(ctx)
	defer context.AfterFunc(inner, cancel)() // ends the stream when reporting fails
	group.Go(func() error { return c.report(inner, addr, period, source) })
	group.Go(func() error { return receive(stream, first, onAssignment) })
	return true, group.Wait()
}

// open asks for a session. The leader answers with its first message at once, so
// one that does not within reportTimeout is given up.
func (c *Client) open(ctx context.Context, addr string) (*rpc.Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(reportTimeout, cancel)
	stream, err := c.RPC.Stream(ctx, addr, sessionPath, nil)
	if late.Stop() {
		return stream, err
	}
	if err == nil {
		stream.Close()
	}
	return nil, fmt.Errorf("manager %s did not answer within %s: %w", addr, reportTimeout, context.DeadlineExceeded)
}

func receive(stream *rpc.Stream, message api.Assignment, onAssignment func(api.Assignment) error) error {
	for {
		if err := onAssignment(message); err != nil {
			return fmt.Errorf("take assignment of revision %d: %w", message.Revision, err)
		}
		message = api.Assignment{}
		if err := stream.Next(&message); err != nil {
			return err
		}
	}
}

// report sends everything once, then what is new as it comes, and a heartbeat
// when nothing was.
func (c *Client) report(ctx context.Context, addr string, period time.Duration, source Source) error {
	described := source.Node()
	if err := c.send(ctx, addr, source, &described, source.All()); err != nil {
		return err
	}
	beat := time.NewTicker(period)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
		case <-source.Wake():
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(reportWindow):
			}
		}
		var news *api.NodeReport
		if now := source.Node(); !reflect.DeepEqual(now, described) {
			described, news = now, &now
		}
		if err := c.send(ctx, addr, source, news, source.Unreported()); err != nil {
			return err
		}
	}
}

func (c *Client) send(ctx context.Context, addr string, source Source, node *api.NodeReport, tasks []api.TaskReport) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	report := api.Report{NodeID: c.NodeID, Node: node, Tasks: tasks, Level: source.Level(), Beyond: source.Beyond()}
	err := c.RPC.Call(ctx, addr, "POST", reportPath, report, nil)
	if err != nil {
		source.Requeue(tasks)
	}
	return err
}

// search goes round the managers, and first where the last one pointed.
type search struct {
	managers func() []string
	hint     string
	turn     int
	followed bool // a pointer, since the last pause
	backoff  time.Duration
	avoid    string // whose session broke
	until    time.Time
}

// next returns whom to try, "" when no manager is known.
func (s *search) next(now time.Time) string {
	if addr := s.hint; addr != "" {
		s.hint = ""
		return addr
	}
	list := s.managers()
	for range list {
		s.turn++
		if addr := list[s.turn%len(list)]; !s.avoided(addr, now) {
			return addr
		}
	}
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func (s *search) avoided(addr string, now time.Time) bool {
	return addr == s.avoid && now.Before(s.until)
}

// redirected notes how a session ended, and says whether it was with a pointer to
// the leader that is to be followed at once.
func (s *search) redirected(from string, err error, now time.Time) bool {
	var elsewhere *rpc.NotLeaderError
	if !errors.As(err, &elsewhere) {
		s.avoid, s.until = from, now.Add(suspicion)
		if timedOut(err) {
			s.until = now.Add(avoidance)
		}
		return false
	}
	if elsewhere.Leader == "" || elsewhere.Leader == from || s.avoided(elsewhere.Leader, now) {
		return false
	}
	s.hint = elsewhere.Leader
	again := s.followed
	s.followed = true
	return !again // a second pointer in a row waits
}

// timedOut says whether a manager was waited for in vain.
func timedOut(err error) bool {
	var late net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &late) && late.Timeout()
}

func (s *search) reset() { s.backoff, s.followed = 0, false }

func (s *search) pause(ctx context.Context) {
	s.followed = false
	s.backoff = min(max(2*s.backoff, firstBackoff), lastBackoff)
	select {
	case <-ctx.Done():
	case <-time.After(s.backoff/2 + rand.N(s.backoff/2+1)):
	}
}
