package ipvs

import (
	"net/netip"
	"time"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
)

// protocols are the numbers of IANA's registry.
var protocols = map[lb.Protocol]uint16{lb.TCP: unix.IPPROTO_TCP, lb.UDP: unix.IPPROTO_UDP, lb.SCTP: unix.IPPROTO_SCTP}

func protocolOf(number uint16) lb.Protocol {
	for p, n := range protocols {
		if n == number {
			return p
		}
	}
	return lb.Any
}

// fallback (IP_VS_SVC_F_SCHED_SH_FALLBACK and …_MH_FALLBACK of ip_vs.h) lets the
// hashing schedulers go on to another server where the hashed one drains.
const fallback = 0x8

// persistent (IP_VS_SVC_F_PERSISTENT of ip_vs.h) keeps a client, which is the part
// of its address that the netmask covers, at its server.
const persistent = 0x1

// netmasks of a service: all of the address.
const (
	netmask4 = ^uint32(0)
	netmask6 = 128
)

// virtual is a service as the kernel has it; mark is that of a front of every port.
func virtual(s lb.Service, mark uint32) *ipvs.Service {
	v := &ipvs.Service{SchedName: string(s.Algorithm), AddressFamily: unix.AF_INET, Netmask: netmask4}
	if s.Addr.Is6() {
		v.AddressFamily, v.Netmask = unix.AF_INET6, netmask6
	}
	if s.Algorithm == lb.SourceHash || s.Algorithm == lb.Maglev {
		v.Flags = fallback
	}
	if s.Sticky > 0 {
		v.Flags |= persistent
		v.Timeout = uint32(s.Sticky / time.Second)
	}
	if s.Protocol == lb.Any {
		v.FWMark = mark
		return v
	}
	v.Address, v.Port, v.Protocol = s.Addr.AsSlice(), s.Port, protocols[s.Protocol]
	return v
}

// destination is a backend as the kernel has it.
func destination(b lb.Backend) *ipvs.Destination {
	d := &ipvs.Destination{Address: b.Addr.AsSlice(), Port: b.Port, Weight: int(b.Weight),
		ConnectionFlags: ipvs.ConnectionFlagMasq, AddressFamily: unix.AF_INET}
	if b.Addr.Is6() {
		d.AddressFamily = unix.AF_INET6
	}
	if b.Draining {
		d.Weight = 0
	}
	return d
}

// backend is the inverse of destination.
func backend(d *ipvs.Destination) lb.Backend {
	a, _ := netip.AddrFromSlice(d.Address)
	return lb.Backend{Addr: a.Unmap(), Port: d.Port, Weight: uint32(d.Weight), Draining: d.Weight == 0}
}
