package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"shoal/dns/zone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a server with a listener for a client on network n1.
type bed struct {
	*Server
	*Listener
	at netip.AddrPort
	t  *testing.T
}

// sockets opens a name server's two sockets, on a port that both can have.
func sockets(t testing.TB) (*net.UDPConn, *net.TCPListener) {
	t.Helper()
	var failed error
	for range 10 {
		tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Addr().(*net.TCPAddr).Port})
		if err == nil {
			return udp, tcp
		}
		failed = errors.Join(err, tcp.Close())
	}
	t.Fatal(failed)
	return nil, nil
}

func serve(t *testing.T, m zone.Model, task Task) *bed {
	t.Helper()
	s := New(slog.New(slog.DiscardHandler))
	s.SetZone(zone.Build(m))
	udp, tcp := sockets(t)
	task.Networks = []string{"n1"}
	b := &bed{s, s.Serve(udp, tcp, task, new(net.Dialer).DialContext), udp.LocalAddr().(*net.UDPAddr).AddrPort(), t}
	t.Cleanup(func() {
		if err := b.Listener.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func example() zone.Model {
	many := zone.Service{Name: "many"}
	for i := range 100 {
		many.Tasks = append(many.Tasks, zone.Task{FullName: fmt.Sprint("many.", i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 9, byte(i)})}})
	}
	addr := func(text string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(text)} }
	web := zone.Service{
		Name: "web", VirtualIPs: addr("10.0.1.2"), Ports: []zone.Port{{Name: "http", Protocol: "tcp", Port: 80}},
		Tasks: []zone.Task{{Name: "web.1", FullName: "web.1.id", Addrs: addr("10.0.1.3")}},
	}
	six := zone.Service{Name: "six", Tasks: []zone.Task{{FullName: "six.1.id", Addrs: addr("fd00::6")}}}
	both := zone.Service{Name: "both", Tasks: []zone.Task{{FullName: "both.1.id", Addrs: append(addr("fd00::7"), addr("10.0.1.7")...)}}}
	odd := zone.Service{Name: "odd!name", VirtualIPs: addr("10.0.1.8")}
	return zone.Model{Networks: []zone.Network{{ID: "n1", Name: "app", Services: []zone.Service{web, many, six, both, odd}}}}
}

func (b *bed) exchange(network string, q *dns.Msg) *dns.Msg {
	b.t.Helper()
	c := dns.Client{Net: network, Timeout: 10 * time.Second}
	m, _, err := c.Exchange(q, b.at.String())
	if err != nil {
		b.t.Fatalf("%s %s: %v", network, q.Question[0].Name, err)
	}
	if m.Question[0] != q.Question[0] {
		b.t.Errorf("asked %v, answered %v", q.Question[0], m.Question[0])
	}
	return m
}

func (b *bed) ask(network, name string, kind uint16) *dns.Msg {
	b.t.Helper()
	return b.exchange(network, new(dns.Msg).SetQuestion(dns.Fqdn(name), kind))
}

// lasts are the last fields of the records, sorted.
func lasts(records []dns.RR) string {
	var out []string
	for _, rr := range records {
		fields := strings.Fields(rr.String())
		out = append(out, fields[len(fields)-1])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestAnswers(t *testing.T) {
	b := serve(t, example(), Task{})
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"web", dns.TypeA, "10.0.1.2"},
		{"Web.App", dns.TypeA, "10.0.1.2"},
		{"tasks.web", dns.TypeA, "10.0.1.3"},
		{"web", dns.TypeAAAA, ""},
		{"web", dns.TypeMX, ""},
		{"web", dns.TypeTXT, ""},
		{"web", dns.TypeHTTPS, ""},
		{"web", dns.TypeSRV, ""},
		{"six", dns.TypeA, ""},
		{"six", dns.TypeAAAA, "fd00::6"},
		{"six", dns.TypeMX, ""},
		{"both", dns.TypeA, "10.0.1.7"},
		{"both", dns.TypeAAAA, "fd00::7"},
		{"both", dns.TypeANY, "10.0.1.7 fd00::7"},
		{"odd!name", dns.TypeA, "10.0.1.8"},
		{"odd!name", dns.TypeAAAA, ""},
		{"2.1.0.10.in-addr.arpa", dns.TypePTR, "web.app."},
		{"6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", dns.TypePTR, "six.1.id.app."},
		{"_http._tcp.web", dns.TypeSRV, "web.1.id.app."},
		{"_80._tcp.web.app", dns.TypeSRV, "web.1.id.app."},
		{"_http._tcp.web", dns.TypeA, ""},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := b.ask(network, c.name, c.kind)
			if got := lasts(m.Answer); m.Rcode != dns.RcodeSuccess || got != c.want {
				t.Errorf("%s %s %s: %s %s, want %q", network, c.name, dns.TypeToString[c.kind], dns.RcodeToString[m.Rcode], got, c.want)
			}
			for _, rr := range append(m.Answer, m.Extra...) {
				if rr.Header().Ttl > 5 {
					t.Errorf("%s may be believed for %d s", c.name, rr.Header().Ttl)
				}
			}
		}
	}
	if srv := b.ask("udp", "_http._tcp.web", dns.TypeSRV); lasts(srv.Extra) != "10.0.1.3" || srv.Answer[0].(*dns.SRV).Port != 80 {
		t.Errorf("SRV: %v", srv)
	}
	if n := b.Counts(); n.Local == 0 || n.Forwarded+n.Failed+n.Refused != 0 {
		t.Errorf("counted %+v", n)
	}
}

// TestReverseComesBack: the name of an address has that address.
func TestReverseComesBack(t *testing.T) {
	b := serve(t, example(), Task{})
	for _, addr := range []string{"10.0.1.2", "10.0.1.3", "fd00::6", "10.0.9.42"} {
		name, err := dns.ReverseAddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		ptr := b.ask("udp", name, dns.TypePTR).Answer
		if len(ptr) != 1 || lasts(b.ask("udp", ptr[0].(*dns.PTR).Ptr, dns.TypeANY).Answer) != addr {
			t.Errorf("%s is called %v", addr, ptr)
		}
	}
}

func TestLargeAnswers(t *testing.T) {
	b := serve(t, example(), Task{})
	for _, c := range []struct {
		network string
		size    uint16
		cut     bool
		most    int
	}{{"udp", 0, true, 512}, {"udp", 100, true, 512}, {"udp", 1232, true, 1232}, {"udp", 4096, false, 4096}, {"tcp", 0, false, 65535}, {"tcp", 512, false, 65535}} {
		q := new(dns.Msg).SetQuestion("many.", dns.TypeA)
		if c.size > 0 {
			q.SetEdns0(c.size, false)
		}
		m := b.exchange(c.network, q)
		m.Compress = true // as it came over the wire
		if m.Truncated != c.cut || m.Len() > c.most || c.cut && len(m.Answer) < c.most/18 || !c.cut && len(m.Answer) != 100 {
			t.Errorf("%s %d: truncated %v, %d bytes, %d answers", c.network, c.size, m.Truncated, m.Len(), len(m.Answer))
		}
		if got := m.IsEdns0(); (got != nil) != (c.size > 0) {
			t.Errorf("%s %d: options %v", c.network, c.size, got)
		}
	}
}

func TestAnswersAreShuffled(t *testing.T) {
	b := serve(t, example(), Task{})
	orders := map[string]bool{}
	for range 20 {
		m := b.ask("tcp", "many", dns.TypeA)
		orders[fmt.Sprint(m.Answer)] = true
		if got := lasts(m.Answer); strings.Count(got, " ") != 99 {
			t.Fatalf("answers %s", got)
		}
	}
	if len(orders) < 15 {
		t.Errorf("20 answers came in %d orders", len(orders))
	}
}

func TestOddQueries(t *testing.T) {
	b := serve(t, example(), Task{})
	two := new(dns.Msg).SetQuestion("web.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	notify := new(dns.Msg).SetNotify("web.")
	later := new(dns.Msg).SetQuestion("web.", dns.TypeA).SetEdns0(1232, false)
	later.IsEdns0().SetVersion(1)
	cookie := new(dns.Msg).SetQuestion("web.", dns.TypeA).SetEdns0(1232, false)
	cookie.IsEdns0().Option = append(cookie.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"})
	extra := new(dns.Msg).SetQuestion("web.", dns.TypeA)
	extra.Extra = []dns.RR{&dns.TXT{Hdr: header("x.", dns.TypeTXT), Txt: []string{"x"}}}
	for what, c := range map[string]struct {
		q     *dns.Msg
		rcode int
		want  string
	}{
		"two questions": {two, dns.RcodeFormatError, ""}, "a notify": {notify, dns.RcodeFormatError, ""},
		"a later version": {later, dns.RcodeBadVers, ""}, "an option": {cookie, dns.RcodeSuccess, "10.0.1.2"},
		"a record beside the question": {extra, dns.RcodeSuccess, "10.0.1.2"},
	} {
		if m := b.exchange("udp", c.q); m.Rcode != c.rcode || lasts(m.Answer) != c.want {
			t.Errorf("%s: %v", what, m)
		}
	}
}

// TestRelease: another holder of the sockets goes on, and what was taken is answered.
func TestRelease(t *testing.T) {
	b := serve(t, example(), Task{})
	old := b.Listener
	u, err := old.udp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err := old.tcp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	udp, err1 := net.FilePacketConn(u)
	tcp, err2 := net.FileListener(l)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	idle, err := net.Dial("tcp", b.at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	stop, asked := make(chan struct{}), make(chan error)
	go func() {
		var lost []error
		for n := 0; ; n++ {
			select {
			case <-stop:
				asked <- errors.Join(lost...)
				return
			default:
			}
			c := dns.Client{Net: []string{"udp", "tcp"}[n%2], Timeout: 5 * time.Second}
			if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("web.", dns.TypeA), b.at.String()); err != nil {
				lost = append(lost, fmt.Errorf("query %d: %w", n, err))
			}
		}
	}()
	next := b.Serve(udp.(*net.UDPConn), tcp.(*net.TCPListener), Task{Networks: []string{"n1"}}, nil)
	time.Sleep(20 * time.Millisecond) // both answer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := old.Release(ctx); err != nil {
		t.Error(err)
	}
	time.Sleep(20 * time.Millisecond) // only the next one answers
	close(stop)
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// TestManyConnections: a client that holds many connections gets no more than it
// may have, and those who ask over UDP do not notice.
func TestManyConnections(t *testing.T) {
	b := serve(t, example(), Task{})
	var open []net.Conn
	for range maxConnections + 10 {
		c, err := net.Dial("tcp", b.at.String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	refused := func() int { return int(b.Counts().Refused) }
	for end := time.Now().Add(5 * time.Second); refused() < 10 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := refused(); got != 10 {
		t.Errorf("%d connections refused", got)
	}
	b.ask("udp", "web", dns.TypeA)
	for _, c := range open {
		c.Close()
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
