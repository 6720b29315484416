package netfilter

import (
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// hideComment starts the comment of a rule that hides clients; their prefix follows.
const hideComment = "hide "

// HideRules give a flow that leaves the namespace its own address where the
// flow's mark says that its service wants that, or where it is balanced and
// comes from one of the prefixes.
func HideRules(balanced, hidden uint32, from []netip.Prefix) []Rule {
	off := Interface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "lo")
	masq := []expr.Any{&expr.Masq{}}
	out := []Rule{{Comment: "services that hide their clients", Exprs: Join(off, ConnMark(hidden), masq)}}
	for _, p := range from {
		f := FamilyOf(p.Addr())
		out = append(out, Rule{Comment: hideComment + p.String(), Exprs: Join(
			off, ConnMark(balanced), f.Is(), f.Within(f.LoadSource(Reg1), p), masq)})
	}
	return out
}

// Hidden returns the prefixes that the rules of HideRules speak of.
func Hidden(rules []*nftables.Rule) (from []netip.Prefix) {
	for _, r := range rules {
		if text, ok := strings.CutPrefix(Comment(r), hideComment); ok {
			if p, err := netip.ParsePrefix(text); err == nil {
				from = append(from, p)
			}
		}
	}
	return from
}
