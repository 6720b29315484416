package nft

import (
	"github.com/google/nftables"

	"shoal/dataplane/netfilter"
)

// changeElements makes the sets of a layout hold what is after, in one transaction.
// What is in both is not touched.
func changeElements(c *netfilter.Conn, l netfilter.Layout, before, after map[string][]nftables.SetElement) error {
	for i := range l.Sets {
		name := l.Sets[i].Name
		if err := c.DeleteElements(l.Set(name), without(before[name], after[name])); err != nil {
			return err
		}
		if err := c.AddElements(l.Set(name), without(after[name], before[name])); err != nil {
			return err
		}
	}
	return c.Flush()
}

// without returns the elements that others has not, or with another value or comment.
func without(elements, others []nftables.SetElement) (out []nftables.SetElement) {
	type element struct{ key, value, comment string }
	of := func(e nftables.SetElement) element { return element{string(e.Key), string(e.Val), e.Comment} }
	known := make(map[element]bool, len(others))
	for _, e := range others {
		known[of(e)] = true
	}
	for _, e := range elements {
		if !known[of(e)] {
			out = append(out, e)
		}
	}
	return out
}
