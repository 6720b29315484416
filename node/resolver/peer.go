package resolver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"shoal/dns/zone"
	"shoal/overlay/netns"
)

// peer is a process that answers.
type peer struct {
	wire
	path  string
	hello reply
	watch wire
}

// ask puts one request and reads its answer. An error is the connection's; what
// the process refuses is in the answer.
func (p *peer) ask(r request, fds ...int) (reply, []int, error) {
	var out reply
	if err := p.SetDeadline(time.Now().Add(patience)); err != nil {
		return out, nil, err
	}
	if err := p.write(r, fds...); err != nil {
		return out, nil, fmt.Errorf("name server's process, %s: %w", r.Op, err)
	}
	received, err := p.read(&out)
	if err != nil {
		closeAll(received)
		return out, nil, fmt.Errorf("name server's process, %s: %w", r.Op, err)
	}
	return out, received, nil
}

func (p *peer) close() {
	p.Close()
	if p.watch.UnixConn != nil {
		p.watch.Close()
	}
}

// gone waits until the process has ended.
func (p *peer) gone(within time.Duration) error {
	if err := p.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	var nothing [1]byte
	if _, err := p.Read(nothing[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("name server's process %d does not end", p.hello.Pid)
	}
	return nil
}

// call puts a request, to another process when the one there was does not answer.
// The caller has the lock.
func (c *Client) call(r request, fds ...int) (reply, []int, error) {
	var err error
	for range 2 {
		if err = c.ensure(); err != nil {
			return reply{}, nil, err
		}
		var out reply
		var received []int
		if out, received, err = c.peer.ask(r, fds...); err == nil {
			return out, received, refusal(r, out)
		}
		c.fail(err)
	}
	return reply{}, nil, err
}

// one puts a request that only this process can take.
func (c *Client) one(r request) (reply, error) {
	out, _, err := c.peer.ask(r)
	if err != nil {
		c.fail(err)
		return out, err
	}
	return out, refusal(r, out)
}

func refusal(r request, out reply) error {
	if out.Error != "" {
		return fmt.Errorf("the name server's process refuses, %s: %s", r.Op, out.Error)
	}
	return nil
}

// fail gives a process up. One that is stuck is killed: it would keep questions.
func (c *Client) fail(err error) {
	c.cfg.Logger.Error("the name server's process does not answer", "pid", c.peer.hello.Pid, "error", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if err := unix.Kill(c.peer.hello.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			c.cfg.Logger.Error("a name server that is stuck stays", "pid", c.peer.hello.Pid, "error", err)
		}
	}
	c.lose()
}

func (c *Client) lose() {
	if c.peer != nil {
		c.peer.close()
		c.peer = nil
	}
}

// ensure makes sure that there is a process: one of this build that was left is
// taken as it is, any other hands over what it has, and where there is none one is
// started. The caller has the lock.
func (c *Client) ensure() error {
	if c.peer != nil {
		return nil
	}
	select {
	case <-c.closing:
		return errors.New("the name server's process is not this daemon's any more")
	default:
	}
	peers, err := c.reachable()
	if err != nil {
		return err
	}
	keep := slices.IndexFunc(peers, func(p *peer) bool { return p.hello.Protocol == Protocol && p.hello.Build == build() })
	for i, p := range peers {
		if err := c.learn(p, i == keep || keep < 0); err != nil {
			c.cfg.Logger.Error("a name server does not say what it has", "pid", p.hello.Pid, "error", err)
		}
	}
	if keep >= 0 {
		c.peer = peers[keep]
	} else if c.peer, err = c.spawn(); err != nil {
		for _, p := range peers {
			p.close()
		}
		return err
	}
	if err := c.hand(); err != nil {
		c.lose()
		return err
	}
	c.dismiss(peers)
	return c.guard()
}

// dismiss ends the processes that are not the one that stays.
func (c *Client) dismiss(peers []*peer) {
	for _, p := range peers {
		if p == c.peer {
			continue
		}
		if _, _, err := p.ask(request{Op: opQuit}); err != nil {
			c.cfg.Logger.Error("an earlier name server does not go", "pid", p.hello.Pid, "error", err)
		}
		p.close()
	}
}

// reachable lists the processes whose sockets are in the directory, and takes away
// the sockets of those that have died.
func (c *Client) reachable() (peers []*peer, err error) {
	paths, err := filepath.Glob(filepath.Join(c.cfg.Dir, "*"+socketSuffix))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		p, err := c.connect(path)
		if err == nil {
			peers = append(peers, p)
			continue
		}
		if errors.Is(err, unix.ECONNREFUSED) { // its process has died
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			c.cfg.Logger.Warn("a name server of an earlier time does not answer", "socket", path, "error", err)
		}
	}
	return peers, nil
}

func (c *Client) connect(path string) (*peer, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return c.greet(wire{conn}, path)
}

func (c *Client) greet(w wire, path string) (*peer, error) {
	p := &peer{wire: w, path: path}
	var err error
	if p.hello, _, err = p.ask(request{Op: opHello, Machine: c.cfg.Machine}); err != nil {
		p.close()
		return nil, err
	}
	p.path = filepath.Join(c.cfg.Dir, fmt.Sprint(p.hello.Pid, socketSuffix))
	return p, nil
}

// learn takes over what a process has: the sockets that the daemon has not, and
// the names when they are asked for.
func (c *Client) learn(p *peer, names bool) error {
	for _, t := range p.hello.Tasks {
		at, there := netns.Identify(t.Namespace)
		if held := c.tasks[t.ID]; !there || held != nil && held.at == at {
			continue
		}
		out, fds, err := p.ask(request{Op: opSockets, ID: t.ID})
		if err == nil {
			err = refusal(request{Op: opSockets}, out)
		}
		if err == nil && len(fds) != socketsOfTask {
			err = fmt.Errorf("%d sockets of task %s", len(fds), t.ID)
		}
		if err != nil {
			closeAll(fds)
			return err
		}
		adopted := &task{Task: t, fds: [socketsOfTask]int(fds), at: at}
		if adopted.port, err = portOf(fds[1]); err != nil {
			adopted.close()
			return err
		}
		c.tasks[t.ID] = adopted
	}
	if !names {
		return nil
	}
	return c.readNames(p)
}

func (c *Client) readNames(p *peer) error {
	var m zone.Model
	for more := true; more; {
		out, _, err := p.ask(request{Op: opTable, From: len(m.Networks)})
		if err == nil {
			err = refusal(request{Op: opTable}, out)
		}
		if err != nil {
			return err
		}
		m.Networks, more = append(m.Networks, out.Networks...), out.More && len(out.Networks) > 0
	}
	if len(m.Networks) > 0 || p.hello.Build == build() {
		c.model = m
	}
	return nil
}

// hand makes the process have what the daemon has: first the names, then the
// sockets, so that nothing is answered wrongly.
func (c *Client) hand() error {
	p := c.peer
	has := map[string]bool{}
	for _, t := range p.hello.Tasks {
		has[t.ID] = true
	}
	if p.hello.Tasks == nil { // it is new
		parts := split(zone.Diff(zone.Model{}, c.model))
		for i, part := range parts {
			out, _, err := p.ask(request{Op: opNames, Changes: part, More: i < len(parts)-1})
			if err = errors.Join(err, refusal(request{Op: opNames}, out)); err != nil {
				return err
			}
		}
	}
	for id, t := range c.tasks {
		if has[id] {
			continue
		}
		out, _, err := p.ask(request{Op: opServe, Task: &t.Task}, t.fds[:]...)
		if err != nil {
			return err
		}
		if out.Error != "" { // its namespace has gone meanwhile
			c.cfg.Logger.Warn("a task is left without its name server", "task", id, "error", out.Error)
			t.close()
			delete(c.tasks, id)
		}
	}
	return nil
}

// spawn starts a process in a session of its own. It gets no environment: nothing
// of the daemon's is its business.
func (c *Client) spawn() (*peer, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connection to the name server: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "name server"), os.NewFile(uintptr(pair[1]), "daemon")
	defer ours.Close()
	defer theirs.Close()
	cmd := exec.Command(c.cfg.Program, Command, c.cfg.Dir)
	cmd.Args[0] = "shoald"
	cmd.Dir, cmd.Env, cmd.Stderr, cmd.ExtraFiles = "/", []string{}, os.Stderr, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the name server: %w", err)
	}
	go func() { _ = cmd.Wait() }() // takes the dead child away while this daemon lives
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("connection to the name server: %w", err)
	}
	p, err := c.greet(wire{conn.(*net.UnixConn)}, "")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the name server does not start: %w", err), cmd.Process.Kill())
	}
	c.cfg.Logger.Info("the name server runs", "pid", p.hello.Pid)
	return p, nil
}

// guard watches the process, and starts another one as soon as it has ended.
func (c *Client) guard() error {
	p := c.peer
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.path, Net: "unix"})
	if err != nil {
		c.lose()
		return fmt.Errorf("watch the name server: %w", err)
	}
	p.watch = wire{conn}
	if err := p.watch.write(request{Op: opWatch}); err != nil {
		c.lose()
		return fmt.Errorf("watch the name server: %w", err)
	}
	c.watches.Go(func() {
		for err := error(nil); err == nil; { // the answer, and then nothing
			_, err = p.watch.read(&reply{})
		}
		c.revive(p)
	})
	return nil
}

// reviveAfter is how long the daemon waits when a process cannot be started.
const reviveAfter = 200 * time.Millisecond

// revive starts another process in the place of one that has ended.
func (c *Client) revive(dead *peer) {
	for {
		c.mu.Lock()
		select {
		case <-c.closing:
			c.mu.Unlock()
			return
		default:
		}
		if c.peer == dead {
			c.cfg.Logger.Error("the name server has ended and is started again", "pid", dead.hello.Pid)
			c.lose()
		}
		err := c.ensure()
		c.mu.Unlock()
		if err == nil {
			return
		}
		c.cfg.Logger.Error("names are not answered", "error", err)
		select {
		case <-c.closing:
			return
		case <-time.After(reviveAfter):
		}
	}
}
