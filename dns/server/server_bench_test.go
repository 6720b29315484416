package server

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"shoal/dns/zone"
)

// benchmarkNames is how many services the zone of the benchmark has.
const benchmarkNames = 10_000

// window is how many questions are under way at once.
const window = 64

// BenchmarkQuestions compares the name server with an echo of the same packets by
// a socket of the same kind: what is above the echo's time is the server's own.
func BenchmarkQuestions(b *testing.B) {
	n := zone.Network{ID: "n1", Name: "app"}
	for i := range benchmarkNames {
		n.Services = append(n.Services, zone.Service{Name: fmt.Sprint("service-", i), VirtualIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}})
	}
	s := New(slog.New(slog.DiscardHandler))
	s.SetZone(zone.Build(zone.Model{Networks: []zone.Network{n}}))
	var questions [][]byte
	for i := range 1000 {
		raw, err := new(dns.Msg).SetQuestion(fmt.Sprintf("service-%d.", i*7), dns.TypeA).SetEdns0(advertised, false).Pack()
		if err != nil {
			b.Fatal(err)
		}
		questions = append(questions, raw)
	}
	b.Run("echo", func(b *testing.B) {
		udp, tcp := sockets(b)
		tcp.Close()
		go echo(udp)
		defer udp.Close()
		flood(b, udp.LocalAddr().String(), questions)
	})
	b.Run("names", func(b *testing.B) {
		udp, tcp := sockets(b)
		l := s.Serve(udp, tcp, Task{Networks: []string{"n1"}}, nil)
		defer l.Close()
		flood(b, udp.LocalAddr().String(), questions)
	})
}

// echo sends every packet back until the socket is closed.
func echo(udp *net.UDPConn) {
	buffer := make([]byte, maxQuery)
	for {
		n, from, err := udp.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		if _, err := udp.WriteToUDPAddrPort(buffer[:n], from); err != nil {
			return
		}
	}
}

// flood asks b.N questions, a window of them at a time.
func flood(b *testing.B, at string, questions [][]byte) {
	conn, err := net.Dial("udp", at)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	buffer := make([]byte, maxQuery)
	b.ReportAllocs()
	b.ResetTimer()
	for sent, received := 0, 0; received < b.N; {
		if sent < b.N && sent-received < window {
			if _, err := conn.Write(questions[sent%len(questions)]); err != nil {
				b.Fatal(err)
			}
			sent++
			continue
		}
		if _, err := conn.Read(buffer); err != nil {
			b.Fatal(err)
		}
		received++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "questions/s")
}
