package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"shoal/dns/zone"
)

// outside is another name server, which answers every question by its code. It
// counts the questions.
type outside struct {
	at    netip.AddrPort
	mu    sync.Mutex
	asked int
}

func (o *outside) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.asked
	o.asked = 0
	return n
}

func newOutside(t *testing.T, handle dns.HandlerFunc) *outside {
	t.Helper()
	udp, tcp := sockets(t)
	o := &outside{at: udp.LocalAddr().(*net.UDPAddr).AddrPort()}
	counted := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		o.mu.Lock()
		o.asked++
		o.mu.Unlock()
		handle(w, q)
	})
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: counted}, {Listener: tcp, Handler: counted}} {
		started, done := make(chan struct{}), make(chan error)
		s.NotifyStartedFunc = func() { close(started) }
		go func() { done <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := s.Shutdown(); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
	return o
}

// says answers with a code, and for a success with an address.
func says(rcode int, addr string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, rcode)
		if rcode == dns.RcodeSuccess && addr != "" {
			m.Answer = []dns.RR{&dns.A{Hdr: header(q.Question[0].Name, dns.TypeA), A: netip.MustParseAddr(addr).AsSlice()}}
		}
		_ = w.WriteMsg(m) // who went away is no error
	}
}

// silent never answers.
func silent(dns.ResponseWriter, *dns.Msg) {}

// TestForwarding goes through what the other servers say, and what the client is told.
func TestForwarding(t *testing.T) {
	good := newOutside(t, says(dns.RcodeSuccess, "192.0.2.7"))
	fails, refuses := newOutside(t, says(dns.RcodeServerFailure, "")), newOutside(t, says(dns.RcodeRefused, ""))
	unknown := newOutside(t, says(dns.RcodeNameError, ""))
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp.Close() // nobody listens there
	closed := &outside{at: tcp.Addr().(*net.TCPAddr).AddrPort()}
	for _, c := range []struct {
		name    string
		servers []*outside
		rcode   int
		want    string
		asked   []int
	}{
		{"nobody to ask", nil, dns.RcodeServerFailure, "", nil},
		{"the first answers", []*outside{good, fails}, dns.RcodeSuccess, "192.0.2.7", []int{1, 0}},
		{"failures and refusals are passed over", []*outside{fails, refuses, good}, dns.RcodeSuccess, "192.0.2.7", []int{1, 1, 1}},
		{"all fail", []*outside{fails, refuses}, dns.RcodeServerFailure, "", []int{1, 1}},
		{"an unknown name is an answer", []*outside{unknown, good}, dns.RcodeNameError, "", []int{1, 0}},
		{"nobody listens", []*outside{closed, good}, dns.RcodeSuccess, "192.0.2.7", []int{0, 1}},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(c.name+" "+network, func(t *testing.T) {
				var own []netip.AddrPort
				for _, s := range c.servers {
					own = append(own, s.at)
				}
				b := serve(t, example(), Task{})
				b.SetUpstreams(own)
				m := b.ask(network, "elsewhere.example", dns.TypeA)
				if m.Rcode != c.rcode || lasts(m.Answer) != c.want {
					t.Errorf("answered %v", m)
				}
				for i, s := range c.servers {
					if got := s.count(); got != c.asked[i] {
						t.Errorf("server %d was asked %d times", i, got)
					}
				}
			})
		}
	}
}

// TestWhoIsAsked: a task's own servers instead of the machine's, and none of
// those for a task that cannot reach them.
func TestWhoIsAsked(t *testing.T) {
	machine, own := newOutside(t, says(dns.RcodeSuccess, "192.0.2.1")), newOutside(t, says(dns.RcodeSuccess, "192.0.2.2"))
	for _, c := range []struct {
		name string
		task Task
		ask  string
		kind uint16
		want string
	}{
		{"the machine's", Task{}, "elsewhere.example", dns.TypeA, "NOERROR 192.0.2.1"},
		{"the task's", Task{Servers: []netip.AddrPort{own.at}}, "elsewhere.example", dns.TypeA, "NOERROR 192.0.2.2"},
		{"the task's, inside", Task{Servers: []netip.AddrPort{own.at}, Inside: true}, "elsewhere.example", dns.TypeA, "NOERROR 192.0.2.2"},
		{"none, inside", Task{Inside: true}, "elsewhere.example", dns.TypeA, "SERVFAIL "},
		{"a single label", Task{}, "elsewhere", dns.TypeA, "NOERROR 192.0.2.1"},
		{"a single label that needs a domain", Task{Whole: true}, "elsewhere", dns.TypeA, "NOERROR "},
		{"an address of it", Task{Whole: true}, "elsewhere", dns.TypeMX, "NOERROR 192.0.2.1"},
		{"two labels", Task{Whole: true}, "else.where", dns.TypeA, "NOERROR 192.0.2.1"},
		{"a name that is known", Task{Whole: true}, "web", dns.TypeA, "NOERROR 10.0.1.2"},
		{"a network that is not the client's", Task{}, "web.back", dns.TypeA, "NOERROR 192.0.2.1"},
		{"a reverse name of the outside", Task{}, "1.2.0.192.in-addr.arpa", dns.TypePTR, "NOERROR 192.0.2.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := serve(t, example(), c.task)
			b.SetUpstreams([]netip.AddrPort{machine.at})
			m := b.ask("udp", c.ask, c.kind)
			if got := dns.RcodeToString[m.Rcode] + " " + lasts(m.Answer); got != c.want {
				t.Errorf("answered %q, want %q", got, c.want)
			}
		})
	}
}

// TestDeadServerIsShunned: only the first client waits for a server that is dead.
func TestDeadServerIsShunned(t *testing.T) {
	dead, good := newOutside(t, silent), newOutside(t, says(dns.RcodeSuccess, "192.0.2.7"))
	b := serve(t, zone.Model{}, Task{})
	b.SetUpstreams([]netip.AddrPort{dead.at, good.at})
	for i := range 3 {
		began := time.Now()
		if m := b.ask("udp", "elsewhere.example", dns.TypeA); lasts(m.Answer) != "192.0.2.7" {
			t.Errorf("answered %v", m)
		}
		if took := time.Since(began); i > 0 && took > queryTimeout/2 {
			t.Errorf("question %d took %s", i, took)
		}
	}
	if n := dead.count(); n != 1 {
		t.Errorf("the dead server was asked %d times", n)
	}
}

// TestForgedAnswers: what does not answer the question asked is not passed on.
func TestForgedAnswers(t *testing.T) {
	liar := newOutside(t, func(w dns.ResponseWriter, q *dns.Msg) {
		for _, change := range []func(m *dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Question[0].Name = "other.example." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
			func(m *dns.Msg) { m.Response = false },
			func(m *dns.Msg) { m.Answer[0].(*dns.A).A = net.IPv4(192, 0, 2, 1) },
		} {
			m := new(dns.Msg).SetReply(q.Copy())
			m.Answer = []dns.RR{&dns.A{Hdr: header(q.Question[0].Name, dns.TypeA), A: net.IPv4(192, 0, 2, 66)}}
			change(m)
			_ = w.WriteMsg(m) // who went away is no error
		}
	})
	b := serve(t, zone.Model{}, Task{})
	b.SetUpstreams([]netip.AddrPort{liar.at})
	if m := b.ask("udp", "elsewhere.example", dns.TypeA); lasts(m.Answer) != "192.0.2.1" {
		t.Errorf("answered %v", m)
	}
}

// TestForwardedSizes: an answer that is cut is passed on as cut, one that is too
// large for the client is cut, and over TCP all is there.
func TestForwardedSizes(t *testing.T) {
	big := newOutside(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for i := range 100 {
			m.Answer = append(m.Answer, &dns.A{Hdr: header(q.Question[0].Name, dns.TypeA), A: net.IPv4(192, 0, 2, byte(i))})
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp && q.Question[0].Name == "polite.example." {
			m.Truncate(dns.MinMsgSize)
		}
		_ = w.WriteMsg(m) // who went away is no error
	})
	b := serve(t, zone.Model{}, Task{})
	b.SetUpstreams([]netip.AddrPort{big.at})
	for _, name := range []string{"polite.example", "rude.example"} {
		if m := b.ask("udp", name, dns.TypeA); !m.Truncated {
			t.Errorf("%s over UDP: %d answers, not marked", name, len(m.Answer))
		}
		if m := b.ask("tcp", name, dns.TypeA); m.Truncated || len(m.Answer) != 100 {
			t.Errorf("%s over TCP: truncated %v, %d answers", name, m.Truncated, len(m.Answer))
		}
	}
	if m := b.exchange("udp", new(dns.Msg).SetQuestion("rude.example.", dns.TypeA).SetEdns0(4096, false)); len(m.Answer) != 100 {
		t.Errorf("a large answer to a client that takes it: %d answers", len(m.Answer))
	}
}

// TestOneTaskCannotTakeAll: a task with many questions under way is refused more,
// and another one is still served.
func TestOneTaskCannotTakeAll(t *testing.T) {
	held := make(chan struct{})
	slow := newOutside(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Name == "slow.example." {
			<-held
		}
		says(dns.RcodeSuccess, "192.0.2.7")(w, q)
	})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	b := serve(t, zone.Model{}, Task{})
	b.SetUpstreams([]netip.AddrPort{slow.at})
	conn, err := net.Dial("udp", b.at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := new(dns.Msg).SetQuestion("slow.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for taken := range maxForwardsPerTask {
		if _, err := conn.Write(raw); err != nil {
			t.Fatal(err)
		}
		for len(b.Listener.slots) <= taken {
			time.Sleep(10 * time.Microsecond)
		}
	}
	if m := b.ask("udp", "slow.example", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("one too many: %v", m)
	}
	udp, tcp := sockets(t)
	other := b.Serve(udp, tcp, Task{}, nil)
	defer other.Close()
	second := bed{b.Server, other, udp.LocalAddr().(*net.UDPAddr).AddrPort(), t}
	if m := second.ask("udp", "quick.example", dns.TypeA); m.Rcode != dns.RcodeSuccess {
		t.Errorf("another task: %v", m)
	}
	release()
}

func FuzzQuery(f *testing.F) {
	for _, m := range []*dns.Msg{
		new(dns.Msg).SetQuestion("web.", dns.TypeA), new(dns.Msg).SetQuestion("Many.app.", dns.TypeA).SetEdns0(600, true),
		new(dns.Msg).SetQuestion("_http._tcp.web.", dns.TypeSRV), new(dns.Msg).SetQuestion("2.1.0.10.in-addr.arpa.", dns.TypePTR),
		new(dns.Msg).SetQuestion(`od\.d.`, dns.TypeAAAA),
	} {
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	s := New(slog.New(slog.DiscardHandler))
	s.SetZone(zone.Build(example()))
	l := &Listener{s: s, dial: func(context.Context, string, string) (net.Conn, error) { return nil, fmt.Errorf("no") }}
	l.Set(Task{Networks: []string{"n1"}, Inside: true})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var name [maxName]byte
		q, usual := parse(raw, &name)
		slow := l.slow(raw, "udp")
		if !usual {
			check(t, raw, slow)
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(raw); err != nil {
			return // such as rubbish in an option, which quick need not read
		}
		quick := l.quick(nil, raw, q, q.size)
		if quick == nil {
			check(t, raw, slow)
			return
		}
		if len(quick) > q.size {
			t.Fatalf("%d bytes for a client that takes %d", len(quick), q.size)
		}
		// Both ways say the same, but what they cut off.
		a, b := check(t, raw, quick), check(t, raw, slow)
		if a.Rcode != b.Rcode || a.Truncated != b.Truncated || !a.Truncated && lasts(a.Answer) != lasts(b.Answer) {
			t.Fatalf("quick %v\nslow %v", a, b)
		}
	})
}

// check unpacks an answer and compares it with the query.
func check(t *testing.T, raw, answer []byte) *dns.Msg {
	if answer == nil {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(answer); err != nil {
		t.Fatalf("%x: %v", answer, err)
	}
	if !m.Response || m.Id != uint16(raw[0])<<8|uint16(raw[1]) {
		t.Fatalf("%v", m)
	}
	return m
}
