//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"golang.org/x/sys/unix"

	"shoal/bench/lab"
	"shoal/node/netview"
	"shoal/overlay/netns"
)

// dataPathLosesLargePackets: a network that carries less than the hosts' interfaces
// send is found by the self-test, told with the way out on the nodes that suffer
// from it, and forgotten once it is mended.
func dataPathLosesLargePackets(w *world) {
	told := func(h lab.Host, want string) func() error {
		return func() error {
			var view netview.DataPath
			if err := h.Call(w.Context(), http.MethodGet, "/shoal/datapath", nil, &view); err != nil {
				return err
			}
			for _, way := range view.Ways {
				bad := way.Node == "h2" || h.Name == "h2"
				if len(view.Ways) != 2 || bad && !strings.Contains(way.Trouble, want) || !bad && way.Trouble != "" || want == "" && way.MTU != 1450 {
					return fmt.Errorf("%+v", view.Ways)
				}
			}
			return nil
		}
	}
	message := func(want string) func() error {
		return func() error {
			nodes, err := get[[]swarm.Node](w, "/nodes", nil)
			for _, n := range nodes {
				if err == nil && (!strings.Contains(n.Status.Message, want) || want == "" && n.Status.Message != "") {
					err = fmt.Errorf("node %s says %q", n.Description.Hostname, n.Status.Message)
				}
			}
			return err
		}
	}
	// A bridge whose packets meet the filter cuts them to pieces instead of losing them.
	cable := func(mtu int) {
		out, err := exec.Command("ip", "netns", "exec", "se2e-lan", "sh", "-ec", fmt.Sprintf(`ip link set h2 mtu %d
			[ ! -e /proc/sys/net/bridge ] || echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables`, mtu)).CombinedOutput()
		if err != nil {
			w.Fatalf("%v: %s", err, out)
		}
	}
	// All hosts test at the same time.
	test := func() {
		var all sync.WaitGroup
		for _, h := range w.lab.Hosts() {
			all.Go(func() {
				if err := h.Call(w.Context(), http.MethodGet, "/shoal/datapath?test=1", nil, nil); err != nil {
					w.Error(err)
				}
			})
		}
		all.Wait()
	}
	cable(1400 - 4) // a bridge leaves room for a VLAN tag
	defer cable(1500)
	test()
	for _, h := range w.lab.Hosts() {
		w.eventually(30*time.Second, "large packets to and from h2 are lost", told(h, "packets of more than 1400 bytes get lost on the way"))
	}
	w.eventually(15*time.Second, "the nodes say so", message("create networks with --opt com.docker.network.driver.mtu=1350"))
	cable(1500)
	test()
	for _, h := range w.lab.Hosts() {
		w.eventually(15*time.Second, "all is well again", told(h, ""))
	}
	w.eventually(15*time.Second, "the nodes have nothing to say", message(""))
}

// alsoUDP publishes the service's first port for UDP too.
func alsoUDP(s *swarm.ServiceSpec) {
	port := s.EndpointSpec.Ports[0]
	port.Protocol = network.UDP
	s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, port)
}

// mtuFollows: networks have the MTU that they ask for, or what the host's interface
// leaves them, also when that changes.
func mtuFollows(w *world) {
	var made struct{ ID string }
	body := network.CreateRequest{Name: "mtu-asked", Driver: "overlay", Options: map[string]string{"com.docker.network.driver.mtu": "9x"}}
	if err := w.call(http.MethodPost, "/networks/create", body, &made); err == nil || !strings.Contains(err.Error(), "is no MTU") {
		w.Errorf("an MTU of 9x: %v", err)
	}
	body.Options["com.docker.network.driver.mtu"] = "1300"
	w.must(w.call(http.MethodPost, "/networks/create", body, &made))
	w.networks = append(w.networks, made.ID)
	free := w.network("mtu-free")
	tasks := w.start("mtu", 1, attached(made.ID), attached(free), published(8220, network.TCP), alsoUDP, on("h1"))
	h := w.host(1)
	ns := filepath.Join(h.Dir, "exec", "netns", "task-"+tasks[0].ID)
	// The networks in the order of their ids, the gateway last.
	mtus := func(want map[string]string) func() error {
		return func() error {
			out, err := exec.Command("nsenter", "--net="+ns, "ip", "-o", "link").Output()
			if err != nil {
				return err
			}
			got := map[string]bool{}
			for _, line := range strings.Split(string(out), "\n") {
				if words := strings.Fields(line); len(words) > 4 && strings.HasPrefix(words[1], "eth") {
					got[words[4]] = true
				}
			}
			for mtu, why := range want {
				if !got[mtu] {
					return fmt.Errorf("no interface with the MTU %s of %s: %v", mtu, why, got)
				}
			}
			return nil
		}
	}
	w.eventually(10*time.Second, "interfaces have their MTUs", mtus(map[string]string{"1300": "the option", "1450": "the interface", "1500": "the gateway"}))
	cable := func(mtu string) {
		out, err := h.Command(context.Background(), "ip", "link", "set", "eth0", "mtu", mtu).CombinedOutput()
		if err != nil {
			w.Fatalf("%v: %s", err, out)
		}
	}
	w.fits(w.host(2), 8220)
	cable("1600")
	defer cable("1500")
	w.eventually(10*time.Second, "interfaces follow", mtus(map[string]string{"1300": "the option", "1550": "the interface", "1600": "the gateway"}))
	cable("1500")
	w.eventually(10*time.Second, "interfaces follow back", mtus(map[string]string{"1300": "the option", "1450": "the interface", "1500": "the gateway"}))
	w.undrifted()
}

// fits: TCP through a published port agrees on segments that the overlay carries
// whole, and who sends datagrams that must not be split is told how large they may be.
func (w *world) fits(h lab.Host, port int) {
	w.Helper()
	w.answered(ask, []lab.Host{h}, port, 1, "node", []string{"h1"})
	stream, err := net.Dial("tcp", target(h, port))
	w.must(err)
	defer stream.Close()
	if segment := sockopt(w, stream, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 0); segment > 1450-40 {
		w.Errorf("segments of %d bytes", segment)
	}
	datagrams, err := net.Dial("udp", target(h, port))
	w.must(err)
	defer datagrams.Close()
	sockopt(w, datagrams, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	w.eventually(5*time.Second, "too large a datagram is refused", func() error {
		if _, err := datagrams.Write(make([]byte, 1500-28)); !errors.Is(err, unix.EMSGSIZE) {
			return fmt.Errorf("sent: %v", err)
		}
		return nil
	})
	if mtu := sockopt(w, datagrams, unix.IPPROTO_IP, unix.IP_MTU, 0); mtu != 1450 {
		w.Errorf("the client believes in an MTU of %d", mtu)
	}
	w.eventually(5*time.Second, "a datagram of the full MTU is sent", func() error { // what was told of earlier ones comes first
		_, err := datagrams.Write(make([]byte, 1450-28))
		return err
	})
}

// sockopt sets a socket's option, or gets it where the value is 0.
func sockopt(w *world, c net.Conn, level, name, value int) (got int) {
	w.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	w.must(err)
	w.must(raw.Control(func(fd uintptr) {
		if value != 0 {
			err = unix.SetsockoptInt(int(fd), level, name, value)
		} else {
			got, err = unix.GetsockoptInt(int(fd), level, name)
		}
	}))
	w.must(err)
	return got
}

// firewall: people's rules judge published ports by who asks, also after the
// daemon was killed and the table damaged; strangers cannot speak VXLAN to a host.
func firewall(w *world) {
	w.start("walled", 1, published(8221, network.TCP), on("h2"))
	h := w.host(1)
	w.answered(ask, []lab.Host{h}, 8221, 3, "node", []string{"h2"})
	rule := "add rule inet shoal_nat user meta l4proto tcp ct original proto-dst 8221 ct original ip saddr " + w.lab.Outside().String() + " drop"
	nft := func(words string) string {
		w.Helper()
		out, err := h.Command(context.Background(), append([]string{"nft"}, strings.Fields(words)...)...).CombinedOutput()
		if err != nil {
			w.Fatalf("nft %s: %v: %s", words, err, out)
		}
		return string(out)
	}
	nft(rule)
	defer nft("flush chain inet shoal_nat user")
	walled := func(when string) {
		w.Helper()
		if c, err := net.DialTimeout("tcp", target(h, 8221), 300*time.Millisecond); err == nil {
			c.Close()
			w.Errorf("%s: whom the rule keeps out is let in", when)
		}
		w.answered(ask, []lab.Host{w.host(2)}, 8221, 3, "node", []string{"h2"})
	}
	walled("at first")
	nft("flush chain inet shoal_nat prerouting")
	nft("flush chain inet shoal_nat passing")
	w.undrifted()
	walled("after damage")
	w.must(w.lab.KillDaemon(w.Context(), h))
	walled("without the daemon")
	w.must(w.lab.Heal(w.Context()))
	w.start("walled-too", 1, published(8222, network.TCP))
	w.answered(ask, []lab.Host{h}, 8222, 3, "task", []string{"walled-too.1"})
	walled("after a restart and a change")
	if list := nft("list chain inet shoal_nat user"); strings.Count(list, "drop") != 1 {
		w.Errorf("the chain of people's rules has become\n%s", list)
	}
	var d net.Dialer
	w.intruder(h, "a stranger", "others", netip.AddrPortFrom(h.Address, 4789), d.DialContext)
	task := w.start("walled-in", 1, published(8223, network.TCP), on("h1"))[0]
	for _, to := range w.lab.Hosts() {
		w.intruder(h, "a task", "out of a link of ours", netip.AddrPortFrom(to.Address, 4789), func(ctx context.Context, proto, address string) (net.Conn, error) {
			return netns.Dial(ctx, fmt.Sprintf("/proc/%d/ns/net", pid(task)), proto, address)
		})
	}
}

// intruder sends frames that are no member's, and looks whether the rule on the
// host drops them.
func (w *world) intruder(h lab.Host, who, rule string, to netip.AddrPort, dial func(context.Context, string, string) (net.Conn, error)) {
	w.Helper()
	dropped := func() string {
		out, err := h.Command(w.Context(), "nft", "list", "chain", "inet", "shoal_nat", "members").CombinedOutput()
		w.must(err)
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, rule) {
				return line
			}
		}
		return ""
	}
	before := dropped()
	c, err := dial(w.Context(), "udp", to.String())
	w.must(err)
	defer c.Close()
	_, err = c.Write([]byte("frame"))
	w.must(err)
	w.eventually(5*time.Second, who+"'s frame to "+to.String()+" is dropped", func() error {
		if after := dropped(); after == before || !strings.Contains(after, "4789") {
			return fmt.Errorf("before %s, after %s", before, after)
		}
		return nil
	})
}
