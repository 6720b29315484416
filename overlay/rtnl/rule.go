package rtnl

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/vxlan"
)

// rule is a policy routing rule with our protocol number on it.
func rule(r vxlan.Rule) *netlink.Rule {
	out := netlink.NewRule()
	mask := r.Mask
	out.Family, out.Priority, out.Protocol = netlink.FAMILY_V4, vxlan.RulePriority, Protocol
	if r.Six {
		out.Family = netlink.FAMILY_V6
	}
	out.Mark, out.Mask, out.Table = r.Mark, &mask, int(r.Table)
	return out
}

func (k *Kernel) setRule(o vxlan.SetRule) error {
	s, err := k.open(o.Namespace)
	if err != nil {
		return err
	}
	if err := s.netlink.RuleAdd(rule(o.Rule)); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func (k *Kernel) delRule(o vxlan.DelRule) error {
	s, err := k.open(o.Namespace)
	if err != nil {
		return gone(err)
	}
	return gone(s.netlink.RuleDel(rule(o.Rule)))
}

// rules reads the rules that carry our protocol number.
func (s *space) rules() (out []vxlan.Rule, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := dump(func() ([]netlink.Rule, error) { return s.netlink.RuleList(family) })
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without IPv6, or without its policy routing
		}
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if r.Protocol == Protocol && r.Mask != nil {
				out = append(out, vxlan.Rule{Mark: r.Mark, Mask: *r.Mask, Table: uint32(r.Table), Six: family == netlink.FAMILY_V6})
			}
		}
	}
	return out, nil
}
