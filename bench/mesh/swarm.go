package main

import "fmt"

// The path of Docker Swarm, as its network driver sets it up on Linux:
//
//	virtual IP      task → load balancer's namespace of the network, where IPVS
//	                chooses by a packet mark, and destination and source are
//	                translated → overlay → task
//	published port  host: destination translated → bridge of the hosts' gateway →
//	                ingress namespace: IPVS by a packet mark, destination and source
//	                translated → overlay → task: redirected to its port
//
// Where the kernel has no IPVS, a map of nftables stands for it.
const (
	swarmHost1, swarmHost2 = 11, 12
	swarmVIPNear           = 41
	swarmVIPFar            = 42
	swarmNear, swarmFar    = 8201, 8202

	swarmGate    = "172.19.0.1"
	swarmIngress = "172.19.0.2"
)

// swarmNames leads the questions of a task to its name server: Docker puts such
// rules into every container's namespace (daemon/libnetwork/resolver_unix.go).
const swarmNames = `table ip names {
	chain output {
		type nat hook output priority -100;
		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		ip saddr 127.0.0.11 udp sport 40053 snat to :53
		ip saddr 127.0.0.11 tcp sport 40053 snat to :53
	}
}
`

var swarmNet = overlay{
	name: "v", vni: 962, subnet: "10.97.1",
	hosts: []string{"w1", "w2"}, vteps: []string{underlay(swarmHost1), underlay(swarmHost2)},
	members: []member{
		{name: "wc", host: 0, last: 11}, {name: "t1", host: 0, last: 21}, {name: "t2", host: 1, last: 22},
		{name: "lb", host: 0, last: 33}, {name: "in", host: 0, last: 34},
	},
}

func (s *site) swarm(ipvs bool) {
	s.host("w1", swarmHost1)
	s.host("w2", swarmHost2)
	s.overlay(swarmNet)
	s.swarmEast(ipvs)
	s.swarmNorth(ipvs)
	for _, name := range []string{"wc", "t1", "t2"} {
		s.nft(name, swarmNames)
	}
	for _, name := range []string{"t1", "t2"} {
		s.server(name, path(name))
	}
	s.client("wc", path("wc"))
}

// swarmEast is the load balancer's namespace of a network: the virtual IPs are its own addresses.
func (s *site) swarmEast(ipvs bool) {
	s.forwards("lb")
	near, far := swarmNet.addr(swarmVIPNear), swarmNet.addr(swarmVIPFar)
	s.ip("lb", fmt.Sprintf("addr add %s/32 dev eth0\naddr add %s/32 dev eth0\n", near, far))
	s.swarmBalance("lb", ipvs, swarmNet.addr(33).String(),
		fmt.Sprintf("ip daddr %s", near), fmt.Sprintf("ip daddr %s", far))
}

// swarmNorth is the way of a published port through a host.
func (s *site) swarmNorth(ipvs bool) {
	s.forwards("w1")
	s.ip("w1", "link add gw type bridge\naddr add "+swarmGate+"/16 dev gw\nlink set gw up\n")
	s.cable("w1", "in", "", "in", "eth1", swarmIngress+"/16")
	s.ip("w1", "link set in master gw\n")
	s.ip("in", "route add default via "+swarmGate+"\n")
	s.nft("w1", fmt.Sprintf(`table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		fib daddr type local tcp dport { %d, %d } dnat to %s
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		ip saddr 172.19.0.0/16 oifname != "gw" masquerade
	}
}
`, swarmNear, swarmFar, swarmIngress))
	s.forwards("in")
	s.swarmBalance("in", ipvs, swarmNet.addr(34).String(),
		fmt.Sprintf("tcp dport %d", swarmNear), fmt.Sprintf("tcp dport %d", swarmFar))
	for i, task := range []string{"t1", "t2"} {
		s.nft(task, fmt.Sprintf(`table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr %s tcp dport %d redirect to :%d
	}
}
`, swarmNet.addr(21+i), swarmNear+i, portServer))
	}
}

// swarmBalance leads what matches to the near and the far task, and hides who asked.
func (s *site) swarmBalance(name string, ipvs bool, own, near, far string) {
	servers := []string{swarmNet.addr(21).String(), swarmNet.addr(22).String()}
	const sources = `	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname "eth0" ip daddr %s.0/24 ip saddr != %s snat to %s
	}
}
`
	hide := fmt.Sprintf(sources, swarmNet.subnet, own, own)
	if !ipvs {
		s.nft(name, fmt.Sprintf(`table ip swarm {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		%s dnat to %s
		%s dnat to %s
	}
`, near, servers[0], far, servers[1])+hide)
		return
	}
	s.nft(name, fmt.Sprintf(`table ip swarm {
	chain prerouting {
		type filter hook prerouting priority mangle;
		%s meta mark set 0x100
		%s meta mark set 0x101
	}
`, near, far)+hide)
	lines := ""
	for i, server := range servers {
		lines += fmt.Sprintf("-A -f %d -s rr\n-a -f %d -r %s -m\n", 0x100+i, 0x100+i, server)
	}
	s.ipvs(name, lines)
	s.sysctl(name, "net.ipv4.vs.conntrack=1", "net.ipv4.vs.conn_reuse_mode=0", "net.ipv4.vs.expire_nodest_conn=1", "net.ipv4.vs.expire_quiescent_template=1")
}
