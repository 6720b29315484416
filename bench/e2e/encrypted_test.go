//go:build lab

package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"golang.org/x/sys/unix"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
	"shoal/node/netview"
	"shoal/overlay/netns"
	"shoal/overlay/wglink"
	"shoal/overlay/wireguard"
)

// sealedPort is where the tasks of the test answer, sealedMark what they say: no
// byte sequence that could come about by chance.
const sealedPort = 9000

var sealedMark = []byte("shoal-in-the-clear-7f3a9c51e2")

// encrypted: what tasks of an encrypted network say to each other is on no link
// between the hosts in the clear, and none of it is lost, while keys change and
// shoald dies. Where a kernel cannot encrypt, no task runs, and everybody who asks
// is told why.
func encrypted(w *world) {
	var made struct{ Id string }
	w.must(w.call(http.MethodPost, "/networks/create", network.CreateRequest{
		Name: "sealed-net", Driver: "overlay", Options: map[string]string{"encrypted": ""}}, &made))
	w.networks = append(w.networks, made.Id)
	if missing := wglink.Probe(w.Context()); missing != nil {
		refusedInTheClear(w, made.Id, missing)
		return
	}
	tasks := w.startGlobal("sealed", attached(made.Id), published(8230, network.TCP))
	wires := w.listenIn()
	talk := w.talk(tasks, made.Id)
	talk.goesOn(50)
	w.rotate()
	victim := w.host(2)
	w.Logf("%s: the daemon of %s dies", time.Now().Format(clock), victim.Name)
	w.must(w.lab.KillDaemon(w.Context(), victim))
	talk.goesOn(200)
	w.Logf("%s: it comes back", time.Now().Format(clock))
	w.must(w.lab.Heal(w.Context()))
	w.undrifted()
	w.rotate()
	if asked, lost := talk.end(); len(lost) > 0 {
		w.Errorf("%d of %d questions were lost while keys changed and a daemon died, at %v", len(lost), asked, lost)
	} else {
		w.Logf("%d questions, none lost while keys changed twice and a daemon died", asked)
	}
	for h, wire := range wires {
		seen, clear, sealed := wire.end()
		if clear > 0 || sealed == 0 {
			w.Errorf("under %s: %d frames in the clear, %d encrypted, of %d", h, clear, sealed, seen)
		}
		w.Logf("under %s: %d frames, %d to ports of tunnels, %d with what tasks said", h, seen, sealed, clear)
	}
}

// refusedInTheClear: a service of the network waits, with the kernel's reason in
// its tasks' status, and a node of another mind would refuse the task itself.
func refusedInTheClear(w *world, networkID string, missing error) {
	w.create("sealed", 1, attached(networkID))
	w.eventually(20*time.Second, "the task is refused with the kernel's reason", func() error {
		tasks, err := w.tasks(map[string][]string{"service": {"sealed"}})
		if err != nil {
			return err
		}
		for _, task := range tasks {
			if task.Status.State == swarm.TaskStatePending && strings.Contains(task.Status.Err, "cannot encrypt networks") &&
				strings.Contains(task.Status.Err, wglink.ErrMissing.Error()) {
				w.Logf("%s: %s", task.Status.State, task.Status.Err)
				return nil
			}
		}
		return fmt.Errorf("tasks %+v", tasks)
	})
	var tunnels netview.Tunnels
	w.must(w.call(http.MethodGet, "/shoal/tunnels", nil, &tunnels))
	if !strings.Contains(tunnels.Missing, wglink.ErrMissing.Error()) {
		w.Errorf("the node says %q, the kernel %q", tunnels.Missing, missing)
	}
}

// rotate has new keys made and waits until the old ones count no more.
func (w *world) rotate() {
	w.Helper()
	var begun struct{ Epoch uint64 }
	began := time.Now()
	w.must(w.call(http.MethodPost, "/shoal/rotate", nil, &begun))
	w.eventually(60*time.Second, "every node sends under the new keys alone", func() error {
		for _, h := range w.lab.Hosts() {
			var t netview.Tunnels
			if err := h.Call(w.Context(), http.MethodGet, "/shoal/tunnels", nil, &t); err != nil {
				return err
			}
			if t.Floor != begun.Epoch || t.Settled != begun.Epoch || len(t.Devices) != 1 {
				return fmt.Errorf("%s: epochs %d to %d, settled %d, %d devices, waits for %v", h.Name, t.Floor, t.Epoch, t.Settled, len(t.Devices), t.Waiting)
			}
		}
		return nil
	})
	w.Logf("%s: keys of epoch %d, alone %s later", began.Format(clock), begun.Epoch, time.Since(began).Round(time.Millisecond))
}

// conversation is a task that asks another without pause.
type conversation struct {
	w     *world
	conn  net.Conn
	asked atomic.Int64
	lost  []string // when
	stop  chan struct{}
	done  chan error
}

// talk lets the first task ask the second over UDP, each question once.
func (w *world) talk(tasks []swarm.Task, networkID string) *conversation {
	w.Helper()
	to := netip.AddrPortFrom(netip.MustParseAddr(addresses(tasks[1], networkID)[0]), sealedPort)
	server, err := netns.ListenPacket(w.Context(), namespaceOf(tasks[1]), "udp4", to.String())
	w.must(err)
	w.Cleanup(func() { server.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], from)
		}
	}()
	c := &conversation{w: w, stop: make(chan struct{}), done: make(chan error, 1)}
	w.eventually(20*time.Second, "the first answer", func() error {
		if c.conn, err = netns.Dial(w.Context(), namespaceOf(tasks[0]), "udp4", to.String()); err != nil {
			return err
		}
		return c.ask(0)
	})
	go func() { c.done <- c.run() }()
	return c
}

func namespaceOf(task swarm.Task) string { return fmt.Sprintf("/proc/%d/ns/net", pid(task)) }

// ask sends a numbered question and waits for its answer.
func (c *conversation) ask(number uint64) error {
	if err := c.conn.SetDeadline(time.Now().Add(labtest.Within(2 * time.Second))); err != nil {
		return err
	}
	question := binary.BigEndian.AppendUint64(bytes.Clone(sealedMark), number)
	if _, err := c.conn.Write(question); err != nil {
		return err
	}
	for answer := make([]byte, 2048); ; {
		n, err := c.conn.Read(answer)
		if err != nil || bytes.Equal(answer[:n], question) {
			return err
		}
	}
}

func (c *conversation) run() error {
	for number := uint64(1); ; number++ {
		select {
		case <-c.stop:
			return nil
		default:
		}
		c.asked.Add(1)
		if err := c.ask(number); err != nil {
			c.lost = append(c.lost, time.Now().Format(clock))
		}
	}
}

// goesOn waits for so many more questions.
func (c *conversation) goesOn(n int64) {
	c.w.Helper()
	want := c.asked.Load() + n
	c.w.eventually(60*time.Second, "the conversation goes on", func() error {
		if have := c.asked.Load(); have < want {
			return fmt.Errorf("%d of %d questions", have, want)
		}
		return nil
	})
}

// clock is how the test writes times.
const clock = "15:04:05.0"

func (c *conversation) end() (asked int64, lost []string) {
	close(c.stop)
	<-c.done
	c.conn.Close()
	return c.asked.Load(), c.lost
}

// wire listens to everything on a host's link to the others.
type wire struct {
	fd                  int
	stop, stopped       chan struct{}
	once                sync.Once
	seen, clear, sealed int
}

// listenIn listens on the underlay links of all hosts until they are ended.
func (w *world) listenIn() map[string]*wire {
	w.Helper()
	wires := map[string]*wire{}
	for _, h := range w.lab.Hosts() {
		l := &wire{stop: make(chan struct{}), stopped: make(chan struct{})}
		w.must(netns.Do(hostSpace(h), func() error { return l.open(h.Address) }))
		go l.run()
		w.Cleanup(func() { l.end(); unix.Close(l.fd) })
		wires[h.Name] = l
	}
	return wires
}

func hostSpace(h lab.Host) string { return "/run/netns/" + h.Namespace }

// open binds to the link that has the address, in the thread's namespace.
func (l *wire) open(addr netip.Addr) error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	index := 0
	for _, link := range links {
		addrs, _ := link.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				index = link.Index
			}
		}
	}
	if index == 0 {
		return fmt.Errorf("no link has %s", addr)
	}
	const all = unix.ETH_P_ALL>>8 | (unix.ETH_P_ALL&0xff)<<8 // network byte order
	if l.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
		return err
	}
	wait := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	return errors.Join(unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		unix.SetsockoptTimeval(l.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.Bind(l.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
}

func (l *wire) run() {
	defer close(l.stopped)
	buf, flags := make([]byte, 1<<16), 0
	for {
		select {
		case <-l.stop:
			flags = unix.MSG_DONTWAIT
		default:
		}
		n, _, err := unix.Recvfrom(l.fd, buf, flags)
		if err != nil && flags != 0 {
			return
		} else if err != nil {
			continue // nothing came for a while
		}
		l.seen++
		if bytes.Contains(buf[:n], sealedMark) {
			l.clear++
		}
		const udp = 14 + 20 // behind Ethernet and IPv4
		if n > udp+4 && buf[14+9] == unix.IPPROTO_UDP {
			if port := binary.BigEndian.Uint16(buf[udp+2:]); port == wireguard.BasePort || port == wireguard.BasePort+1 {
				l.sealed++
			}
		}
	}
}

// end stops listening once nothing is left to read, and says how many frames
// there were, how many of them said what tasks say, and how many were encrypted.
func (l *wire) end() (seen, clear, sealed int) {
	l.once.Do(func() { close(l.stop) })
	<-l.stopped
	return l.seen, l.clear, l.sealed
}
