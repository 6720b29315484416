package server

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"shoal/dns/zone"
)

// listen starts a server for a client on network n1 and returns where to ask.
func listen(t *testing.T, s *Server) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l := s.Serve(udp, tcp, []string{"n1"})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return tcp.Addr().String()
}

func newServer(t *testing.T) *Server {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	s := New(slog.New(slog.DiscardHandler))
	many := zone.Service{Name: "many"}
	for i := range 100 {
		many.Tasks = append(many.Tasks, zone.Task{FullName: fmt.Sprint("many.", i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 9, byte(i)})}})
	}
	web := zone.Service{
		Name: "web", VirtualIPs: []netip.Addr{netip.MustParseAddr("10.0.1.2")},
		Ports: []zone.Port{{Name: "http", Protocol: "tcp", Port: 80}},
		Tasks: []zone.Task{{Name: "web.1", FullName: "web.1.id", Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.3")}}},
	}
	s.SetZone(zone.Build(zone.Model{Networks: []zone.Network{{ID: "n1", Name: "app", Services: []zone.Service{web, many}}}}))
	return s
}

func ask(t *testing.T, network, server, name string, kind uint16) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network}
	m, _, err := c.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), server)
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return m
}

func TestAnswers(t *testing.T) {
	server := listen(t, newServer(t))
	for _, c := range []struct {
		name string
		kind uint16
		want string // the last field of each answer
	}{
		{"web", dns.TypeA, "10.0.1.2"},
		{"Web.App", dns.TypeA, "10.0.1.2"},
		{"tasks.web", dns.TypeA, "10.0.1.3"},
		{"web", dns.TypeAAAA, ""},
		{"web", dns.TypeMX, ""},
		{"2.1.0.10.in-addr.arpa", dns.TypePTR, "web.app."},
		{"_http._tcp.web", dns.TypeSRV, "web.1.id.app."},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, network, server, c.name, c.kind)
			var got []string
			for _, rr := range m.Answer {
				fields := strings.Fields(rr.String())
				got = append(got, fields[len(fields)-1])
				if rr.Header().Ttl > 5 {
					t.Errorf("%s may be believed for %d s", c.name, rr.Header().Ttl)
				}
			}
			if m.Rcode != dns.RcodeSuccess || strings.Join(got, " ") != c.want {
				t.Errorf("%s %s %s: %s %v, want %q", network, c.name, dns.TypeToString[c.kind], dns.RcodeToString[m.Rcode], got, c.want)
			}
		}
	}
}

func TestLargeAnswers(t *testing.T) {
	server := listen(t, newServer(t))
	m := ask(t, "udp", server, "many", dns.TypeA)
	m.Compress = true // as it came over the wire
	if !m.Truncated || m.Len() > dns.MinMsgSize {
		t.Errorf("over plain UDP: truncated %v, %d bytes", m.Truncated, m.Len())
	}
	if m := ask(t, "tcp", server, "many", dns.TypeA); m.Truncated || len(m.Answer) != 100 {
		t.Errorf("over TCP: truncated %v, %d answers", m.Truncated, len(m.Answer))
	}
}

func TestAnswersAreShuffled(t *testing.T) {
	server := listen(t, newServer(t))
	first := map[string]bool{}
	for range 20 {
		m := ask(t, "tcp", server, "many", dns.TypeA)
		first[m.Answer[0].String()] = true
	}
	if len(first) < 2 {
		t.Error("20 answers began with the same address")
	}
}

func TestForwarding(t *testing.T) {
	s := newServer(t)
	server := listen(t, s)
	if m := ask(t, "udp", server, "elsewhere.example", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("with nobody to ask: %s", dns.RcodeToString[m.Rcode])
	}
	other := New(slog.New(slog.DiscardHandler))
	other.SetZone(zone.Build(zone.Model{Networks: []zone.Network{{ID: "n1", Name: "x", Services: []zone.Service{
		{Name: "elsewhere.example", VirtualIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}},
	}}}}))
	upstream := listen(t, other)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close() // nobody answers there any more: the next server is asked
	s.SetUpstreams([]string{dead.Addr().String(), upstream})
	for _, network := range []string{"udp", "tcp"} {
		m := ask(t, network, server, "elsewhere.example", dns.TypeA)
		if len(m.Answer) != 1 || !strings.HasSuffix(m.Answer[0].String(), "192.0.2.7") {
			t.Errorf("%s: %v", network, m)
		}
	}
}

func TestReverseAddr(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa.": "1.2.3.4", "1.in-addr.arpa.": "", "a.b.c.d.in-addr.arpa": "", "in-addr.arpa": "",
		strings.Repeat("0.", 31) + "f.ip6.arpa.": "f000::", strings.Repeat("0.", 30) + "f.ip6.arpa.": "", "zz.ip6.arpa": "",
	} {
		got, ok := reverseAddr(name)
		if want == "" && ok || want != "" && got.String() != want {
			t.Errorf("%s: %v %v", name, got, ok)
		}
	}
}

func FuzzQuestion(f *testing.F) {
	packed, err := new(dns.Msg).SetQuestion("web.", dns.TypeA).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	s := New(slog.New(slog.DiscardHandler))
	h := handler{s, []string{"n1"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		q := new(dns.Msg)
		if q.Unpack(raw) != nil || len(q.Question) != 1 {
			return
		}
		if m := h.local(q); m != nil && slices.Contains([]int{dns.RcodeServerFailure}, m.Rcode) {
			t.Fatalf("%v", m)
		}
	})
}
