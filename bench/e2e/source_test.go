//go:build lab

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
	"shoal/overlay/netns"
)

// TestSource is about what a task sees of a client of a published port, and which
// way the reply takes. It has a lab of its own.
func TestSource(t *testing.T) {
	l := labtest.Up(t, lab.Config{Dir: "/run/shoal-source", Prefix: "ssrc", Subnet: "10.81.0.0/24"}, "whoami.tar")
	for _, test := range []struct {
		name string
		run  func(*world)
	}{
		{"Kept", sourceKept},
		{"ReplyByEntry", replyByEntry},
		{"OnePortManyHosts", onePortManyHosts},
		{"Transfer", transfer},
		{"Hidden", sourceHidden},
		{"InternalOnly", internalOnly},
		{"Trampled", returnTrampled},
		{"HostPowerCut", sourceAfterPowerCut},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &world{T: t, lab: l, api: l.Hosts()[0]}
			defer w.recover()
			test.run(w)
		})
	}
}

// web is the service of these tests: a task on every host, its port 80 published
// for TCP and UDP, and its port 90, where a test may listen itself.
func (w *world) web(name string, port uint32, options ...option) []swarm.Task {
	w.Helper()
	ports := func(s *swarm.ServiceSpec) {
		add := func(target, published uint32, p network.IPProtocol) {
			s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, swarm.PortConfig{
				Protocol: p, TargetPort: target, PublishedPort: published, PublishMode: swarm.PortConfigPublishModeIngress})
		}
		add(80, port, network.UDP)
		add(90, port+1, network.TCP)
	}
	return w.startGlobal(name, append([]option{published(port, network.TCP), ports}, options...)...)
}

// askKept asks over TCP and says it is an error when the task saw another client.
func askKept(h lab.Host, port int) (reply, error) { return askOnce("tcp", h, port) }

// askKeptUDP is askKept over UDP.
func askKeptUDP(h lab.Host, port int) (reply, error) { return askOnce("udp", h, port) }

// lastPort is the port that was asked from last, below those that the kernel gives:
// a port that was used towards another host a while ago may be translated, since the
// task could not tell the two apart (see onePortManyHosts).
var lastPort atomic.Uint32

const firstOwnPort, ownPorts = 20000, 12000

// askOnce asks from a port that was not used before.
func askOnce(proto string, h lab.Host, port int) (reply, error) {
	for {
		mine := firstOwnPort + int(lastPort.Add(1)%ownPorts)
		var local net.Addr = &net.TCPAddr{Port: mine}
		if proto == "udp" {
			local = &net.UDPAddr{Port: mine}
		}
		c, err := dialBy(proto, h, port, local)
		if errors.Is(err, errInUse) || errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer c.Close()
		r, err := c.ask()
		if own := c.LocalAddr().String(); err == nil && r["client"] != own {
			err = fmt.Errorf("%s saw %s, the client is %s", r["task"], r["client"], own)
		}
		return r, err
	}
}

// caller is an open connection to the sample service.
type caller struct {
	net.Conn
	lines *bufio.Reader
	proto string
}

func dialFrom(proto string, h lab.Host, port int, from netip.AddrPort) (*caller, error) {
	if from.IsValid() && proto == "tcp" {
		return dialBy(proto, h, port, net.TCPAddrFromAddrPort(from))
	}
	return dialBy(proto, h, port, nil)
}

func dialBy(proto string, h lab.Host, port int, local net.Addr) (*caller, error) {
	d := net.Dialer{Timeout: labtest.Within(askPatience), Control: reuseAddr, LocalAddr: local}
	c, err := d.Dial(proto, target(h, port))
	if err != nil {
		return nil, err
	}
	return newCaller(c, proto), nil
}

func newCaller(c net.Conn, proto string) *caller {
	return &caller{Conn: c, lines: bufio.NewReader(c), proto: proto}
}

// ask asks once more on the same connection.
func (c *caller) ask() (reply, error) {
	if err := c.SetDeadline(time.Now().Add(labtest.Within(askPatience))); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return nil, err
	}
	if c.proto == "udp" {
		buffer := make([]byte, 2048)
		n, err := c.Read(buffer)
		if err != nil {
			return nil, err
		}
		return parse(string(buffer[:n]))
	}
	answer, err := http.ReadResponse(c.lines, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	return parse(string(raw))
}

// sourceKept: through every host, every task sees the client's address and port.
func sourceKept(w *world) {
	tasks := w.web("kept", 8211)
	var names []string
	for _, task := range tasks {
		names = append(names, "kept."+task.NodeID)
	}
	for _, how := range []question{askKept, askKeptUDP} {
		w.answered(how, w.lab.Hosts(), 8211, 30, "task", names)
		w.answered(how, six(w.lab.Hosts()), 8211, 30, "task", names)
	}
	w.undrifted()
}

// counters is a table that counts what leaves a host for the client in the clear.
const counters = `
table inet ssrc_count {
	counter seen {}
	chain out {
		type filter hook postrouting priority 300
		ip daddr %s tcp sport 8213 counter name seen
		ip6 daddr %s tcp sport 8213 counter name seen
	}
}
`

// clear returns how many packets of the port left the host for the client as they are.
func (w *world) clear(h lab.Host) int {
	w.Helper()
	out, err := h.Command(w.Context(), "nft", "list", "table", "inet", "ssrc_count").CombinedOutput()
	if err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	_, after, _ := strings.Cut(string(out), "packets ")
	number, _, _ := strings.Cut(after, " ")
	n, err := strconv.Atoi(number)
	w.must(err)
	return n
}

// quiet waits until the last packets of closed connections have left.
func (w *world) quiet() {
	w.Helper()
	last := -1
	w.eventually(5*time.Second, "no more packets leave", func() error {
		before := last
		last = 0
		for _, h := range w.lab.Hosts() {
			last += w.clear(h)
		}
		if last != before {
			return fmt.Errorf("%d packets, before %d", last, before)
		}
		return nil
	})
}

// replyByEntry: what a task on another host answers leaves by the host that the
// client reached, and by no other.
func replyByEntry(w *world) {
	w.start("entry", 1, published(8213, network.TCP), on("h2"))
	for _, h := range w.lab.Hosts() {
		cmd := h.Command(w.Context(), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(fmt.Sprintf(counters, w.lab.Outside(), w.lab.Outside6()))
		if out, err := cmd.CombinedOutput(); err != nil {
			w.Fatalf("%v: %s", err, out)
		}
		defer func() {
			if out, err := h.Command(context.Background(), "nft", "delete", "table", "inet", "ssrc_count").CombinedOutput(); err != nil {
				w.Errorf("%v: %s", err, out)
			}
		}()
	}
	entries := append(w.lab.Hosts(), six(w.lab.Hosts())...)
	for _, entry := range entries {
		w.answered(askKept, []lab.Host{entry}, 8213, 5, "node", []string{"h2"})
	}
	for _, entry := range entries {
		before := map[string]int{}
		w.quiet()
		for _, h := range w.lab.Hosts() {
			before[h.Name] = w.clear(h)
		}
		if _, err := answers(askKept, entry, 8213, 20, "node"); err != nil {
			w.Error(err)
		}
		w.quiet()
		for _, h := range w.lab.Hosts() {
			if n := w.clear(h) - before[h.Name]; n > 0 != (h.Name == entry.Name) {
				w.Errorf("entered by %s (%s): %d packets to the client left %s", entry.Name, entry.Address, n, h.Name)
			} else {
				w.Logf("entered by %s (%s), task on h2: %d packets to the client left %s", entry.Name, entry.Address, n, h.Name)
			}
		}
	}
}

// onePortManyHosts: one client's port is used towards all hosts at once, which
// lead to one task. Each connection goes on for itself, none waits, and the
// address stays the client's.
func onePortManyHosts(w *world) {
	w.start("many", 1, published(8215, network.TCP), on("h1"))
	hosts, outside := w.lab.Hosts(), w.lab.Outside()
	w.answered(askKept, append(hosts, six(hosts)...), 8215, 3, "node", []string{"h1"})
	for round := range 8 {
		if round == 4 {
			hosts, outside = six(hosts), w.lab.Outside6()
		}
		from := netip.AddrPortFrom(outside, uint16(45000+round%2))
		var open []*caller
		var seen []string
		for range 2 {
			for _, h := range hosts {
				began := time.Now()
				c, err := dialFrom("tcp", h, 8215, from)
				if errors.Is(err, errInUse) {
					continue // this port and this host are still open
				}
				if err != nil {
					w.Fatalf("round %d, %s: %v", round, h.Name, err)
				}
				if took := time.Since(began); took > labtest.Within(500*time.Millisecond) {
					w.Errorf("round %d: connecting to %s took %s", round, h.Name, took)
				}
				open = append(open, c)
			}
		}
		for i := range 2 * len(open) {
			r, err := open[i%len(open)].ask()
			if err != nil {
				w.Fatalf("round %d, connection %d: %v", round, i, err)
			}
			client, err := netip.ParseAddrPort(r["client"])
			if err != nil || client.Addr() != outside {
				w.Errorf("the task saw %s (%v)", r["client"], err)
			}
			if i < len(open) {
				seen = append(seen, r["client"])
			}
		}
		if !slices.Contains(seen, from.String()) && round%4 == 0 {
			w.Errorf("nobody kept the port: %v", seen)
		}
		w.Logf("port %d towards %d hosts: the task saw %v", from.Port(), len(open), seen)
		for _, c := range open {
			c.Close()
		}
	}
}

// transferBytes is enough to fill every window many times over.
const transferBytes = 8 << 20

// transfer: much data both ways, through a host that the task is not on, arrives
// whole and without a stall.
func transfer(w *world) {
	tasks := w.web("bulk", 8217)
	for _, task := range tasks {
		l, err := netns.Listen(w.Context(), fmt.Sprintf("/proc/%d/ns/net", pid(task)), "tcp", "[::]:90")
		w.must(err)
		defer l.Close()
		go echo(l)
	}
	want := make([]byte, transferBytes)
	rand.Read(want)
	for _, h := range append(w.lab.Hosts(), six(w.lab.Hosts())...) {
		w.eventually(15*time.Second, "the port answers", func() error {
			c, err := dialFrom("tcp", h, 8218, netip.AddrPort{})
			if err == nil {
				c.Close()
			}
			return err
		})
		for range tasks {
			began := time.Now()
			got, err := through(h, want)
			if err != nil || !bytes.Equal(got, want) {
				w.Errorf("through %s: %d of %d bytes, %v", h.Name, len(got), len(want), err)
			}
			w.Logf("%d MiB and back through %s took %s", transferBytes>>20, h.Name, time.Since(began).Round(time.Millisecond))
		}
	}
}

func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

// through sends data to a port that sends it back, and closes its side.
func through(h lab.Host, data []byte) ([]byte, error) {
	c, err := dialFrom("tcp", h, 8218, netip.AddrPort{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(labtest.Within(20 * time.Second))); err != nil {
		return nil, err
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		c.Write(data)
		c.Conn.(*net.TCPConn).CloseWrite()
	})
	return io.ReadAll(c)
}

// sourceHidden: a service may ask for the old way; and clients that no task could
// answer are hidden whoever is asked: a task of the same host, and loopback.
func sourceHidden(w *world) {
	nat := func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"shoal.mesh.source": "nat"} }
	w.start("natted", 2, published(8221, network.TCP), nat)
	hidden := func(h lab.Host, port int) (reply, error) {
		c, err := dialFrom("tcp", h, port, netip.AddrPort{})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		r, err := c.ask()
		if err == nil && !strings.HasPrefix(r["client"], "169.254.") && !strings.HasPrefix(r["client"], "[fd53:686f:616c:2::") {
			err = fmt.Errorf("%s saw %s", r["task"], r["client"])
		}
		return r, err
	}
	w.answered(hidden, append(w.lab.Hosts(), six(w.lab.Hosts())...), 8221, 10, "task", []string{"natted.1", "natted.2"})
	tasks := w.web("open", 8223)
	for i, task := range tasks {
		h := w.host(i%len(w.lab.Hosts()) + 1)
		for _, h := range []lab.Host{h, w.host(1), six([]lab.Host{h})[0]} {
			w.eventually(10*time.Second, "a task asks a host's published port", func() error {
				out, err := inside(task, "get", "-n", "6", "http://"+target(h, 8223)+"/")
				if n := strings.Count(out, "client="); err == nil && n != 6 {
					err = fmt.Errorf("%d answers to 6 questions: %q", n, out)
				}
				return err
			})
		}
	}
	for _, h := range w.lab.Hosts() {
		for _, localhost := range []string{"127.0.0.1", "[::1]"} {
			seen := map[string]bool{}
			for range 6 {
				out, err := h.Command(w.Context(), "curl", "-s", "-m", fmt.Sprint(labtest.Within(5*time.Second).Seconds()), "http://"+localhost+":8223/").Output()
				r, parseErr := parse(string(out))
				if err != nil || parseErr != nil {
					w.Fatalf("%s of %s: %v, %v", localhost, h.Name, err, parseErr)
				}
				seen[r["task"]] = true
			}
			if len(seen) != len(tasks) {
				w.Errorf("%s of %s was answered by %v", localhost, h.Name, slices.Collect(maps.Keys(seen)))
			}
		}
	}
}

// internalOnly: a task that has no way to the outside answers clients of its
// published port all the same, and still has no way out of its own.
func internalOnly(w *world) {
	var made struct{ Id string }
	w.must(w.call(http.MethodPost, "/networks/create", network.CreateRequest{Name: "closed", Driver: "overlay", Internal: true, EnableIPv6: new(true)}, &made))
	w.networks = append(w.networks, made.Id)
	tasks := w.web("inner", 8225, attached(made.Id))
	var names []string
	for _, task := range tasks {
		names = append(names, "inner."+task.NodeID)
	}
	for _, how := range []question{askKept, askKeptUDP} {
		w.answered(how, w.lab.Hosts(), 8225, 12, "task", names)
		w.answered(how, six(w.lab.Hosts()), 8225, 12, "task", names)
	}
	// Over IPv6 the kernel heeds the refusal of the second try, after a second.
	for world, within := range map[netip.Addr]time.Duration{w.lab.Outside(): time.Second, w.lab.Outside6(): 3 * time.Second} {
		began := time.Now()
		ctx, cancel := context.WithTimeout(w.Context(), labtest.Within(5*time.Second))
		defer cancel()
		c, err := netns.Dial(ctx, fmt.Sprintf("/proc/%d/ns/net", pid(tasks[0])), "tcp", netip.AddrPortFrom(world, 9).String())
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "unreachable") && !strings.Contains(err.Error(), "no route") || time.Since(began) > labtest.Within(within) {
			w.Errorf("a task without a way out reached for the world: %v after %s", err, time.Since(began))
		}
	}
	w.undrifted()
}

// returnTrampled: what leads replies back heals when it is deleted by hand.
func returnTrampled(w *world) {
	task := w.start("heal", 1, published(8227, network.TCP), on("h2"))[0]
	works := func(after string) {
		w.Helper()
		w.eventually(10*time.Second, "the mesh keeps the source after: "+after, func() error {
			_, err := answers(askKept, w.host(1), 8227, 5, "node")
			if err == nil {
				_, err = answers(askKept, six(w.lab.Hosts())[0], 8227, 5, "node")
			}
			return err
		})
		w.undrifted()
	}
	works("start")
	for _, damage := range []string{
		"nft delete table inet shoal_return", "nft delete table netdev shoal_return", "nft flush chain inet shoal_return zone",
		"nft flush chain netdev shoal_return address", "ip rule del pref 8300", "ip route flush table 8300",
		"ip neigh del 169.254.64.0 dev eth0", "ip link set eth0 down",
		"ip -6 rule del pref 8300", "ip -6 route flush table 8300", "ip neigh del fd53:686f:616c:2::ffff dev eth0", "ip -6 addr flush dev eth0 scope global",
	} {
		args := append([]string{"-t", strconv.Itoa(pid(task)), "-n"}, strings.Fields(damage)...)
		if out, err := exec.CommandContext(w.Context(), "nsenter", args...).CombinedOutput(); err != nil {
			w.Errorf("%s: %v: %s", damage, err, out)
			continue
		}
		works(damage)
	}
}

// sourceAfterPowerCut: with a host gone the others go on as before.
func sourceAfterPowerCut(w *world) {
	w.start("cut", 4, published(8229, network.TCP))
	alive := w.lab.Hosts()[:2]
	w.eventually(15*time.Second, "the mesh keeps the source", func() error {
		_, err := answers(askKept, w.host(3), 8229, 8, "node")
		return err
	})
	w.must(w.lab.PowerCut(w.Context(), w.host(3)))
	w.eventually(60*time.Second, "no task counts on the dead host", func() error {
		for _, task := range w.running("cut", 4, 60*time.Second) {
			if name := w.hostname(task.NodeID); name == "h3" {
				return fmt.Errorf("task %s is still on %s", task.ID, name)
			}
		}
		return nil
	})
	w.answered(askKept, alive, 8229, 40, "task", []string{"cut.1", "cut.2", "cut.3", "cut.4"})
	w.must(w.lab.Heal(w.Context()))
	w.answered(askKept, w.lab.Hosts(), 8229, 40, "task", []string{"cut.1", "cut.2", "cut.3", "cut.4"})
}
