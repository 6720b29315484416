package nft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// apart keeps those on a masqueraded bridge from each other: nothing that comes
// from the bridge goes back onto it but what a forwarded port leads there. The
// bridge's own isolation sees to it where frames that are bridged pass no filter.
func apart(l *netfilter.Layout, t lb.Translation) {
	var bridges []string
	for _, e := range t.Masquerade {
		if !slices.Contains(bridges, e.Bridge) {
			bridges = append(bridges, e.Bridge)
		}
	}
	if len(bridges) == 0 {
		return
	}
	chain := netfilter.Chain{Name: "apart", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookForward, Priority: hookPriority}
	for _, b := range bridges {
		chain.Rules = append(chain.Rules, netfilter.Rule{Comment: "nobody meets over " + b, Exprs: netfilter.Join(
			netfilter.Interface(expr.MetaKeyIIFNAME, expr.CmpOpEq, b), netfilter.Interface(expr.MetaKeyOIFNAME, expr.CmpOpEq, b),
			withoutStatus(statusDestNAT), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})})
	}
	l.Chains = append(l.Chains, chain)
}

// withoutStatus matches flows whose status lacks the bit.
func withoutStatus(bit uint32) []expr.Any {
	out := netfilter.ConnStatus(bit)
	last := *out[len(out)-1].(*expr.Cmp)
	last.Op = expr.CmpOpEq
	out[len(out)-1] = &last
	return out
}

// closedComment starts the comment of the rule that closes a link; its name follows.
const closedComment = "answers alone leave by "

// closed refuses what does not answer over the link.
func closed(l *netfilter.Layout, link string) {
	original := []byte{0} // IP_CT_DIR_ORIGINAL
	l.Chains = append(l.Chains, netfilter.Chain{Name: "closed", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityFilter, Rules: []netfilter.Rule{{Comment: closedComment + link, Exprs: netfilter.Join(
			netfilter.Interface(expr.MetaKeyOIFNAME, expr.CmpOpEq, link),
			[]expr.Any{
				&expr.Ct{Key: expr.CtKeyDIRECTION, Register: netfilter.Reg1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: netfilter.Reg1, Data: original},
				&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_HOST_UNREACH}})}}})
}

// findClosed notes which link the table closes.
func findClosed(c *netfilter.Conn, t *lb.Translation) error {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	if !slices.ContainsFunc(chains, func(ch *nftables.Chain) bool { return ch.Table.Name == NATTable && ch.Name == "closed" }) {
		return nil
	}
	rules, err := c.Rules(NATTable, "closed")
	if err != nil || len(rules) == 0 {
		return err
	}
	t.Closed, _ = strings.CutPrefix(netfilter.Comment(rules[0]), closedComment)
	return nil
}
