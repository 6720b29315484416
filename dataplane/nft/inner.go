package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// Comments of the guard's rules for inner addresses begin with one of these; prefix
// and link follow. The masqueraded ones are known by their masquerading.
const (
	innerComment     = "inner "
	masqueradedInner = "inner to the bridge "
)

// innerRules drop what comes for inner addresses by a link that is not theirs. They
// judge the destination that the sender wrote: ports are forwarded later, and what
// answers a masqueraded flow is still for the namespace's own address.
func innerRules(t lb.Translation) (rules []netfilter.Rule) {
	add := func(comment string, p netip.Prefix, link string) {
		f := netfilter.FamilyOf(p.Addr())
		rules = append(rules, netfilter.Rule{Comment: comment + p.String() + " " + link, Exprs: netfilter.Join(
			f.Is(), f.Within(f.LoadDest(netfilter.Reg1), p),
			netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpNeq, link),
			netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo"),
			[]expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})})
	}
	for _, e := range t.Masquerade {
		add(masqueradedInner, e.Source, e.Bridge)
	}
	for _, i := range t.Inner {
		add(innerComment, i.Prefix, i.Link)
	}
	return rules
}

// findInner notes which prefixes the guard keeps besides the masqueraded ones. A
// rule that says nothing readable is none of ours, and the table not intact.
func findInner(c *netfilter.Conn, t *lb.Translation) error {
	rules, err := c.Rules(NATTable, guardName)
	if err != nil {
		return err
	}
	for _, r := range rules {
		text, ours := strings.CutPrefix(netfilter.Comment(r), innerComment)
		prefix, link, named := strings.Cut(text, " ")
		if p, err := netip.ParsePrefix(prefix); err == nil && ours && named {
			t.Inner = append(t.Inner, lb.Inner{Prefix: p, Link: link})
		}
	}
	return nil
}

// canonicalInner sorts the prefixes and refuses what is none.
func canonicalInner(inner []lb.Inner) (out []lb.Inner, err error) {
	for _, i := range inner {
		if !i.Prefix.IsValid() || i.Link == "" || len(i.Link) >= unix.IFNAMSIZ {
			return nil, fmt.Errorf("keep %s to link %q: needs a prefix and a link name", i.Prefix, i.Link)
		}
		out = append(out, lb.Inner{Prefix: i.Prefix.Masked(), Link: i.Link})
	}
	slices.SortFunc(out, func(a, b lb.Inner) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Link, b.Link))
	})
	return slices.Compact(out), nil
}
