package main

import "fmt"

// Addresses of the plain hosts. Clients of the raw balancer use an address of
// their own, which servers reach through the balancer only: it translates the
// destination and nothing else, as IPVS does in the mode of that name.
const (
	clientHost, plainHost1, plainHost2, rawHost = 9, 1, 2, 21

	rawClientLAN = "10.96.2.9"
	rawVIPLAN    = "10.96.3.1"
	rawNear      = "10.99.1.2" // behind the raw balancer's host
	rawNearGate  = "10.99.1.1"

	rawClient  = "10.98.0.11"
	rawVIPNear = "10.97.9.1"
	rawVIPFar  = "10.97.9.2"

	proxyNear, proxyFar = 8101, 8102
	rawPortNear         = 7001
	rawPortFar          = 7002
)

// plainNet is the plain overlay: a client and a server on the first host, a server
// on the second; a raw balancer and a proxy on the first.
var plainNet = overlay{
	name: "o", plain: true, vni: 961, subnet: "10.97.0",
	hosts: []string{"h1", "h2"}, vteps: []string{underlay(plainHost1), underlay(plainHost2)},
	members: []member{
		{name: "k1", host: 0, last: fewLast}, {name: "k2", host: 0, last: manyLast},
		{name: "c1", host: 0, last: 11}, {name: "s1", host: 0, last: 21}, {name: "s2", host: 1, last: 22},
		{name: "dr", host: 0, last: 31}, {name: "px", host: 0, last: 32},
	},
}

// plain makes the hosts and the overlay that nothing balances, and beside them
// the raw balancer and HAProxy.
func (s *site) plain(ipvs bool) (proxies map[string]int) {
	s.lan()
	s.host("out", clientHost)
	s.host("h1", plainHost1)
	s.host("h2", plainHost2)
	s.host("r1", rawHost)
	s.overlay(plainNet)
	s.rawEast(ipvs)
	s.rawNorth(ipvs)
	for _, name := range []string{"h1", "h2", "s1", "s2", "b1"} {
		s.server(name, path(name))
	}
	for _, name := range []string{"out", "c1", "h1"} {
		s.client(name, path(name))
	}
	near, far := plainNet.addr(21).String(), plainNet.addr(22).String()
	return map[string]int{
		"px": s.proxy("px", near, far),
		"h1": s.proxy("h1", "127.0.0.1", underlay(plainHost2)),
	}
}

// rawEast is a raw balancer between tasks.
func (s *site) rawEast(ipvs bool) {
	s.forwards("dr")
	balancer, client := plainNet.addr(31), plainNet.addr(11)
	s.ip("c1", fmt.Sprintf("addr add %s/32 dev eth0\nroute add 10.97.9.0/24 via %s src %s\n", rawClient, balancer, rawClient))
	for _, server := range []string{"s1", "s2"} {
		s.ip(server, fmt.Sprintf("route add %s/32 via %s\n", rawClient, balancer))
	}
	s.ip("dr", fmt.Sprintf("route add %s/32 via %s\naddr add %s/32 dev lo\naddr add %s/32 dev lo\n", rawClient, client, rawVIPNear, rawVIPFar))
	s.balance("dr", ipvs,
		front{rawVIPNear, portServer, plainNet.addr(21).String()},
		front{rawVIPFar, portServer, plainNet.addr(22).String()})
}

// rawNorth is a raw balancer on a host, for clients from outside.
func (s *site) rawNorth(ipvs bool) {
	s.forwards("r1")
	s.namespace("b1")
	s.cable("r1", "b1", rawNearGate+"/24", "b1", "eth0", rawNear+"/24")
	s.ip("b1", "route add default via "+rawNearGate+"\n")
	gate := underlay(rawHost)
	s.ip("out", fmt.Sprintf("addr add %s/32 dev eth0\nroute add %s/32 via %s src %s\n", rawClientLAN, rawVIPLAN, gate, rawClientLAN))
	s.ip("r1", fmt.Sprintf("addr add %s/32 dev lo\nroute add %s/32 via %s\n", rawVIPLAN, rawClientLAN, underlay(clientHost)))
	s.ip("h2", fmt.Sprintf("route add %s/32 via %s\n", rawClientLAN, gate))
	s.balance("r1", ipvs, front{rawVIPLAN, rawPortNear, rawNear}, front{rawVIPLAN, rawPortFar, underlay(plainHost2)})
}

// front leads an address and port to a server.
type front struct {
	addr   string
	port   int
	server string
}

// balance writes a raw balancer: IPVS, or a map of nftables.
func (s *site) balance(name string, ipvs bool, fronts ...front) {
	var elements, lines string
	for _, f := range fronts {
		elements += fmt.Sprintf("%s . %d : %s . %d, ", f.addr, f.port, f.server, portServer)
		lines += fmt.Sprintf("-A -t %s:%d -s rr\n-a -t %s:%d -r %s:%d -m\n", f.addr, f.port, f.addr, f.port, f.server, portServer)
	}
	if ipvs {
		s.ipvs(name, lines)
		return
	}
	s.nft(name, `table ip raw_balancer {
	map fronts { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = { `+elements+` } }
	chain prerouting {
		type nat hook prerouting priority dstnat;
		dnat to ip daddr . tcp dport map @fronts
	}
}
`)
}

// proxy runs HAProxy, as its package configures it, for a near and a far server.
func (s *site) proxy(name, near, far string) int {
	text := `defaults
	mode tcp
	timeout connect 5s
	timeout client 60s
	timeout server 60s
`
	for i, server := range []string{near, far} {
		text += fmt.Sprintf("listen port%d\n\tbind :%d\n\tserver one %s:%d\n", i, proxyNear+i, server, portServer)
	}
	return s.keep(name, "haproxy", "-db", "-q", "-f", s.file("haproxy-"+name+".cfg", text))
}
