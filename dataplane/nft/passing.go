package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// UserChain is the chain of the translation table that belongs to people. What
// is forwarded over a passing link meets it before anything of ours lets it
// through. It is made empty and never changed; the same goes for every chain and
// set of the table whose name begins with it.
const UserChain = "user"

// passingLinks is the set of the links' names; membersSet that of the senders
// that may use the members' port, the family's suffix is appended.
const (
	passingLinks = "links"
	membersSet   = "members"
)

// membersComment starts the comments of the members' rules; the port follows.
const membersComment = "members only, port "

// peoples is the table without anything of ours.
var peoples = netfilter.Layout{Table: NATTable, People: UserChain}

// hookPriority comes before the filter chains of others, which sit at 0.
var hookPriority = nftables.ChainPriorityRef(-10)

// passing adds the chains for what is forwarded over our links. A packet over no
// link of ours costs two lookups.
func passing(l *netfilter.Layout) {
	l.People = UserChain
	l.Sets = append(l.Sets, nftables.Set{Name: passingLinks, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian})
	over := func(name string, key expr.MetaKey) netfilter.Rule {
		return netfilter.Rule{Comment: name, Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: netfilter.Reg1},
			&expr.Lookup{SourceRegister: netfilter.Reg1, SetName: passingLinks},
			&expr.Verdict{Kind: expr.VerdictGoto, Chain: "passing"}}}
	}
	l.Chains = append(l.Chains,
		netfilter.Chain{Name: UserChain},
		netfilter.Chain{Name: "passing", Rules: []netfilter.Rule{
			{Comment: "people's own rules", Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: UserChain}}},
			clampRule(),
		}},
		netfilter.Chain{Name: "forward", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookForward, Priority: hookPriority,
			Rules: []netfilter.Rule{over("into a link of ours", expr.MetaKeyOIFNAME), over("out of a link of ours", expr.MetaKeyIIFNAME)}})
}

// Where TCP keeps its flags, and what marks the segment that begins a connection.
const (
	tcpFlags = 13
	tcpSyn   = 0x02
)

// clampRule lets TCP agree on segments that fit the routes both ways: the option
// (kind 2, its value 2 bytes after 2) is never made larger.
func clampRule() netfilter.Rule {
	return netfilter.Rule{Comment: "segments that fit", Exprs: netfilter.Join(netfilter.Proto(unix.IPPROTO_TCP), []expr.Any{
		&expr.Payload{DestRegister: netfilter.Reg1, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1},
		&expr.Bitwise{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, Len: 1, Mask: []byte{tcpSyn}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: netfilter.Reg1, Data: []byte{0}},
		&expr.Rt{Register: netfilter.Reg1, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: netfilter.Reg1, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	})}
}

// members adds the chains of a port that is for members. What they send each other
// is not tracked: it is tunnelled, every flow inside would be an entry of its own
// at both ends, and nothing ever asks for its state. What strangers send is dropped.
//
// What comes out of a link of ours is dropped first, wherever it goes: on its way
// to another member it would get our own address, which is a member's, and a task
// may forge one. That must not depend on the flow's direction: the reply to a
// datagram that was sent from the members' port would do as well.
func members(l *netfilter.Layout, port uint16, passing bool) {
	toPort := []expr.Any{netfilter.LoadPort(netfilter.Reg1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: netfilter.Reg1, Data: binary.BigEndian.AppendUint16(nil, port)}}
	in := netfilter.Chain{Name: membersName}
	if passing {
		in.Rules = append(in.Rules, netfilter.Rule{Comment: membersComment + strconv.Itoa(int(port)) + ", out of a link of ours", Exprs: netfilter.Join(toPort,
			[]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: netfilter.Reg1},
				&expr.Lookup{SourceRegister: netfilter.Reg1, SetName: passingLinks},
				&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})})
	}
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		l.Sets = append(l.Sets, nftables.Set{Name: membersSet + f.Suffix, KeyType: f.Addr})
		comment := membersComment + strconv.Itoa(int(port)) + ", IPv" + f.Suffix
		from := func(strangers bool) []expr.Any {
			return netfilter.Join(f.Is(), toPort, []expr.Any{f.LoadSource(netfilter.Reg1),
				&expr.Lookup{SourceRegister: netfilter.Reg1, SetName: membersSet + f.Suffix, Invert: strangers}})
		}
		in.Rules = append(in.Rules,
			netfilter.Rule{Comment: comment, Exprs: append(from(false), &expr.Notrack{}, &expr.Verdict{Kind: expr.VerdictAccept})},
			netfilter.Rule{Comment: comment + ", others", Exprs: netfilter.Join(from(true), netfilter.DestinationIsLocal(),
				[]expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})})
	}
	// Nothing but the tunnel's own socket sends to the port from here.
	out := netfilter.Chain{Name: "untracked", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw,
		Rules: []netfilter.Rule{{Comment: "to members", Exprs: netfilter.Join(netfilter.Proto(unix.IPPROTO_UDP), toPort, []expr.Any{&expr.Notrack{}})}}}
	l.Chains = append(l.Chains, in, out)
}

// passingElements are the elements of the sets above.
func passingElements(t lb.Translation, out map[string][]nftables.SetElement) {
	for _, name := range t.Passing {
		out[passingLinks] = append(out[passingLinks], nftables.SetElement{Key: linkKey(name)})
	}
	if t.Members == nil {
		return
	}
	for _, a := range t.Members.Addrs {
		name := membersSet + netfilter.FamilyOf(a).Suffix
		out[name] = append(out[name], nftables.SetElement{Key: a.AsSlice()})
	}
}

func linkKey(name string) []byte {
	key := make([]byte, unix.IFNAMSIZ)
	copy(key, name)
	return key
}

// findPassing notes which of the optional parts the table has, so that its layout
// is known: a link without a name, members without addresses, inner prefixes, and
// whether there is a guard.
func findPassing(c *netfilter.Conn, t *lb.Translation) (guard bool, err error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	for _, ch := range chains {
		switch {
		case ch.Table.Name != NATTable:
		case ch.Name == guardName:
			guard = true
			if err := findInner(c, t); err != nil {
				return guard, err
			}
		case ch.Name == "passing":
			t.Passing = []string{""}
		case ch.Name == membersName:
			rules, err := c.Rules(NATTable, ch.Name)
			if err != nil || len(rules) == 0 {
				return guard, err
			}
			text, _, _ := strings.Cut(strings.TrimPrefix(netfilter.Comment(rules[0]), membersComment), ",")
			port, err := strconv.ParseUint(text, 10, 16)
			if err == nil {
				t.Members = &lb.Members{Port: uint16(port)}
			}
		}
	}
	return guard, nil
}

// readPassing reads the elements of the parts that findPassing found.
func readPassing(c *netfilter.Conn, l netfilter.Layout, t *lb.Translation) error {
	if t.Passing != nil {
		t.Passing = nil
		elements, err := c.GetSetElements(l.Set(passingLinks))
		if err != nil {
			return fmt.Errorf("list elements of %s: %w", passingLinks, err)
		}
		for _, e := range elements {
			name, _, _ := strings.Cut(string(e.Key), "\x00")
			t.Passing = append(t.Passing, name)
		}
	}
	if t.Members == nil {
		return nil
	}
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		elements, err := c.GetSetElements(l.Set(membersSet + f.Suffix))
		if err != nil {
			return fmt.Errorf("list elements of %s%s: %w", membersSet, f.Suffix, err)
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				t.Members.Addrs = append(t.Members.Addrs, a)
			}
		}
	}
	return nil
}

// canonicalPassing sorts the links and members and refuses what is none.
func canonicalPassing(t, out *lb.Translation) error {
	out.Passing = slices.Clone(t.Passing)
	slices.Sort(out.Passing)
	out.Passing = slices.Compact(out.Passing)
	for _, name := range out.Passing {
		if name == "" || len(name) >= unix.IFNAMSIZ {
			return fmt.Errorf("links that packets pass: %q is no link's name", name)
		}
	}
	if t.Members == nil {
		return nil
	}
	m := lb.Members{Port: t.Members.Port}
	for _, a := range t.Members.Addrs {
		m.Addrs = append(m.Addrs, a.Unmap())
	}
	slices.SortFunc(m.Addrs, netip.Addr.Compare)
	m.Addrs = slices.Compact(m.Addrs)
	if m.Port == 0 || len(m.Addrs) == 0 || !m.Addrs[0].IsValid() {
		return fmt.Errorf("members of port %d: needs a port and the members' addresses", m.Port)
	}
	out.Members = &m
	return nil
}

// differPassing counts the parts that are in one but not in the other.
func differPassing(a, b lb.Translation) int {
	n := differ(a.Passing, b.Passing)
	switch {
	case a.Members == nil && b.Members == nil:
		return n
	case a.Members == nil || b.Members == nil || a.Members.Port != b.Members.Port:
		return n + 1
	}
	if !slices.Equal(a.Members.Addrs, b.Members.Addrs) {
		n++
	}
	return n
}
