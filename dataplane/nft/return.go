package nft

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
	"shoal/overlay/netns"
)

// ReturnTable is the name of the two tables, one of the inet and one of the
// netdev family, that lead replies back by the neighbour a flow came from.
const ReturnTable = "shoal_return"

// Where the last two bytes of a hardware address begin in an Ethernet header.
const (
	destTail   = 4
	sourceHead = 6
	sourceTail = 10
)

// returnMask is the part of a mark that says that it is ours; the rest is a neighbour.
const returnMask = 0xffff0000

// zoneChain holds the one rule that the library cannot write.
const zoneChain = "zone"

// families are both: rules of the one that a link has no addresses of match nothing.
var families = []netfilter.Family{netfilter.IPv4, netfilter.IPv6}

// returnLayout is the inet table, but for the rule of zoneChain. Chains in the
// order in which packets meet them:
//
//	enter      before tracking: what a neighbour sent for somebody else goes to
//	zone       flows are tracked neighbour by neighbour, since one client may use
//	           one port towards several of them
//	remember   a new flow keeps its neighbour (keep), and its packets carry it
//	datagrams  sockets without a connection answer from another address
//	apart      nothing by itself; with it the kernel sees to it that replies of
//	           flows that look alike differ
//	reply      replies carry the neighbour, and are routed by it
//	closed     what is no reply does not leave for the world by this link
func returnLayout(r lb.ReturnPath) netfilter.Layout {
	mangle, raw := nftables.ChainPriorityMangle, nftables.ChainPriorityRaw
	enter := netfilter.Chain{Name: "enter", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: raw}
	keep := netfilter.Chain{Name: "keep"}
	datagrams := natChain("datagrams", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	closed := netfilter.Chain{Name: "closed", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter}
	for _, f := range families {
		enter.Rules = append(enter.Rules, netfilter.Rule{Comment: "flows of a neighbour's clients, IPv" + f.Suffix,
			Exprs: append(entered(r, f), &expr.Verdict{Kind: expr.VerdictGoto, Chain: zoneChain})})
		keep.Rules = append(keep.Rules, keepRule(r, f))
		if a := datagramsOf(r, f); a.IsValid() {
			datagrams.Rules = append(datagrams.Rules, datagramRule(r, f, a))
		} else {
			closed.Rules = append(closed.Rules, closedRule(r, f))
		}
	}
	remember := netfilter.Chain{Name: "remember", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: mangle, Rules: []netfilter.Rule{
		{Comment: "new flows", Exprs: append(netfilter.ConnState(expr.CtStateBitNEW), &expr.Verdict{Kind: expr.VerdictJump, Chain: keep.Name})},
		{Comment: "its packets carry it", Exprs: netfilter.Join(
			netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.Interface), ours(r, ctMark()), []expr.Any{ctMark(), setMark()})},
	}}
	l := netfilter.Layout{Table: ReturnTable, Chains: []netfilter.Chain{
		{Name: zoneChain}, enter, keep, remember,
		natChain("apart", nftables.ChainHookInput, nftables.ChainPriorityNATSource),
		{Name: "reply", Type: nftables.ChainTypeRoute, Hook: nftables.ChainHookOutput, Priority: mangle, Rules: []netfilter.Rule{
			{Comment: "replies carry the neighbour", Exprs: netfilter.Join(
				[]expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: netfilter.Reg1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: netfilter.Reg1, Data: []byte{1}}},
				ours(r, ctMark()), []expr.Any{ctMark(), setMark()})}}},
	}}
	for _, c := range []netfilter.Chain{datagrams, closed} {
		if len(c.Rules) > 0 {
			l.Chains = append(l.Chains, c)
		}
	}
	return l
}

// linkLayout is the netdev table: the neighbour that the mark names becomes the
// one that the frame is for.
func linkLayout(r lb.ReturnPath) netfilter.Layout {
	return netfilter.Layout{Table: ReturnTable, Device: r.Interface, Chains: []netfilter.Chain{{
		Name: "address", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookEgress, Priority: nftables.ChainPriorityFilter,
		Rules: []netfilter.Rule{{Comment: "to the neighbour of the mark", Exprs: netfilter.Join(
			ours(r, packetMark()), []expr.Any{packetMark(), &expr.Payload{OperationType: expr.PayloadWrite,
				SourceRegister: netfilter.Reg1, Base: expr.PayloadBaseLLHeader, Offset: destTail, Len: 2}})}},
	}}}
}

func ctMark() expr.Any { return &expr.Ct{Key: expr.CtKeyMARK, Register: netfilter.Reg1} }

func packetMark() expr.Any { return &expr.Meta{Key: expr.MetaKeyMARK, Register: netfilter.Reg1} }

func setMark() expr.Any {
	return &expr.Meta{Key: expr.MetaKeyMARK, Register: netfilter.Reg1, SourceRegister: true}
}

// ours matches a loaded mark that names a neighbour.
func ours(r lb.ReturnPath, load expr.Any) []expr.Any {
	return []expr.Any{load,
		&expr.Bitwise{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(returnMask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: netfilter.Reg1, Data: binaryutil.NativeEndian.PutUint32(r.Mark)}}
}

// datagramsOf is the address of that family that unconnected sockets answer from.
func datagramsOf(r lb.ReturnPath, f netfilter.Family) netip.Addr {
	for _, a := range r.Datagrams {
		if netfilter.FamilyOf(a).Proto == f.Proto {
			return a
		}
	}
	return netip.Addr{}
}

// entered matches packets of the family that a neighbour sent for somebody else.
func entered(r lb.ReturnPath, f netfilter.Family) []expr.Any {
	return netfilter.Join(
		netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.Interface), f.Is(),
		[]expr.Any{&expr.Payload{DestRegister: netfilter.Reg1, Base: expr.PayloadBaseLLHeader, Offset: sourceHead, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: netfilter.Reg1, Data: r.Neighbors[:]}},
		outside(f, f.LoadSource(netfilter.Reg1), r.Direct))
}

// Addresses that neighbours use among themselves, to find each other for example.
var (
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
	multicast6 = netip.MustParsePrefix("ff00::/8")
)

// outside matches an address that is in none of the prefixes of its family.
func outside(f netfilter.Family, load expr.Any, prefixes []netip.Prefix) (out []expr.Any) {
	if f.Proto == netfilter.IPv6.Proto {
		prefixes = append(slices.Clip(prefixes), linkLocal6, multicast6)
	}
	for _, p := range prefixes {
		if netfilter.FamilyOf(p.Addr()).Proto != f.Proto {
			continue
		}
		within := f.Within(load, p)
		within[len(within)-1].(*expr.Cmp).Op = expr.CmpOpNeq
		out = append(out, within...)
	}
	return out
}

// tail loads the last two bytes of the sender's hardware address; the rest of
// the register becomes zero.
func tail() expr.Any {
	return &expr.Payload{DestRegister: netfilter.Reg1, Base: expr.PayloadBaseLLHeader, Offset: sourceTail, Len: 2}
}

// zoneRule is written by netfilter.AppendZone, which adds what sets the zone.
func zoneRule(r lb.ReturnPath) netfilter.Rule {
	return netfilter.Rule{Comment: encodeReturn(r), Exprs: []expr.Any{tail()}}
}

func keepRule(r lb.ReturnPath, f netfilter.Family) netfilter.Rule {
	return netfilter.Rule{Comment: "a new flow keeps its neighbour, IPv" + f.Suffix, Exprs: netfilter.Join(
		entered(r, f), []expr.Any{
			tail(),
			&expr.Bitwise{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(^uint32(returnMask)), Xor: binaryutil.NativeEndian.PutUint32(r.Mark)},
			&expr.Ct{Key: expr.CtKeyMARK, Register: netfilter.Reg1, SourceRegister: true}})}
}

func datagramRule(r lb.ReturnPath, f netfilter.Family, to netip.Addr) netfilter.Rule {
	return netfilter.Rule{Comment: "datagrams to " + to.String(), Exprs: netfilter.Join(
		netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.Interface), f.Is(), ours(r, ctMark()), netfilter.Proto(unix.IPPROTO_UDP), []expr.Any{
			&expr.Immediate{Register: netfilter.Reg1, Data: to.AsSlice()},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.Proto), RegAddrMin: netfilter.Reg1}})}
}

func closedRule(r lb.ReturnPath, f netfilter.Family) netfilter.Rule {
	notOurs := ours(r, packetMark())
	notOurs[len(notOurs)-1].(*expr.Cmp).Op = expr.CmpOpNeq
	return netfilter.Rule{Comment: "only replies leave here, IPv" + f.Suffix, Exprs: netfilter.Join(
		netfilter.Interface(expr.MetaKeyOIFNAME, expr.CmpOpEq, r.Interface), f.Is(), notOurs,
		outside(f, f.LoadDest(netfilter.Reg1), r.Direct),
		[]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_NO_ROUTE}})}
}

// encodeReturn is the comment that a return path is read back from.
func encodeReturn(r lb.ReturnPath) string {
	var datagrams []string
	for _, a := range r.Datagrams {
		datagrams = append(datagrams, a.String())
	}
	words := []string{r.Interface, hex.EncodeToString(r.Neighbors[:]), strconv.FormatUint(uint64(r.Mark), 16),
		cmp.Or(strings.Join(datagrams, ","), "-")}
	for _, p := range r.Direct {
		words = append(words, p.String())
	}
	return strings.Join(words, " ")
}

// decodeReturn is the inverse of encodeReturn.
func decodeReturn(text string) (*lb.ReturnPath, bool) {
	words := strings.Fields(text)
	if len(words) < 4 {
		return nil, false
	}
	r := &lb.ReturnPath{Interface: words[0]}
	neighbors, err := hex.DecodeString(words[1])
	if err != nil || copy(r.Neighbors[:], neighbors) != len(r.Neighbors) {
		return nil, false
	}
	mark, err := strconv.ParseUint(words[2], 16, 32)
	if err != nil {
		return nil, false
	}
	r.Mark = uint32(mark)
	if words[3] != "-" {
		for _, w := range strings.Split(words[3], ",") {
			a, err := netip.ParseAddr(w)
			if err != nil {
				return nil, false
			}
			r.Datagrams = append(r.Datagrams, a)
		}
	}
	for _, w := range words[4:] {
		p, err := netip.ParsePrefix(w)
		if err != nil {
			return nil, false
		}
		r.Direct = append(r.Direct, p)
	}
	r, err = canonicalReturn(r)
	return r, err == nil
}

// canonicalReturn refuses what cannot be carried out.
func canonicalReturn(r *lb.ReturnPath) (*lb.ReturnPath, error) {
	if r == nil {
		return nil, nil
	}
	out := *r
	out.Direct, out.Datagrams = nil, nil
	for _, p := range r.Direct {
		if !p.IsValid() {
			return nil, fmt.Errorf("return path of link %q: %s is no prefix", r.Interface, p)
		}
		out.Direct = append(out.Direct, p.Masked())
	}
	slices.SortFunc(out.Direct, netip.Prefix.Compare)
	for _, a := range r.Datagrams {
		if !a.IsValid() || datagramsOf(out, netfilter.FamilyOf(a)).IsValid() {
			return nil, fmt.Errorf("return path of link %q: %v are not one address of each family at most", r.Interface, r.Datagrams)
		}
		out.Datagrams = append(out.Datagrams, a)
	}
	slices.SortFunc(out.Datagrams, netip.Addr.Compare)
	switch {
	case r.Interface == "" || len(r.Interface) > 15 || strings.ContainsAny(r.Interface, " /"):
		return nil, fmt.Errorf("return path of link %q: needs a link's name", r.Interface)
	case r.Mark&returnMask == 0 || r.Mark&^returnMask != 0:
		return nil, fmt.Errorf("return path of link %q: mark %#x must have high bits only", r.Interface, r.Mark)
	case len(encodeReturn(out)) > netfilter.CommentMax:
		return nil, fmt.Errorf("return path of link %q: too many direct prefixes (%d)", r.Interface, len(r.Direct))
	}
	return &out, nil
}

// readReturn returns the namespace's return path, nil when it is damaged.
func readReturn(c *netfilter.Conn) (*lb.ReturnPath, error) {
	for _, exists := range []func(string) (bool, error){c.Exists, c.ExistsAtLinks} {
		if there, err := exists(ReturnTable); err != nil || !there {
			return nil, err
		}
	}
	comment, exprs, err := c.Zone(ReturnTable, zoneChain)
	if err != nil {
		return nil, err
	}
	r, ok := decodeReturn(comment)
	if !ok || exprs != len(zoneRule(*r).Exprs) {
		return nil, nil
	}
	inet := returnLayout(*r)
	inet.Chains = inet.Chains[1:] // the first has the rule that was looked at
	for _, l := range []netfilter.Layout{inet, linkLayout(*r)} {
		intact, sets, chains, err := c.Intact(l)
		chains = slices.DeleteFunc(chains, func(name string) bool { return name == zoneChain })
		if err != nil || !intact || len(sets)+len(chains) > 0 {
			return nil, err
		}
	}
	return r, nil
}

// applyReturn makes the namespace's return path equal to the wish.
func applyReturn(ctx context.Context, c *netfilter.Conn, t lb.Translation) (changed int, err error) {
	have, err := readReturn(c)
	if err != nil || have != nil && t.Return != nil && reflect.DeepEqual(have, t.Return) {
		return 0, err
	}
	if t.Return == nil {
		return dropReturn(c)
	}
	lb.Note(ctx, "add "+t.Return.String())
	if err := writeReturn(c, *t.Return); err != nil {
		return 0, fmt.Errorf("return path in namespace %q: %w", t.Namespace, err)
	}
	return 1, nil
}

// dropReturn takes away what is there of the tables.
func dropReturn(c *netfilter.Conn) (changed int, err error) {
	inet, err := c.Exists(ReturnTable)
	if err != nil {
		return 0, err
	}
	links, err := c.ExistsAtLinks(ReturnTable)
	if err != nil || !inet && !links {
		return 0, err
	}
	if inet {
		c.Drop(ReturnTable)
	}
	if links {
		c.DropAtLinks(ReturnTable)
	}
	return 1, c.Flush()
}

// writeReturn replaces both tables. The rule that they are recognised by comes last.
func writeReturn(c *netfilter.Conn, r lb.ReturnPath) error {
	for _, l := range []netfilter.Layout{linkLayout(r), returnLayout(r)} {
		if err := c.Replace(l); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	return c.AppendZone(ReturnTable, zoneChain, zoneRule(r))
}

// ErrNoReturn is wrapped by the errors of ProbeReturn.
var ErrNoReturn = errors.New("the kernel cannot lead replies back to the node that a client entered by")

// ProbeReturn returns nil, or why this kernel cannot carry out a return path. It
// tries one in a namespace of its own. Chains at a link's egress came with
// Linux 5.16.
func ProbeReturn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return netns.Scratch(tryReturn)
}

func tryReturn(path string) error {
	c, err := netfilter.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoReturn, err)
	}
	defer c.Close()
	r := lb.ReturnPath{Interface: "lo", Mark: returnMask, Direct: []netip.Prefix{loopback4}}
	for _, datagrams := range []netip.Addr{{}, loopback4.Addr(), netip.IPv6Loopback()} {
		if datagrams.IsValid() {
			r.Datagrams = append(r.Datagrams, datagrams)
		}
		if err := writeReturn(c, r); err != nil {
			return fmt.Errorf("%w: %w", ErrNoReturn, err)
		}
	}
	return nil
}
