package server

import (
	"context"
	"net"
	"time"

	"github.com/miekg/dns"
)

// forward asks the outside servers in turn and passes the first answer on.
func (s *Server) forward(w dns.ResponseWriter, q *dns.Msg) *dns.Msg {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.stats.Refused.Add(1)
		return new(dns.Msg).SetRcode(q, dns.RcodeRefused)
	}
	network := "udp"
	if _, ok := w.RemoteAddr().(*net.TCPAddr); ok {
		network = "tcp"
	}
	for _, server := range *s.upstreams.Load() {
		if reply := s.ask(network, server, q); reply != nil {
			s.stats.Forwarded.Add(1)
			reply.Id = q.Id
			return reply
		}
	}
	s.stats.Failed.Add(1)
	return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
}

// ask returns the server's answer, or nil when another server should be tried.
func (s *Server) ask(network, server string, q *dns.Msg) *dns.Msg {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	conn, err := s.dial(ctx, network, server)
	if err != nil {
		return nil
	}
	defer conn.Close()
	deadline := time.Now().Add(queryTimeout)
	if conn.SetDeadline(deadline) != nil {
		return nil
	}
	c := dns.Client{Net: network, Timeout: queryTimeout, UDPSize: dns.DefaultMsgSize}
	m := q.Copy()
	m.Id = dns.Id()
	reply, _, err := c.ExchangeWithConn(m, &dns.Conn{Conn: conn, UDPSize: dns.DefaultMsgSize})
	if err != nil || reply.Rcode == dns.RcodeServerFailure || reply.Rcode == dns.RcodeRefused {
		return nil
	}
	return reply
}
