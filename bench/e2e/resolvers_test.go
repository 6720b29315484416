//go:build lab

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/overlay/netns"
)

// resolvConf is the hosts' resolv.conf, below the lab's directory. The test writes it.
const resolvConf = "resolv.conf"

// stub is where the hosts' own name server listens, as systemd-resolved does on
// many machines: on loopback, where tasks could never reach it.
const stub = "127.0.0.99"

// resolvers: what the name servers of the cluster do not know is asked of the
// host's, from the host's network, or of those that a service names, from the
// task's; a task inside reaches only what is inside; and /etc/resolv.conf says
// what it should.
func resolvers(w *world) {
	file := filepath.Join(filepath.Dir(w.host(1).Dir), resolvConf)
	w.must(os.WriteFile(file, []byte("nameserver "+stub+"\nsearch corp.example\noptions rotate\n"), 0o644))
	defer os.Remove(file)
	for _, h := range w.lab.Hosts() {
		defer w.answering("/run/netns/"+h.Namespace, stub+":53", "192.0.2.1")()
	}
	outer, inner := w.network("res-outer"), w.internal("res-inner")
	server := w.start("res-server", 1, attached(outer), attached(inner))[0]
	defer w.answering(fmt.Sprintf("/proc/%d/ns/net", pid(server)), "0.0.0.0:53", "192.0.2.2")()
	ask := func(networkID string) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr(addresses(server, networkID)[0])}
	}
	for _, c := range []struct { // one asks for the name of the one before it
		name    string
		network string
		dns     swarm.DNSConfig
		want    map[string]string // answers
		file    string            // behind the nameserver line
	}{
		{"res-plain", outer, swarm.DNSConfig{},
			map[string]string{"www.example.": "NOERROR 192.0.2.1", "nobody.": "NOERROR 192.0.2.1", "res-server.res-inner.": "NOERROR 192.0.2.1"},
			"search corp.example\noptions rotate ndots:0\n"},
		{"res-own", outer, swarm.DNSConfig{Nameservers: append(ask(outer), netip.MustParseAddr("127.0.0.11")), Search: []string{"."}, Options: []string{"ndots:2"}},
			map[string]string{"www.example.": "NOERROR 192.0.2.2", "nobody.": "NOERROR ", "res-plain.": "NOERROR virtual"}, "options ndots:2\n"},
		{"res-inside", inner, swarm.DNSConfig{Search: []string{"a.example", "b.example"}},
			map[string]string{"www.example.": "SERVFAIL ", "res-server.": "NOERROR virtual"}, "search a.example b.example\noptions rotate ndots:0\n"},
		{"res-inside-own", inner, swarm.DNSConfig{Nameservers: ask(inner), Options: []string{"ndots:x", "timeout:1"}},
			map[string]string{"www.example.": "NOERROR 192.0.2.2"}, "search corp.example\noptions timeout:1 ndots:0\n"},
	} {
		name := c.name
		client := w.start(name, 1, attached(c.network), func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.DNSConfig = &c.dns })[0]
		for question, want := range c.want {
			w.eventually(15*time.Second, question+" in "+name, func() error { return told(client, question, want) })
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/resolv.conf", pid(client)))
		if want := "nameserver 127.0.0.11\n" + c.file; err != nil || string(raw) != want {
			w.Errorf("%s has the resolv.conf %q (%v), not %q", name, raw, err, want)
		}
		w.binds53(client)
	}
}

// told compares an answer; virtual stands for any one address.
func told(client swarm.Task, name, want string) error {
	answer, err := query(client, name, dns.TypeA)
	if err != nil {
		return err
	}
	got := dns.RcodeToString[answer.Rcode] + " " + strings.Join(values(answer.Answer), " ")
	if one, ok := strings.CutSuffix(want, "virtual"); ok && strings.HasPrefix(got, one+"10.") {
		return nil
	}
	if got != want {
		return fmt.Errorf("%s is %q, not %q", name, got, want)
	}
	return nil
}

// values are the last fields of records, sorted.
func values(records []dns.RR) (out []string) {
	for _, rr := range records {
		fields := strings.Fields(rr.String())
		out = append(out, fields[len(fields)-1])
	}
	slices.Sort(out)
	return out
}

// internal creates a network without a way out, to be removed after the test.
func (w *world) internal(name string) string {
	w.Helper()
	var made struct{ Id string }
	w.must(w.call(http.MethodPost, "/networks/create", network.CreateRequest{Name: name, Driver: "overlay", Internal: true}, &made))
	w.networks = append(w.networks, made.Id)
	return made.Id
}

// answering is a name server in a namespace that answers everything with one address.
func (w *world) answering(namespace, at, addr string) (stop func()) {
	w.Helper()
	udp, err := netns.ListenPacket(w.Context(), namespace, "udp4", at)
	w.must(err)
	handle := dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(addr).To4()}}
		_ = to.WriteMsg(m) // who went away is no error
	})
	s := &dns.Server{PacketConn: udp, Handler: handle}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go func() { _ = s.ActivateAndServe() }() // until it is shut down
	<-started
	return func() {
		if err := s.Shutdown(); err != nil {
			w.Error(err)
		}
	}
}

// binds53: a task may have a name server of its own, also on the address where
// it is told to ask; the cluster's answers all the same.
func (w *world) binds53(task swarm.Task) {
	w.Helper()
	namespace := fmt.Sprintf("/proc/%d/ns/net", pid(task))
	for _, at := range []string{"127.0.0.11:53", "0.0.0.0:53"} {
		udp, err := netns.ListenPacket(w.Context(), namespace, "udp4", at)
		if err != nil {
			w.Errorf("bind: %v", err)
			continue
		}
		tcp, err := netns.Listen(w.Context(), namespace, "tcp4", at)
		if err != nil {
			w.Errorf("bind: %v", err)
		} else {
			tcp.Close()
		}
		if err := told(task, "res-server.", "NOERROR virtual"); err != nil {
			w.Errorf("with a socket at %s: %v", at, err)
		}
		udp.Close()
	}
}
