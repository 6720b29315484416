package ipvs

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// Table is the name of the table that marks packets for IPVS.
const Table = "shoal_ipvs"

// balancedBit in a flow's mark says that IPVS balances it here; hiddenBit that its
// service hides its clients.
const (
	balancedBit = 1 << 25
	hiddenBit   = 1 << 26
)

// The sets of the table; the family's suffix is appended.
const (
	markMap  = "mark"  // address → mark: fronts of every port
	portsSet = "ports" // address . protocol . port: fronts of one port
	hideSet  = "hide"  // those of them whose clients are hidden
)

var families = []netfilter.Family{netfilter.IPv4, netfilter.IPv6}

// layout is the table without its fronts. Chains, in the order in which packets
// meet them:
//
//	mark, mark_out  before IPVS: note that the flow is to a front, and mark
//	                packets to a front of every port
//	ping            a front answers echo requests, which IPVS passes over
//	self            after IPVS: a server that is the client itself is reached
//	                over the loopback link
//	refuse          after IPVS: what is still on its way to a front found no
//	                server, or belongs to a flow whose server is gone
//	masquerade      only where asked for
func layout(masquerade bool, from []netip.Prefix) netfilter.Layout {
	l := netfilter.Layout{Table: Table}
	var mark, ping, refuse []netfilter.Rule
	for _, f := range families {
		l.Sets = append(l.Sets,
			nftables.Set{Name: markMap + f.Suffix, IsMap: true, KeyType: f.Addr, DataType: nftables.TypeMark},
			portSet(portsSet+f.Suffix, f), portSet(hideSet+f.Suffix, f))
		mark = append(mark, markRules(f)...)
		ping = append(ping, pingRule(f))
		refuse = append(refuse, refuseRules(f)...)
	}
	mangle := nftables.ChainPriorityMangle
	l.Chains = []netfilter.Chain{
		{Name: "mark", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: mangle, Rules: mark},
		{Name: "mark_out", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput, Priority: mangle, Rules: mark},
		{Name: "ping", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest, Rules: ping},
		{Name: "self", Type: nftables.ChainTypeRoute, Hook: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter, Rules: []netfilter.Rule{selfRule()}},
		{Name: "refuse", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter, Rules: refuse},
	}
	if masquerade {
		l.Chains = append(l.Chains, netfilter.Chain{
			Name: "masquerade", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
			Rules: netfilter.HideRules(balancedBit, hiddenBit, from),
		})
	}
	return l
}

func portSet(name string, f netfilter.Family) nftables.Set {
	return nftables.Set{Name: name, Concatenation: true,
		KeyType: nftables.MustConcatSetType(f.Addr, nftables.TypeInetProto, nftables.TypeInetService)}
}

// lookupMark leaves the mark of a front of every port in the first register, or
// ends the rule.
func lookupMark(f netfilter.Family) []expr.Any {
	return netfilter.Join(f.Is(), []expr.Any{f.LoadDest(netfilter.Reg1),
		&expr.Lookup{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, IsDestRegSet: true, SetName: markMap + f.Suffix}})
}

// lookupPort ends the rule unless the packet is for a front of the set.
func lookupPort(f netfilter.Family, set string) []expr.Any {
	return netfilter.Join(f.Is(), []expr.Any{
		f.LoadDest(netfilter.Reg1), netfilter.LoadProto(f.Second), netfilter.LoadPort(f.Third),
		&expr.Lookup{SourceRegister: netfilter.Reg1, SetName: set + f.Suffix}})
}

// markRules let a front of one port come before the front of every port of the
// same address: IPVS asks for marks first.
func markRules(f netfilter.Family) []netfilter.Rule {
	return []netfilter.Rule{
		{Comment: "fronts that hide their clients, IPv" + f.Suffix, Exprs: netfilter.Join(
			lookupPort(f, hideSet), netfilter.SetConnMark(hiddenBit))},
		{Comment: "fronts of one port, IPv" + f.Suffix, Exprs: netfilter.Join(
			lookupPort(f, portsSet), netfilter.SetConnMark(balancedBit), []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}})},
		{Comment: "fronts of every port, IPv" + f.Suffix, Exprs: netfilter.Join(lookupMark(f), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: netfilter.Reg1, SourceRegister: true}}, netfilter.SetConnMark(balancedBit))},
	}
}

// icmp returns the family's control protocol and its echo request type.
func icmp(f netfilter.Family) (proto, echo byte) {
	if f.Proto == unix.NFPROTO_IPV4 {
		return unix.IPPROTO_ICMP, 8
	}
	return unix.IPPROTO_ICMPV6, 128
}

// selfRule changes the mark of packets that IPVS sends to the namespace itself:
// IPVS leaves them on the route to the front, and a changed mark in a chain of
// type route makes the kernel look for the route again.
func selfRule() netfilter.Rule {
	return netfilter.Rule{Comment: "calls to oneself", Exprs: netfilter.Join(
		netfilter.Interface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "lo"), netfilter.ConnMark(balancedBit),
		netfilter.DestinationIsLocal(), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: netfilter.Reg1},
			&expr.Bitwise{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(markMask), Xor: binaryutil.NativeEndian.PutUint32(selfMark)},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: netfilter.Reg1, SourceRegister: true}})}
}

func pingRule(f netfilter.Family) netfilter.Rule {
	proto, echo := icmp(f)
	return netfilter.Rule{Comment: "pings of fronts, IPv" + f.Suffix, Exprs: netfilter.Join(
		lookupMark(f), netfilter.Proto(proto), []expr.Any{
			&expr.Payload{DestRegister: netfilter.Reg1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: netfilter.Reg1, Data: []byte{echo}},
			&expr.Redir{}})}
}

func refuseRules(f netfilter.Family) []netfilter.Rule {
	tcp, other := netfilter.Refuse()
	proto, _ := icmp(f)
	notICMP := []expr.Any{netfilter.LoadProto(netfilter.Reg1), &expr.Cmp{Op: expr.CmpOpNeq, Register: netfilter.Reg1, Data: []byte{proto}}}
	return []netfilter.Rule{
		{Comment: "one port, tcp, IPv" + f.Suffix, Exprs: netfilter.Join(lookupPort(f, portsSet), tcp)},
		{Comment: "one port, IPv" + f.Suffix, Exprs: netfilter.Join(lookupPort(f, portsSet), other)},
		{Comment: "every port, tcp, IPv" + f.Suffix, Exprs: netfilter.Join(lookupMark(f), tcp)},
		{Comment: "every port, IPv" + f.Suffix, Exprs: netfilter.Join(lookupMark(f), notICMP, other)},
	}
}

// fronts is what the table has: the mark of each front of every port, and the
// fronts of one port, true for those that hide their clients; the value of
// names is for people.
type fronts struct {
	marks map[netip.Addr]uint32
	ports map[lb.Front]bool
	names map[lb.Front]string
}

func newFronts() fronts {
	return fronts{marks: map[netip.Addr]uint32{}, ports: map[lb.Front]bool{}, names: map[lb.Front]string{}}
}

func (f fronts) equal(g fronts) bool {
	return maps.Equal(f.marks, g.marks) && maps.Equal(f.ports, g.ports)
}

// wished returns the fronts of a wish. Marks in use are kept; a new one is the
// hash of its address, or the next that is free.
func wished(d lb.Desired, have fronts) fronts {
	out := newFronts()
	taken := map[uint32]bool{0: true}
	for _, s := range d.Services {
		out.names[s.Front] = s.Name
		if s.Protocol != lb.Any {
			out.ports[s.Front] = s.Masquerade
		} else if m, ok := have.marks[s.Addr]; ok && !taken[m] {
			out.marks[s.Addr], taken[m] = m, true
		}
	}
	for _, s := range d.Services {
		if _, ok := out.marks[s.Addr]; ok || s.Protocol != lb.Any {
			continue
		}
		m := hashMark(s.Addr)
		for taken[m] {
			m = (m + 1) & markMask
		}
		out.marks[s.Addr], taken[m] = m, true
	}
	return out
}

// markMask keeps the top bits clear: people's own marks like to use them, and so
// do the marks that lead replies back to where their flow came from.
const markMask = 1<<28 - 1

// selfMark is the bit that calls to oneself have.
const selfMark = 1 << 31

func hashMark(a netip.Addr) uint32 {
	h := fnv.New32a()
	h.Write(a.AsSlice())
	return h.Sum32() & markMask
}

// writeTable makes the table hold the fronts in one transaction; without fronts it goes
// away. It changes elements alone when the rules of what is there are those of the wish:
// no other front's packets meet the change.
func (k *kernel) writeTable(f fronts, from []netip.Prefix, st state) error {
	if len(f.marks)+len(f.ports)+len(from) == 0 {
		k.nf.Drop(Table)
		return k.nf.Flush()
	}
	l, before := layout(f.hides() || len(from) > 0, from), map[string][]nftables.SetElement{}
	was := st.balance.MasqueradeFrom
	if st.exists && st.sound && reflect.DeepEqual(l, layout(st.fronts.hides() || len(was) > 0, was)) {
		before = st.fronts.elements()
	} else if err := k.nf.Replace(l); err != nil {
		return err
	}
	if err := k.nf.ChangeElements(l, before, f.elements()); err != nil {
		return err
	}
	return k.nf.Flush()
}

// elements are those of the table's sets.
func (f fronts) elements() map[string][]nftables.SetElement {
	out := map[string][]nftables.SetElement{}
	for _, a := range slices.SortedFunc(maps.Keys(f.marks), netip.Addr.Compare) {
		name := markMap + netfilter.FamilyOf(a).Suffix
		out[name] = append(out[name], nftables.SetElement{Key: a.AsSlice(),
			Val: binaryutil.NativeEndian.PutUint32(f.marks[a]), Comment: netfilter.Clip(f.names[lb.Front{Addr: a}])})
	}
	for _, front := range slices.SortedFunc(maps.Keys(f.ports), compareFronts) {
		name := portsSet + netfilter.FamilyOf(front.Addr).Suffix
		key := append(front.Addr.AsSlice(), netfilter.ProtoKey(byte(protocols[front.Protocol]))...)
		out[name] = append(out[name], nftables.SetElement{
			Key: append(key, netfilter.PortKey(front.Port)...), Comment: netfilter.Clip(f.names[front])})
		if f.ports[front] {
			name = hideSet + netfilter.FamilyOf(front.Addr).Suffix
			out[name] = append(out[name], nftables.SetElement{Key: append(key, netfilter.PortKey(front.Port)...)})
		}
	}
	return out
}

// hides says whether any front hides its clients.
func (f fronts) hides() bool {
	for _, hides := range f.ports {
		if hides {
			return true
		}
	}
	return false
}

func compareFronts(a, b lb.Front) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
}

// readTable returns the table's fronts and whom it always hides. It is not sound
// when a part is missing that makes it work; then there are no fronts.
func (k *kernel) readTable() (f fronts, from []netip.Prefix, exists, sound bool, err error) {
	f = newFronts()
	exists, err = k.nf.Exists(Table)
	if err != nil || !exists {
		return f, nil, exists, false, err
	}
	l, sound, err := k.soundLayout(&from)
	if err != nil || !sound {
		return f, nil, true, false, err
	}
	for _, family := range families {
		for _, name := range []string{markMap, portsSet, hideSet} {
			elements, err := k.nf.GetSetElements(l.Set(name + family.Suffix))
			if err != nil {
				return f, nil, true, false, fmt.Errorf("list elements of %s%s: %w", name, family.Suffix, err)
			}
			for _, e := range elements {
				f.add(family, e, name == hideSet)
			}
		}
	}
	return f, from, true, true, nil
}

// soundLayout returns the layout that the table has, with the sources that it
// hides in from, or false when it has none of ours.
func (k *kernel) soundLayout(from *[]netip.Prefix) (l netfilter.Layout, sound bool, err error) {
	for _, masquerade := range []bool{false, true} {
		if masquerade {
			rules, err := k.nf.Rules(Table, "masquerade")
			if errors.Is(err, unix.ENOENT) {
				return l, false, nil
			}
			if err != nil {
				return l, false, err
			}
			*from = netfilter.Hidden(rules)
		}
		l = layout(masquerade, *from)
		intact, sets, chains, err := k.nf.Intact(l)
		if err != nil || intact && len(sets)+len(chains) == 0 {
			return l, err == nil, err
		}
	}
	return l, false, nil
}

// add takes one element in: an address with a mark, or address, protocol and
// port, of all such fronts or of those that hide their clients.
func (f fronts) add(family netfilter.Family, e nftables.SetElement, hides bool) {
	if len(e.Key) < int(family.Bytes) {
		return
	}
	a, _ := netip.AddrFromSlice(e.Key[:family.Bytes])
	front := lb.Front{Addr: a}
	switch len(e.Key) {
	case int(family.Bytes):
		if len(e.Val) == 4 {
			f.marks[a] = binaryutil.NativeEndian.Uint32(e.Val)
		}
	case int(family.Bytes) + 8:
		front.Protocol = protocolOf(uint16(e.Key[family.Bytes]))
		front.Port = binary.BigEndian.Uint16(e.Key[family.Bytes+4:])
		f.ports[front] = hides
	}
	if !hides {
		f.names[front] = e.Comment
	}
}
