package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"shoal/dataplane/netfilter"
)

// Table is the name of the table that balances; NATTable of the one that translates.
const (
	Table    = "shoal_lb"
	NATTable = "shoal_nat"
)

// balancedBit in a flow's mark says that it was balanced here.
const balancedBit = 1 << 24

// The maps from fronts to service chains, one of each per family: fronts of one
// port, then fronts of every port. The family's suffix is appended.
const (
	portFronts = "port"
	anyFronts  = "any"
)

// hiddenBit in a flow's mark says that its service hides its clients.
const hiddenBit = 1 << 26

// base names the table and its maps, whatever else the table holds.
var base = layout(false, nil)

// layout is the table without its services; where it masquerades, from lists
// whom always.
func layout(masquerade bool, from []netip.Prefix) netfilter.Layout {
	l := netfilter.Layout{Table: Table}
	front := netfilter.Chain{Name: "fronts"}
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		l.Sets = append(l.Sets,
			verdictMap(portFronts+f.Suffix, f.Addr, nftables.TypeInetProto, nftables.TypeInetService),
			verdictMap(anyFronts+f.Suffix, f.Addr))
		front.Rules = append(front.Rules,
			netfilter.Rule{Comment: "fronts of one port, IPv" + f.Suffix, Exprs: netfilter.Join(f.Is(), []expr.Any{
				f.LoadDest(netfilter.Reg1), netfilter.LoadProto(f.Second), netfilter.LoadPort(f.Third),
				&expr.Lookup{SourceRegister: netfilter.Reg1, SetName: portFronts + f.Suffix, IsDestRegSet: true}})},
			netfilter.Rule{Comment: "fronts of every port, IPv" + f.Suffix, Exprs: netfilter.Join(f.Is(), []expr.Any{
				f.LoadDest(netfilter.Reg1),
				&expr.Lookup{SourceRegister: netfilter.Reg1, SetName: anyFronts + f.Suffix, IsDestRegSet: true}})})
	}
	// The kernel tracks flows, and translates those it tracks, only while some rule
	// asks for their state; the services' rules may all be refusals.
	jump := netfilter.Rule{Comment: "balance", Exprs: netfilter.Join(netfilter.ConnState(expr.CtStateBitNEW),
		[]expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: front.Name}})}
	l.Chains = append(l.Chains, front,
		natChain("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, jump),
		natChain("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest, jump))
	if masquerade {
		l.Chains = append(l.Chains, natChain("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
			netfilter.HideRules(balancedBit, hiddenBit, from)...))
	}
	return l
}

func natChain(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, rules ...netfilter.Rule) netfilter.Chain {
	return netfilter.Chain{Name: name, Type: nftables.ChainTypeNAT, Hook: hook, Priority: priority, Rules: rules}
}

func verdictMap(name string, key ...nftables.SetDatatype) nftables.Set {
	return nftables.Set{Name: name, IsMap: true, Concatenation: len(key) > 1,
		KeyType: nftables.MustConcatSetType(key...), DataType: nftables.TypeVerdict}
}
