package nft

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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

// returnLayout is the inet table, but for the rule of zoneChain. Chains in the
// order in which packets meet them:
//
//	zone       before tracking: flows are tracked neighbour by neighbour, since
//	           one client may use one port towards several of them
//	remember   a new flow keeps its neighbour, and its packets carry it
//	datagrams  sockets without a connection answer from another address
//	apart      nothing by itself; with it the kernel sees to it that replies of
//	           flows that look alike differ
//	reply      replies carry the neighbour, and are routed by it
//	closed     what is no reply does not leave for the world by this link
func returnLayout(r lb.ReturnPath) netfilter.Layout {
	mangle, raw := nftables.ChainPriorityMangle, nftables.ChainPriorityRaw
	l := netfilter.Layout{Table: ReturnTable, Chains: []netfilter.Chain{
		{Name: zoneChain, Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: raw},
		{Name: "remember", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: mangle, Rules: rememberRules(r)},
		natChain("apart", nftables.ChainHookInput, nftables.ChainPriorityNATSource),
		{Name: "reply", Type: nftables.ChainTypeRoute, Hook: nftables.ChainHookOutput, Priority: mangle, Rules: []netfilter.Rule{
			{Comment: "replies carry the neighbour", Exprs: netfilter.Join(
				[]expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: netfilter.Reg1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: netfilter.Reg1, Data: []byte{1}}},
				ours(r, ctMark()), []expr.Any{ctMark(), setMark()})}}},
	}}
	if r.Datagrams.IsValid() {
		l.Chains = append(l.Chains, natChain("datagrams", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, datagramRule(r)))
	} else {
		l.Chains = append(l.Chains, netfilter.Chain{Name: "closed", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput,
			Priority: nftables.ChainPriorityFilter, Rules: []netfilter.Rule{closedRule(r)}})
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

// entered matches packets that a neighbour sent for somebody else.
func entered(r lb.ReturnPath) []expr.Any {
	return netfilter.Join(
		netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.Interface), netfilter.IPv4.Is(),
		[]expr.Any{&expr.Payload{DestRegister: netfilter.Reg1, Base: expr.PayloadBaseLLHeader, Offset: sourceHead, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: netfilter.Reg1, Data: r.Neighbors[:]}},
		outside(netfilter.IPv4.LoadSource(netfilter.Reg1), r.Direct))
}

// outside matches an address that is in none of the prefixes.
func outside(load expr.Any, prefixes []netip.Prefix) (out []expr.Any) {
	for _, p := range prefixes {
		within := netfilter.IPv4.Within(load, p)
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
	return netfilter.Rule{Comment: encodeReturn(r), Exprs: append(entered(r), tail())}
}

func rememberRules(r lb.ReturnPath) []netfilter.Rule {
	return []netfilter.Rule{
		{Comment: "a new flow keeps its neighbour", Exprs: netfilter.Join(netfilter.ConnState(expr.CtStateBitNEW), entered(r), []expr.Any{
			tail(),
			&expr.Bitwise{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(^uint32(returnMask)), Xor: binaryutil.NativeEndian.PutUint32(r.Mark)},
			&expr.Ct{Key: expr.CtKeyMARK, Register: netfilter.Reg1, SourceRegister: true}})},
		{Comment: "its packets carry it", Exprs: netfilter.Join(
			netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.Interface), ours(r, ctMark()), []expr.Any{ctMark(), setMark()})},
	}
}

func datagramRule(r lb.ReturnPath) netfilter.Rule {
	f := netfilter.IPv4
	return netfilter.Rule{Comment: "datagrams to " + r.Datagrams.String(), Exprs: netfilter.Join(
		netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.Interface), ours(r, ctMark()), netfilter.Proto(unix.IPPROTO_UDP), []expr.Any{
			&expr.Immediate{Register: netfilter.Reg1, Data: r.Datagrams.AsSlice()},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.Proto), RegAddrMin: netfilter.Reg1}})}
}

func closedRule(r lb.ReturnPath) netfilter.Rule {
	notOurs := ours(r, packetMark())
	notOurs[len(notOurs)-1].(*expr.Cmp).Op = expr.CmpOpNeq
	return netfilter.Rule{Comment: "only replies leave here", Exprs: netfilter.Join(
		netfilter.Interface(expr.MetaKeyOIFNAME, expr.CmpOpEq, r.Interface), netfilter.IPv4.Is(), notOurs,
		outside(netfilter.IPv4.LoadDest(netfilter.Reg1), r.Direct),
		[]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_NO_ROUTE}})}
}

// encodeReturn is the comment that a return path is read back from.
func encodeReturn(r lb.ReturnPath) string {
	datagrams := "-"
	if r.Datagrams.IsValid() {
		datagrams = r.Datagrams.String()
	}
	words := []string{r.Interface, hex.EncodeToString(r.Neighbors[:]), strconv.FormatUint(uint64(r.Mark), 16), datagrams}
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
		if r.Datagrams, err = netip.ParseAddr(words[3]); err != nil {
			return nil, false
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
	out.Direct = nil
	for _, p := range r.Direct {
		if !p.IsValid() || !p.Addr().Is4() {
			return nil, fmt.Errorf("return path of link %q: %s is no IPv4 prefix", r.Interface, p)
		}
		out.Direct = append(out.Direct, p.Masked())
	}
	slices.SortFunc(out.Direct, netip.Prefix.Compare)
	switch {
	case r.Interface == "" || len(r.Interface) > 15 || strings.ContainsAny(r.Interface, " /"):
		return nil, fmt.Errorf("return path of link %q: needs a link's name", r.Interface)
	case r.Mark&returnMask == 0 || r.Mark&^returnMask != 0:
		return nil, fmt.Errorf("return path of link %q: mark %#x must have high bits only", r.Interface, r.Mark)
	case r.Datagrams.IsValid() && !r.Datagrams.Is4():
		return nil, fmt.Errorf("return path of link %q: %s is no IPv4 address", r.Interface, r.Datagrams)
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
	dir, err := os.MkdirTemp("", "shoal-return-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "ns")
	if err := netns.Create(path); err != nil {
		return err
	}
	return errors.Join(tryReturn(path), netns.Delete(path))
}

func tryReturn(path string) error {
	c, err := netfilter.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoReturn, err)
	}
	defer c.Close()
	r := lb.ReturnPath{Interface: "lo", Mark: returnMask, Direct: []netip.Prefix{loopback4}}
	for _, datagrams := range []netip.Addr{{}, loopback4.Addr()} {
		r.Datagrams = datagrams
		if err := writeReturn(c, r); err != nil {
			return fmt.Errorf("%w: %w", ErrNoReturn, err)
		}
	}
	return nil
}
