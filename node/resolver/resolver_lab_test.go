//go:build lab

package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"shoal/bench/need"
	"shoal/dns/server"
	"shoal/dns/zone"
	"shoal/overlay/netns"
)

// TestMain is the process, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == Command {
		if err := Main(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// bed is a daemon's end, with tasks' namespaces.
type bed struct {
	*Client
	t   *testing.T
	cfg Config
}

func newBed(t *testing.T) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Feature(t, "netns", errors.New("not root"))
	}
	dir, err := os.MkdirTemp("/run", "shoal-resolver-")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, cfg: Config{
		Dir: filepath.Join(dir, "resolver"), Program: "/proc/self/exe", Machine: filepath.Join(dir, "resolv.conf"),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	b.start()
	t.Cleanup(func() {
		if err := b.Quit(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return b
}

// start is a daemon's start.
func (b *bed) start() {
	b.t.Helper()
	var err error
	if b.Client, err = Start(b.cfg); err != nil {
		b.t.Fatal(err)
	}
}

// namespace makes a task's namespace with its loopback link up.
func (b *bed) namespace(id string) string {
	b.t.Helper()
	path := filepath.Join(filepath.Dir(b.cfg.Dir), "task-"+id)
	if err := netns.Create(path); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := netns.Delete(path); err != nil {
			b.t.Error(err)
		}
	})
	loopbackUp(b.t, path)
	return path
}

func loopbackUp(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.Command("nsenter", "--net="+path, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (b *bed) serve(t Task) uint16 {
	b.t.Helper()
	port, err := b.Serve(b.t.Context(), t)
	if err != nil {
		b.t.Fatal(err)
	}
	return port
}

func (b *bed) names(addr string) {
	b.t.Helper()
	web := zone.Service{Name: "web", VirtualIPs: []netip.Addr{netip.MustParseAddr(addr)}}
	m := zone.Model{Networks: []zone.Network{{ID: "n1", Name: "app", Services: []zone.Service{web}}}}
	if err := b.SetNames(b.t.Context(), m); err != nil {
		b.t.Fatal(err)
	}
}

// ask asks a task's name server for an address of web, or another name.
func ask(namespace, network string, port uint16, name string) (string, error) {
	conn, err := netns.Dial(context.Background(), namespace, network, netip.AddrPortFrom(address, port).String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := c.ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeA), &dns.Conn{Conn: conn})
	if err != nil {
		return "", err
	}
	if len(m.Answer) != 1 {
		return dns.RcodeToString[m.Rcode], nil
	}
	return m.Answer[0].(*dns.A).A.String(), nil
}

func (b *bed) answers(namespace string, port uint16, name, want string) {
	b.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		if got, err := ask(namespace, network, port, name); err != nil || got != want {
			b.t.Errorf("%s over %s is %s, %v; want %s", name, network, got, err, want)
		}
	}
}

// load asks all the while and counts what is not answered rightly.
type load struct {
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	n    int
	lost []string
}

func startLoad(namespace string, port uint16, want string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{stop: cancel}
	for _, network := range []string{"udp", "tcp"} {
		l.done.Go(func() {
			for ctx.Err() == nil {
				got, err := ask(namespace, network, port, "web.")
				l.mu.Lock()
				l.n++
				if err != nil || got != want {
					l.lost = append(l.lost, fmt.Sprint(network, " ", time.Now().Format("05.000"), " ", got, " ", err))
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

func (l *load) end(t *testing.T, what string) {
	t.Helper()
	l.stop()
	l.done.Wait()
	t.Logf("%s: %d questions, %d lost", what, l.n, len(l.lost))
	if len(l.lost) > 0 || l.n == 0 {
		t.Errorf("%s: %d questions, lost: %q", what, l.n, l.lost)
	}
}

// halted says whether no thread of the process runs on.
func halted(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, file := range threads {
		stat, readErr := os.ReadFile(file)
		_, rest, _ := strings.Cut(string(stat), ") ") // what follows the name begins with the state (proc(5))
		if err != nil || readErr != nil || !strings.HasPrefix(rest, "T") {
			return false
		}
	}
	return len(threads) > 0
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

// TestLabLife: names are answered while there is no daemon, the next daemon adopts
// what is there, and nothing is left when the node leaves.
func TestLabLife(t *testing.T) {
	b := newBed(t)
	path := b.namespace("t1")
	task := Task{ID: "t1", Namespace: path, Task: server.Task{Networks: []string{"n1"}, Inside: true}}
	port := b.serve(task)
	b.names("10.0.0.1")
	b.answers(path, port, "web.", "10.0.0.1")
	pid := b.Pid()

	load := startLoad(path, port, "10.0.0.1")
	b.Close()
	if _, err := b.Serve(t.Context(), Task{ID: "t2", Namespace: b.namespace("t2")}); err == nil {
		t.Error("a daemon that has let go still serves")
	}
	time.Sleep(200 * time.Millisecond) // nobody but the process is there
	b.start()
	if b.Pid() != pid {
		t.Errorf("process %d was not adopted, but %d", pid, b.Pid())
	}
	if got := b.serve(task); got != port {
		t.Errorf("the port was %d and is %d", port, got)
	}
	load.end(t, "without a daemon, and with the next one")

	b.names("10.0.0.2")
	b.answers(path, port, "web.", "10.0.0.2")
	if n, err := b.Counts(t.Context()); err != nil || n.Tasks != 1 || n.Names != 2 || n.Local < 10 {
		t.Errorf("counts %+v, %v", n, err)
	}
	if err := b.Drop(t.Context(), "t1"); err != nil {
		t.Error(err)
	}
	if got, err := ask(path, "tcp", port, "web."); err == nil {
		t.Errorf("a dropped task's name server says %s", got)
	}
	if err := b.Quit(); err != nil {
		t.Error(err)
	}
	waitUntil(t, "the process ends", func() bool { return !alive(pid) })
	if _, err := os.Stat(b.cfg.Dir); !os.IsNotExist(err) {
		t.Errorf("the directory stays: %v", err)
	}
	b.start()
}

func waitUntil(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !check(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what + ": not within 20 s")
		}
	}
}

// TestLabDeath: a process that is killed is replaced at once, and what is asked
// meanwhile waits in the sockets.
func TestLabDeath(t *testing.T) {
	b := newBed(t)
	path := b.namespace("t1")
	port := b.serve(Task{ID: "t1", Namespace: path, Task: server.Task{Networks: []string{"n1"}}})
	b.names("10.0.0.1")
	pid := b.Pid()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil { // so that questions are waiting when it dies
		t.Fatal(err)
	}
	waitUntil(t, "the halt of every thread", func() bool { return halted(pid) })
	asked := make(chan string, 1)
	go func() {
		got, err := ask(path, "udp", port, "web.")
		asked <- fmt.Sprint(got, " ", err)
	}()
	time.Sleep(50 * time.Millisecond) // the question is in the socket
	began := time.Now()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got != "10.0.0.1 <nil>" {
		t.Errorf("a question over the death of the process: %s", got)
	}
	took := time.Since(began)
	t.Logf("answered %s after the death", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("another process answered only after %s", took)
	}
	b.answers(path, port, "web.", "10.0.0.1")
	waitUntil(t, "another process", func() bool { return b.Pid() != 0 && b.Pid() != pid })

	// Both die: nothing is left to adopt, and the next daemon opens anew.
	pid = b.Pid()
	b.Close()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the end", func() bool { return !alive(pid) })
	b.start()
	port = b.serve(Task{ID: "t1", Namespace: path, Task: server.Task{Networks: []string{"n1"}}})
	b.names("10.0.0.3")
	b.answers(path, port, "web.", "10.0.0.3")
}

// TestLabUpgrade: a daemon of another build replaces the process under load.
func TestLabUpgrade(t *testing.T) {
	b := newBed(t)
	path := b.namespace("t1")
	task := Task{ID: "t1", Namespace: path, Task: server.Task{Networks: []string{"n1"}, Inside: true}}
	port := b.serve(task)
	b.names("10.0.0.1")
	load := startLoad(path, port, "10.0.0.1")
	old := []int{b.Pid()}
	for range 3 {
		b.Close()
		b.rebuild()
		b.start()
		if b.Pid() == old[len(old)-1] {
			t.Fatal("the process of another build was kept")
		}
		if got := b.serve(task); got != port {
			t.Errorf("the port was %d and is %d", port, got)
		}
		old = append(old, b.Pid())
	}
	for _, pid := range old[:len(old)-1] {
		waitUntil(t, "the replaced process ends", func() bool { return !alive(pid) })
	}
	load.end(t, "over three upgrades")
	b.names("10.0.0.2")
	b.answers(path, port, "web.", "10.0.0.2")
}

// rebuild makes every process that runs now one of another build, as far as the
// next daemon can tell.
func (b *bed) rebuild() {
	b.t.Helper()
	paths, err := filepath.Glob(filepath.Join(b.cfg.Dir, "*"+socketSuffix))
	if err != nil || len(paths) == 0 {
		b.t.Fatalf("no process: %v", err)
	}
	for _, path := range paths {
		real := strings.TrimSuffix(path, socketSuffix) + ".real"
		if err := os.Rename(path, real); err != nil {
			b.t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			b.t.Fatal(err)
		}
		go relabel(l, real)
	}
}

// relabel passes a daemon's requests on to a process, and says another build.
func relabel(l *net.UnixListener, real string) {
	defer l.Close()
	front, err := l.AcceptUnix()
	if err != nil {
		return
	}
	back, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: real, Net: "unix"})
	if err != nil {
		return
	}
	f, p := wire{front}, wire{back}
	defer f.Close()
	defer p.Close()
	for {
		var r request
		fds, err := f.read(&r)
		if err != nil {
			return
		}
		var out reply
		if p.write(r, fds...) != nil {
			return
		}
		back, err := p.read(&out)
		if err != nil {
			return
		}
		out.Build += " of another time"
		if out.Protocol == 0 {
			out.Build = ""
		}
		if f.write(out, back...) != nil {
			return
		}
		closeAll(append(fds, back...))
	}
}

// TestLabForwarding: the machine's servers are asked from the machine's namespace,
// a task's own from the task's; a task that stays inside reaches only the latter.
func TestLabForwarding(t *testing.T) {
	b := newBed(t)
	if err := os.WriteFile(b.cfg.Machine, []byte("nameserver 127.0.0.99\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b.start() // and the process is told of the file
	machine := answering(t, "", "127.0.0.99:53", "192.0.2.1")
	defer machine()
	own := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.99:53")}
	for i, c := range []struct {
		task server.Task
		want string
	}{
		{server.Task{}, "192.0.2.1"},
		{server.Task{Inside: true}, "SERVFAIL"},
		{server.Task{Servers: own}, "192.0.2.2"},
		{server.Task{Servers: own, Inside: true}, "192.0.2.2"},
	} {
		path := b.namespace(fmt.Sprint("f", i))
		inside := answering(t, path, "127.0.0.99:53", "192.0.2.2")
		port := b.serve(Task{ID: fmt.Sprint("f", i), Namespace: path, Task: c.task})
		b.answers(path, port, "elsewhere.example.", c.want)
		inside()
	}
}

// answering is a name server that answers everything with an address.
func answering(t *testing.T, namespace, at, addr string) (stop func()) {
	t.Helper()
	udp, err := netns.ListenPacket(t.Context(), namespace, "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := netns.Listen(t.Context(), namespace, "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	handle := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(addr).To4()}}
		_ = w.WriteMsg(m) // who went away is no error
	})
	servers := []*dns.Server{{PacketConn: udp, Handler: handle}, {Listener: tcp, Handler: handle}}
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }() // until it is shut down
		<-started
	}
	return func() {
		for _, s := range servers {
			if err := s.Shutdown(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestLabNamespaceGone: a namespace that is taken away is not kept by its sockets.
func TestLabNamespaceGone(t *testing.T) {
	b := newBed(t)
	path := b.namespace("t1")
	b.serve(Task{ID: "t1", Namespace: path})
	if err := netns.Delete(path); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the process lets go", func() bool {
		n, err := b.Counts(t.Context())
		return err == nil && n.Tasks == 0
	})
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(t.Context(), Task{ID: "t1", Namespace: path}); err == nil {
		t.Error("a namespace whose loopback link is down was taken")
	}
	loopbackUp(t, path)
	b.serve(Task{ID: "t1", Namespace: path}) // the new one's own
	// A process whose socket is taken away ends.
	pid := b.Pid()
	b.Close()
	if err := os.RemoveAll(b.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "a process without a socket ends", func() bool { return !alive(pid) })
	b.start()
}
