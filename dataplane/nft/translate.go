package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// The maps of the translation table; the family's suffix is appended.
const (
	forwards  = "forward"  // protocol . port → address . port
	redirects = "redirect" // address . protocol . port → address . port
)

// guardName and membersName are chains of the translation table.
const (
	guardName   = "guard"
	membersName = "members"
)

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.PrefixFrom(netip.IPv6Loopback(), 128)
)

// egressComment starts the comment of a masquerading rule: source and bridge follow.
const egressComment = "egress "

// natLayout is the translation table without its elements. Hooks, in the order
// in which packets meet them:
//
//	guard       what comes from outside for 127.0.0.0/8 is dropped, since the
//	            links that forwarded ports lead to must let such addresses in;
//	            for ::1 the kernel does that by itself;
//	            so is what comes for inner addresses by a link that is not theirs;
//	            what comes to a port for members is led to their chain
//	prerouting  ports of our own addresses, from outside
//	output      the same from processes of the namespace, and their redirects
//	postrouting sources hidden behind our own address
//	apart       nothing comes back onto a masqueraded bridge but forwarded ports
//	closed      a link over which this namespace answers alone
//	forward     where links are passed: people's own rules, and segments that fit
//	members     where a port is for members: what others send to it is dropped, and
//	            all that comes for it, to anyone, out of a link of ours;
//	            what members send each other is not tracked; untracked likewise
func natLayout(t lb.Translation) netfilter.Layout { return layoutOf(t, guarded(t)) }

// guarded reports whether loopback addresses could come in from outside: not
// where all that is translated are redirects on the loopback link, as in tasks,
// whose every packet would pay for it. A namespace that once had forwarded ports
// stays guarded as long as anything of its role is left.
func guarded(t lb.Translation) bool {
	return len(t.Forwards)+len(t.Masquerade)+len(t.Passing)+len(t.Inner) > 0 || t.Members != nil ||
		slices.ContainsFunc(t.Redirects, func(r lb.Redirect) bool { return !r.To.Addr().IsLoopback() })
}

func layoutOf(t lb.Translation, guarded bool) netfilter.Layout {
	l := netfilter.Layout{Table: NATTable}
	pre := natChain("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := natChain("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		l.Sets = append(l.Sets, addressMap(forwards+f.Suffix, f, nftables.TypeInetProto, nftables.TypeInetService),
			addressMap(redirects+f.Suffix, f, f.Addr, nftables.TypeInetProto, nftables.TypeInetService))
		if guarded {
			pre.Rules = append(pre.Rules, redirectRule(f))
		}
		pre.Rules = append(pre.Rules, forwardRule(f))
		out.Rules = append(out.Rules, redirectRule(f), forwardRule(f))
	}
	out.Rules = append(out.Rules, loopbackRule(t))
	l.Chains = []netfilter.Chain{pre, out, postrouting(t)}
	if guarded {
		l.Chains = append(l.Chains, guardChain(t))
	}
	if len(t.Passing) > 0 {
		passing(&l)
	}
	if t.Members != nil {
		members(&l, t.Members.Port, len(t.Passing) > 0)
	}
	apart(&l, t)
	if t.Closed != "" {
		closed(&l, t.Closed)
	}
	return l
}

// guardChain asks first what few packets answer to.
func guardChain(t lb.Translation) netfilter.Chain {
	f := netfilter.IPv4
	chain := netfilter.Chain{Name: guardName, Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw}
	if t.Members != nil {
		chain.Rules = append(chain.Rules, netfilter.Rule{Comment: "to members", Exprs: append(netfilter.Proto(unix.IPPROTO_UDP),
			&expr.Verdict{Kind: expr.VerdictJump, Chain: membersName})})
	}
	chain.Rules = append(chain.Rules, netfilter.Rule{Comment: "loopback is not for outsiders", Exprs: netfilter.Join(
		f.Is(), f.Within(f.LoadDest(netfilter.Reg1), loopback4),
		netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo"), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})})
	chain.Rules = append(chain.Rules, innerRules(t)...)
	return chain
}

func addressMap(name string, f netfilter.Family, key ...nftables.SetDatatype) nftables.Set {
	return nftables.Set{Name: name, IsMap: true, Concatenation: true, KeyType: nftables.MustConcatSetType(key...),
		DataType: nftables.MustConcatSetType(f.Addr, nftables.TypeInetService)}
}

// forwardRule leaves ::1 to loopbackRule.
func forwardRule(f netfilter.Family) netfilter.Rule {
	var except []expr.Any
	if f.Proto == netfilter.IPv6.Proto {
		except = loopbackDest(expr.CmpOpNeq)
	}
	return netfilter.Rule{Comment: "forwarded ports, IPv" + f.Suffix, Exprs: netfilter.Join(
		f.Is(), except, netfilter.DestinationIsLocal(),
		[]expr.Any{netfilter.LoadProto(netfilter.Reg1), netfilter.LoadPort(netfilter.Word1)}, toMapped(f, forwards))}
}

func loopbackDest(op expr.CmpOp) []expr.Any {
	return []expr.Any{netfilter.IPv6.LoadDest(netfilter.Reg1),
		&expr.Cmp{Op: op, Register: netfilter.Reg1, Data: netip.IPv6Loopback().AsSlice()}}
}

// loopbackRule forwards what the namespace itself sends to ::1, unless the target
// is behind a bridge: where bridged packets pass the packet filter, replies would
// have their addresses put back before the kernel looks at them as packets of a
// network, and it takes none from ::1. Such a flow would hang, and is refused.
func loopbackRule(t lb.Translation) netfilter.Rule {
	const scratch = unix.NFT_REG_3
	f := netfilter.IPv6
	mapped := toMapped(f, forwards)
	exprs := netfilter.Join(f.Is(), loopbackDest(expr.CmpOpEq),
		[]expr.Any{netfilter.LoadProto(netfilter.Reg1), netfilter.LoadPort(netfilter.Word1)}, mapped[:1])
	for _, e := range t.Masquerade {
		if e.Source.Addr().Is4() {
			continue
		}
		bridged := f.Within(nil, e.Source)[1:]
		bridged[0].(*expr.Bitwise).DestRegister = scratch
		bridged[1].(*expr.Cmp).Register, bridged[1].(*expr.Cmp).Op = scratch, expr.CmpOpNeq
		exprs = append(exprs, bridged...)
	}
	return netfilter.Rule{Comment: "forwarded ports at ::1", Exprs: append(exprs, mapped[1:]...)}
}

func redirectRule(f netfilter.Family) netfilter.Rule {
	return netfilter.Rule{Comment: "redirects, IPv" + f.Suffix, Exprs: netfilter.Join(f.Is(),
		[]expr.Any{f.LoadDest(netfilter.Reg1), netfilter.LoadProto(f.Second), netfilter.LoadPort(f.Third)}, toMapped(f, redirects))}
}

// toMapped sends the flow where the map says.
func toMapped(f netfilter.Family, set string) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, IsDestRegSet: true, SetName: set + f.Suffix},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.Proto), RegAddrMin: netfilter.Reg1, RegProtoMin: f.Second},
	}
}

// statusDestNAT is IPS_DST_NAT of the kernel's conntrack status.
const statusDestNAT = 1 << 5

// postrouting hides loopback sources of forwarded flows, which nobody outside
// could answer, then each egress source: where it leaves its bridge, and where a
// forwarded port leads it back onto it.
func postrouting(t lb.Translation) netfilter.Chain {
	off := netfilter.Interface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "lo")
	masq := []expr.Any{&expr.Masq{}}
	var rules []netfilter.Rule
	for _, p := range []netip.Prefix{loopback4, loopback6} {
		f := netfilter.FamilyOf(p.Addr())
		rules = append(rules, netfilter.Rule{Comment: "loopback sources, IPv" + f.Suffix, Exprs: netfilter.Join(
			off, f.Is(), f.Within(f.LoadSource(netfilter.Reg1), p), netfilter.ConnStatus(statusDestNAT), masq)})
	}
	for _, e := range t.Masquerade {
		f := netfilter.FamilyOf(e.Source.Addr())
		from := netfilter.Join(f.Is(), f.Within(f.LoadSource(netfilter.Reg1), e.Source))
		rules = append(rules,
			netfilter.Rule{Comment: egressComment + e.Source.String() + " " + e.Bridge, Exprs: netfilter.Join(
				from, netfilter.Interface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, e.Bridge), masq)},
			netfilter.Rule{Comment: "hairpin " + e.Source.String() + " " + e.Bridge, Exprs: netfilter.Join(
				from, netfilter.Interface(expr.MetaKeyOIFNAME, expr.CmpOpEq, e.Bridge), netfilter.ConnStatus(statusDestNAT), masq)})
	}
	return natChain("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, rules...)
}

// ReadTranslation returns what the namespace's table translates.
func (d *Driver) ReadTranslation(ctx context.Context, namespace string) (lb.Translation, error) {
	defer d.lock(namespace)()
	c, err := netfilter.Open(namespace)
	if err != nil {
		return lb.Translation{}, err
	}
	defer c.Close()
	t, _, _, err := readNAT(ctx, c, namespace)
	if err != nil {
		return t, err
	}
	t.Return, err = readReturn(c)
	return t, err
}

// Translate makes the namespace translate t, in one transaction, and returns how
// many objects changed. Flows that a changed port leads elsewhere are cut.
func (d *Driver) Translate(ctx context.Context, t lb.Translation) (int, error) {
	t, err := canonicalTranslation(t)
	if err != nil {
		return 0, err
	}
	defer d.lock(t.Namespace)()
	c, err := netfilter.Open(t.Namespace)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	have, exists, sound, err := readNAT(ctx, c, t.Namespace)
	if err != nil {
		return 0, err
	}
	changed := difference(t, have)
	if exists && !sound {
		changed++
		lb.Note(ctx, "replace table "+NATTable+", which is not as it was written")
	}
	if changed > 0 {
		lb.Note(ctx, lb.TranslationDifferences(withoutReturn(t), have)...)
		if err := writeNAT(c, t, have, sound); err != nil {
			return 0, fmt.Errorf("translate in namespace %q: %w", t.Namespace, err)
		}
		if err := forgetForwards(t, have); err != nil {
			return changed, err
		}
	}
	n, err := applyReturn(ctx, c, t)
	if err != nil {
		return changed, err
	}
	return changed + n, prepareLinks(t)
}

// withoutReturn is the part of a translation that the one table holds.
func withoutReturn(t lb.Translation) lb.Translation {
	t.Return = nil
	return t
}

// writeNAT drops the table when nothing is wished. It changes elements alone when the
// rules of what is there are those of the wish, for packets that meet a change of the
// rules find neither the old elements nor the new; otherwise it replaces the table.
func writeNAT(c *netfilter.Conn, t, have lb.Translation, sound bool) error {
	if len(t.Forwards)+len(t.Masquerade)+len(t.Redirects)+len(t.Passing)+len(t.Inner) == 0 && t.Members == nil && t.Closed == "" {
		return c.Clear(peoples)
	}
	l, before := natLayout(t), map[string][]nftables.SetElement{}
	if sound && reflect.DeepEqual(l, natLayout(have)) {
		before = natElements(have)
	} else if err := c.Replace(l); err != nil {
		return err
	}
	if err := c.ChangeElements(l, before, natElements(t)); err != nil {
		return err
	}
	return c.Flush()
}

// boundComment starts the comment of a forwarded port that is taken at one address
// alone, among the redirects; its name follows.
const boundComment = "port of "

func boundElement(fw lb.Forward) nftables.SetElement {
	key := append(fw.At.AsSlice(), netfilter.ProtoKey(protocols[fw.Protocol])...)
	return nftables.SetElement{
		Key:     append(key, netfilter.PortKey(fw.Port)...),
		Val:     append(fw.To.Addr().AsSlice(), netfilter.PortKey(fw.To.Port())...),
		Comment: netfilter.Clip(boundComment + fw.Name),
	}
}

// natElements returns the elements of each map.
func natElements(t lb.Translation) map[string][]nftables.SetElement {
	out := map[string][]nftables.SetElement{}
	for _, fw := range t.Forwards {
		name := forwards + netfilter.FamilyOf(fw.To.Addr()).Suffix
		if fw.At.IsValid() {
			name = redirects + netfilter.FamilyOf(fw.To.Addr()).Suffix
			out[name] = append(out[name], boundElement(fw))
			continue
		}
		out[name] = append(out[name], nftables.SetElement{
			Key:     append(netfilter.ProtoKey(protocols[fw.Protocol]), netfilter.PortKey(fw.Port)...),
			Val:     append(fw.To.Addr().AsSlice(), netfilter.PortKey(fw.To.Port())...),
			Comment: netfilter.Clip(fw.Name),
		})
	}
	for _, r := range t.Redirects {
		name := redirects + netfilter.FamilyOf(r.To.Addr()).Suffix
		key := append(r.From.Addr().AsSlice(), netfilter.ProtoKey(protocols[r.Protocol])...)
		out[name] = append(out[name], nftables.SetElement{
			Key: append(key, netfilter.PortKey(r.From.Port())...),
			Val: append(r.To.Addr().AsSlice(), netfilter.PortKey(r.To.Port())...),
		})
	}
	passingElements(t, out)
	return out
}

// readNAT returns what the table translates, nothing when it is damaged.
func readNAT(ctx context.Context, c *netfilter.Conn, namespace string) (t lb.Translation, exists, sound bool, err error) {
	none := lb.Translation{Namespace: namespace}
	cleared, err := c.Cleared(peoples)
	if err != nil || cleared {
		return none, false, false, errors.Join(err, ctx.Err())
	}
	t = none
	rules, err := c.Rules(NATTable, "postrouting")
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return none, true, false, nil
		}
		return none, true, false, err
	}
	for _, r := range rules {
		if text, ok := strings.CutPrefix(netfilter.Comment(r), egressComment); ok {
			source, bridge, _ := strings.Cut(text, " ")
			p, err := netip.ParsePrefix(source)
			if err != nil {
				return none, true, false, nil
			}
			t.Masquerade = append(t.Masquerade, lb.Egress{Source: p, Bridge: bridge})
		}
	}
	guard, err := findPassing(c, &t)
	if err != nil {
		return none, true, false, err
	}
	if err := findClosed(c, &t); err != nil {
		return none, true, false, err
	}
	// Whether there should be a guard is known when all else has been read.
	intact, _, extra, err := c.Intact(layoutOf(t, guard))
	if err != nil || !intact || len(extra) > 0 {
		return none, true, false, err
	}
	if err := readElements(c, &t); err != nil {
		return none, true, false, err
	}
	if t, err = canonicalTranslation(t); err != nil || guarded(t) != guard {
		return none, true, false, nil // nothing that we would write
	}
	return t, true, true, nil
}

func readElements(c *netfilter.Conn, t *lb.Translation) error {
	l := natLayout(*t)
	if err := readPassing(c, l, t); err != nil {
		return err
	}
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		elements, err := c.GetSetElements(l.Set(forwards + f.Suffix))
		if err != nil {
			return fmt.Errorf("list elements of %s%s: %w", forwards, f.Suffix, err)
		}
		for _, e := range elements {
			if addr, port, ok := f.ParseAddrPort(e.Val); ok && len(e.Key) == 8 {
				t.Forwards = append(t.Forwards, lb.Forward{Protocol: protocolOf(e.Key[0]), Port: binary.BigEndian.Uint16(e.Key[4:]),
					To: netip.AddrPortFrom(addr, port), Name: e.Comment})
			}
		}
		elements, err = c.GetSetElements(l.Set(redirects + f.Suffix))
		if err != nil {
			return fmt.Errorf("list elements of %s%s: %w", redirects, f.Suffix, err)
		}
		for _, e := range elements {
			from, ok := parseFront(f, e.Key)
			addr, port, valid := f.ParseAddrPort(e.Val)
			if name, bound := strings.CutPrefix(e.Comment, boundComment); ok && valid && bound {
				t.Forwards = append(t.Forwards, lb.Forward{Protocol: from.Protocol, Port: from.Port, At: from.Addr,
					To: netip.AddrPortFrom(addr, port), Name: name})
				continue
			}
			if ok && valid {
				t.Redirects = append(t.Redirects, lb.Redirect{Protocol: from.Protocol,
					From: netip.AddrPortFrom(from.Addr, from.Port), To: netip.AddrPortFrom(addr, port)})
			}
		}
	}
	return nil
}

// difference counts the objects that are in one but not in the other.
func difference(a, b lb.Translation) int {
	n := 0
	if a.Closed != b.Closed {
		n++
	}
	return n + differ(a.Forwards, b.Forwards) + differ(a.Masquerade, b.Masquerade) + differ(a.Redirects, b.Redirects) + differ(a.Inner, b.Inner) + differPassing(a, b)
}

func differ[T comparable](a, b []T) int {
	n := 0
	for _, x := range a {
		if !slices.Contains(b, x) {
			n++
		}
	}
	for _, x := range b {
		if !slices.Contains(a, x) {
			n++
		}
	}
	return n
}
