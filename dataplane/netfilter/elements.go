package netfilter

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// elementsPerMessage keeps an attribute list far below the 64 KiB that netlink can say.
const elementsPerMessage = 128

// AddElements queues elements for a set, in as many messages as needed.
func (c *Conn) AddElements(s *nftables.Set, elements []nftables.SetElement) error {
	for part := range slices.Chunk(elements, elementsPerMessage) {
		if err := c.SetAddElements(s, part); err != nil {
			return fmt.Errorf("queue elements of %s: %w", s.Name, err)
		}
	}
	return nil
}

// DeleteElements queues the removal of elements, in as many messages as needed.
func (c *Conn) DeleteElements(s *nftables.Set, elements []nftables.SetElement) error {
	for part := range slices.Chunk(elements, elementsPerMessage) {
		if err := c.SetDeleteElements(s, part); err != nil {
			return fmt.Errorf("queue removal of elements of %s: %w", s.Name, err)
		}
	}
	return nil
}

// ChangeElements queues what makes the sets of a layout that hold what is before hold
// what is after. Elements that are in both are not touched.
func (c *Conn) ChangeElements(l Layout, before, after map[string][]nftables.SetElement) error {
	for i := range l.Sets {
		name := l.Sets[i].Name
		if err := c.DeleteElements(l.Set(name), without(before[name], after[name])); err != nil {
			return err
		}
		if err := c.AddElements(l.Set(name), without(after[name], before[name])); err != nil {
			return err
		}
	}
	return nil
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
