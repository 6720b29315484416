// Package resolver keeps the tasks' name server in a process of its own, so that
// names are answered while the daemon is stopped, crashed or replaced. Main is the
// process. Client is the daemon's end: it starts the process, hands it sockets and
// names, adopts one that an earlier daemon left, replaces one of another version,
// and starts a dead one again.
//
// The sockets are made by the daemon in the tasks' namespaces, and both hold them:
// whichever of the two ends, they stay, and what is asked meanwhile waits in them.
// The process holds no key, no token and no state of the cluster but the names.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"shoal/dns/server"
	"shoal/dns/zone"
	"shoal/overlay/netns"
)

// Command is the sub-command of the daemon's program that runs Main with the
// directory as its argument.
const Command = "resolver"

// Bounds of the process.
const (
	// goodbye is how long the process goes on answering what it has taken when
	// another one goes on with its sockets.
	goodbye = 5 * time.Second
	// lookAround is how often it looks whether its own socket and the tasks'
	// namespaces are still there.
	lookAround = 2 * time.Second
	// memory is above which the process collects garbage hard, bytes.
	memory = 64 << 20
)

// process is the name server of a node.
type process struct {
	dir, path string
	server    *server.Server
	machine   *machine
	logger    *slog.Logger
	quit      chan struct{}

	mu      sync.Mutex
	tasks   map[string]*held
	pending []zone.Change // parts of a change whose last part is to come
}

// held is a task with its sockets.
type held struct {
	Task
	listener *server.Listener
	udp      *net.UDPConn
	tcp      *net.TCPListener
	at       netns.ID
}

// Main runs the process until it is told to quit, its socket in dir is taken away,
// or it gets SIGTERM.
func Main(dir string) error {
	debug.SetMemoryLimit(memory)
	debug.SetGCPercent(50)
	runtime.GOMAXPROCS(min(4, runtime.NumCPU()))
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", Command)
	p := newProcess(dir, logger)
	if err := os.Remove(p.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("socket of an earlier process: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("name server's socket: %w", err)
	}
	defer listener.Close()
	if err := os.Chmod(p.path, 0o600); err != nil {
		return err
	}
	if parent, err := net.FileConn(os.NewFile(parentFD, "the daemon")); err == nil {
		go p.converse(parent.(*net.UnixConn))
	}
	go p.accept(listener)
	p.run(ctx)
	return nil
}

// parentFD is the descriptor of the connection that the daemon gives the process.
const parentFD = 3

func newProcess(dir string, logger *slog.Logger) *process {
	p := &process{
		dir: dir, path: filepath.Join(dir, strconv.Itoa(os.Getpid())+socketSuffix), logger: logger,
		server: server.New(logger), tasks: map[string]*held{}, quit: make(chan struct{}),
	}
	p.machine = newMachine(p.server)
	return p
}

// socketSuffix ends the names of the sockets, which begin with the process's number.
const socketSuffix = ".sock"

// run looks around until the process is to end, and lets its sockets go.
func (p *process) run(ctx context.Context) {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			p.release()
			return
		case <-ctx.Done():
			p.release()
			return
		case <-tick.C:
			if _, err := os.Lstat(p.path); errors.Is(err, os.ErrNotExist) {
				p.logger.Info("the name server's socket was taken away")
				return
			}
			p.sweep()
			p.machine.look()
		}
	}
}

// sweep closes the sockets of tasks whose namespace is gone: they would keep it.
func (p *process) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, h := range p.tasks {
		if at, there := netns.Identify(h.Namespace); !there || at != h.at {
			p.drop(id)
		}
	}
}

// drop closes a task's sockets. The caller has the lock.
func (p *process) drop(id string) {
	h := p.tasks[id]
	if h == nil {
		return
	}
	delete(p.tasks, id)
	go func() { // what waits for other servers must not hold up the daemon
		if err := h.listener.Close(); err != nil {
			p.logger.Warn("a task's name server does not close cleanly", "task", id, "error", err)
		}
	}()
}

// release leaves the sockets to whoever else has them.
func (p *process) release() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	var all sync.WaitGroup
	for id, h := range p.tasks {
		all.Go(func() {
			if err := h.listener.Release(ctx); err != nil {
				p.logger.Warn("questions are left without an answer", "task", id, "error", err)
			}
		})
	}
	all.Wait()
	if err := os.Remove(p.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.logger.Warn("the name server's socket stays", "error", err)
	}
}

func (p *process) accept(listener *net.UnixListener) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return // the process ends
		}
		go p.converse(conn)
	}
}

// converse does what the daemon at the other end asks for. Only the user who owns
// the process is heard.
func (p *process) converse(conn *net.UnixConn) {
	w := wire{conn}
	defer w.Close()
	if who, err := w.peer(); err != nil || int(who.Uid) != os.Geteuid() {
		p.logger.Error("a stranger asks the name server", "user", who, "error", err)
		return
	}
	for {
		var r request
		fds, err := w.read(&r)
		if err != nil {
			closeAll(fds)
			if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
				p.logger.Warn("the daemon cannot be understood", "error", err)
			}
			return
		}
		if err := p.do(w, r, fds); err != nil && !errors.Is(err, unix.EPIPE) { // it went
			p.logger.Warn("the daemon does not hear", "error", err)
			return
		}
	}
}

// do carries one request out and answers it.
func (p *process) do(w wire, r request, fds []int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out reply
	var err error
	switch r.Op {
	case opHello:
		p.machine.use(r.Machine)
		p.pending = nil // of a daemon that went
		out = reply{Protocol: Protocol, Build: build(), Pid: os.Getpid()}
		for _, h := range p.tasks {
			out.Tasks = append(out.Tasks, h.Task)
		}
	case opWatch:
	case opServe:
		err = p.serve(r.Task, fds)
		fds = nil
	case opDrop:
		p.drop(r.ID)
	case opSockets:
		return p.give(w, r.ID)
	case opTable:
		out = p.table(r.From)
	case opNames:
		p.change(r.Changes, r.More)
	case opCount:
		out.Counts = &Counts{Counts: p.server.Counts(), Tasks: len(p.tasks), Names: p.server.Zone().Size()}
	case opQuit:
		defer p.end()
	default:
		err = fmt.Errorf("%q is nothing that this name server can do", r.Op)
	}
	closeAll(fds)
	if err != nil {
		out.Error = err.Error()
	}
	return w.write(out)
}

// end makes the process end once it has let go.
func (p *process) end() {
	select {
	case <-p.quit:
	default:
		close(p.quit)
	}
}

// serve begins to answer for a task, or changes how.
func (p *process) serve(t *Task, fds []int) error {
	if t == nil || t.ID == "" || len(fds) != 0 && len(fds) != socketsOfTask {
		closeAll(fds)
		return fmt.Errorf("%d sockets for task %+v", len(fds), t)
	}
	if h := p.tasks[t.ID]; len(fds) == 0 {
		if h == nil {
			return fmt.Errorf("no sockets for task %s", t.ID)
		}
		h.Task = *t
		h.listener.Set(t.Task)
		return nil
	}
	p.drop(t.ID)
	h := &held{Task: *t}
	var there bool
	if h.at, there = netns.Identify(t.Namespace); !there {
		closeAll(fds)
		return fmt.Errorf("task %s has no namespace at %s", t.ID, t.Namespace)
	}
	if err := h.adopt(fds); err != nil {
		return fmt.Errorf("sockets of task %s: %w", t.ID, err)
	}
	h.listener = p.server.Serve(h.udp, h.tcp, t.Task, func(ctx context.Context, network, addr string) (net.Conn, error) {
		return netns.Dial(ctx, t.Namespace, network, addr)
	})
	p.tasks[t.ID] = h
	return nil
}

// adopt makes connections of the descriptors and closes them.
func (h *held) adopt(fds []int) error {
	u, t := os.NewFile(uintptr(fds[0]), "udp"), os.NewFile(uintptr(fds[1]), "tcp")
	defer u.Close()
	defer t.Close()
	packets, err := net.FilePacketConn(u)
	if err != nil {
		return err
	}
	listener, err := net.FileListener(t)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	var isUDP, isTCP bool
	h.udp, isUDP = packets.(*net.UDPConn)
	h.tcp, isTCP = listener.(*net.TCPListener)
	if !isUDP || !isTCP {
		return errors.Join(fmt.Errorf("%T and %T", packets, listener), packets.Close(), listener.Close())
	}
	return nil
}

// give sends a task's sockets, and goes on using them.
func (p *process) give(w wire, id string) error {
	h := p.tasks[id]
	if h == nil {
		return w.write(reply{Error: fmt.Sprintf("task %s has no sockets", id)})
	}
	udp, err1 := h.udp.SyscallConn()
	tcp, err2 := h.tcp.SyscallConn()
	if err := errors.Join(err1, err2); err != nil {
		return w.write(reply{Error: err.Error()})
	}
	var sent, inner error
	err := udp.Control(func(u uintptr) {
		inner = tcp.Control(func(t uintptr) { sent = w.write(reply{}, int(u), int(t)) })
	})
	return errors.Join(err, inner, sent)
}

// partSize is how many networks a part of the table has.
const partSize = 64

// table gives the names from the network on that was asked for.
func (p *process) table(from int) reply {
	all := p.server.Zone().Model().Networks
	from = min(max(0, from), len(all))
	to := min(from+partSize, len(all))
	return reply{Networks: all[from:to], More: to < len(all)}
}

// change makes a change count once all of its parts are there.
func (p *process) change(parts []zone.Change, more bool) {
	p.pending = append(p.pending, parts...)
	if !more {
		p.server.SetZone(p.server.Zone().With(p.pending))
		p.pending = nil
	}
}
