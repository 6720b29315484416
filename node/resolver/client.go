package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"shoal/dns/zone"
	"shoal/overlay/netns"
)

// patience bounds one answer of the process. One that takes longer is stuck, and
// is replaced.
const patience = 5 * time.Second

// address is where a task finds its name server; a rule sends port 53 of it to
// the port that the server has.
var address = netip.MustParseAddr("127.0.0.11")

// Config of a Client; every field is needed.
type Config struct {
	// Dir is for the processes' sockets, and theirs alone.
	Dir string
	// Program is started with Command and Dir as its arguments.
	Program string
	// Machine is the path of the machine's resolv.conf.
	Machine string
	Logger  *slog.Logger
}

// Client is the daemon's end. Its methods may be used from any goroutine.
type Client struct {
	cfg     Config
	closing chan struct{}
	shut    sync.Once // of closing
	watches sync.WaitGroup

	mu    sync.Mutex
	peer  *peer // nil while no process answers
	tasks map[string]*task
	model zone.Model // what the process was told
}

// task is a task's sockets as the daemon holds them.
type task struct {
	Task
	fds  [socketsOfTask]int
	port uint16
	at   netns.ID
}

// Start finds the process that an earlier daemon left, or starts one.
func Start(cfg Config) (*Client, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the name server: %w", err)
	}
	c := &Client{cfg: cfg, closing: make(chan struct{}), tasks: map[string]*task{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c, c.ensure()
}

// Serve makes the name server answer for a task in its namespace, where the
// loopback link must be up, and returns the port on 127.0.0.11, which stays the
// same for as long as the namespace does. Repeating it costs nothing.
func (c *Client) Serve(_ context.Context, wish Task) (port uint16, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, there := netns.Identify(wish.Namespace)
	if !there {
		return 0, fmt.Errorf("name server of task %s: no namespace at %s", wish.ID, wish.Namespace)
	}
	t := c.tasks[wish.ID]
	if t != nil && t.at == at {
		if reflect.DeepEqual(t.Task, wish) {
			return t.port, nil
		}
		if _, _, err = c.call(request{Op: opServe, Task: &wish}); err == nil {
			t.Task = wish
		}
		return t.port, err
	}
	if t != nil {
		t.close()
		delete(c.tasks, wish.ID)
	}
	if t, err = open(wish, at); err != nil {
		return 0, fmt.Errorf("name server of task %s: %w", wish.ID, err)
	}
	if _, _, err := c.call(request{Op: opServe, Task: &wish}, t.fds[:]...); err != nil {
		t.close()
		return 0, fmt.Errorf("name server of task %s: %w", wish.ID, err)
	}
	c.tasks[wish.ID] = t
	return t.port, nil
}

// attempts is how often a port is looked for that is free for both sockets.
const attempts = 16

// open makes a task's sockets in its namespace. Go's poller knows nothing of
// them: the daemon only holds them.
func open(wish Task, at netns.ID) (*task, error) {
	t := &task{Task: wish, at: at}
	err := netns.Do(wish.Namespace, func() (err error) {
		for range attempts {
			if err = t.listen(); !errors.Is(err, unix.EADDRINUSE) {
				return err
			}
		}
		return err
	})
	return t, err
}

// listen takes any port for TCP and then the same one for UDP.
func (t *task) listen() (err error) {
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	t.fds = [socketsOfTask]int{-1, -1}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.fds[1], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|flags, 0); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err = loopbackIsUp(t.fds[1]); err != nil {
		return err
	}
	if err = unix.Bind(t.fds[1], &unix.SockaddrInet4{Addr: address.As4()}); err != nil {
		return fmt.Errorf("bind to %s: %w", address, err)
	}
	if err = unix.Listen(t.fds[1], unix.SOMAXCONN); err != nil {
		return fmt.Errorf("listen at %s: %w", address, err)
	}
	if t.port, err = portOf(t.fds[1]); err != nil {
		return err
	}
	if t.fds[0], err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|flags, 0); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err = unix.Bind(t.fds[0], &unix.SockaddrInet4{Addr: address.As4(), Port: int(t.port)}); err != nil {
		return fmt.Errorf("bind to %s port %d: %w", address, t.port, err)
	}
	return nil
}

// loopbackIsUp refuses a namespace whose loopback link is down. There the kernel
// knows no local address yet, takes any for a broadcast address, and binds to it
// all the same: answers would come from another address than was asked.
func loopbackIsUp(fd int) error {
	link, err := unix.NewIfreq("lo")
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, link)
	}
	if err != nil {
		return fmt.Errorf("loopback link: %w", err)
	}
	if link.Uint16()&unix.IFF_UP == 0 {
		return errors.New("the loopback link is down")
	}
	return nil
}

func portOf(fd int) (uint16, error) {
	at, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("port of a socket: %w", err)
	}
	four, ok := at.(*unix.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("a socket of %T", at)
	}
	return uint16(four.Port), nil
}

func (t *task) close() {
	for i, fd := range t.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
		t.fds[i] = -1
	}
}

// Drop closes a task's name server. One that is not there is no error.
func (c *Client) Drop(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.tasks[id]; t != nil {
		t.close()
		delete(c.tasks, id)
	}
	_, _, err := c.call(request{Op: opDrop, ID: id})
	return err
}

// SetNames makes the model what tasks are told. What did not change is not sent.
func (c *Client) SetNames(_ context.Context, m zone.Model) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.tell(m)
	for range 2 {
		if err == nil || c.peer != nil {
			break
		}
		if err = c.ensure(); err == nil { // and c.model is what the new process was told
			err = c.tell(m)
		}
	}
	return err
}

// partServices is how many services a part of a change has.
const partServices = 128

// tell sends what makes the process's names the model.
func (c *Client) tell(m zone.Model) error {
	if err := c.ensure(); err != nil {
		return err
	}
	changes := zone.Diff(c.model, m)
	if len(changes) == 0 {
		c.model = m
		return nil
	}
	parts := split(changes)
	for i, part := range parts {
		if _, err := c.one(request{Op: opNames, Changes: part, More: i < len(parts)-1}); err != nil {
			return err
		}
	}
	c.model = m
	return nil
}

// split cuts changes into parts that are quickly carried out.
func split(changes []zone.Change) (parts [][]zone.Change) {
	room := 0
	add := func(c zone.Change) {
		cost := 1 + len(c.Set) + len(c.Remove)
		if room < cost {
			parts, room = append(parts, nil), partServices+cost
		}
		room -= cost
		parts[len(parts)-1] = append(parts[len(parts)-1], c)
	}
	for _, c := range changes {
		for len(c.Set) > partServices {
			first := c
			first.Set, first.Remove = c.Set[:partServices], nil
			add(first)
			c.Set, c.Whole = c.Set[partServices:], false
		}
		add(c)
	}
	return parts
}

// Counts tells what the process has done since its start.
func (c *Client) Counts(context.Context) (Counts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, _, err := c.call(request{Op: opCount})
	if err != nil || r.Counts == nil {
		return Counts{}, err
	}
	return *r.Counts, nil
}

// Pid is the process's number; 0 while there is none.
func (c *Client) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peer == nil {
		return 0
	}
	return c.peer.hello.Pid
}

// Close lets go: the process goes on by itself, for the next daemon to adopt.
func (c *Client) Close() {
	c.shut.Do(func() { close(c.closing) })
	c.mu.Lock()
	c.lose()
	for id, t := range c.tasks {
		t.close()
		delete(c.tasks, id)
	}
	c.mu.Unlock()
	c.watches.Wait()
}

// Quit ends the process and lets go: nothing of it is left.
func (c *Client) Quit() error {
	c.shut.Do(func() { close(c.closing) })
	c.mu.Lock()
	peers, err := c.reachable()
	for _, p := range peers {
		_, _, quitErr := p.ask(request{Op: opQuit})
		err = errors.Join(err, quitErr, p.gone(goodbye+patience))
		p.close()
	}
	c.mu.Unlock()
	c.Close()
	return errors.Join(err, os.RemoveAll(c.cfg.Dir))
}
