package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// write sends one transaction that makes the table balance the wish.
func write(c *netfilter.Conn, wish lb.Desired, st state, ops []lb.Op) error {
	if len(wish.Services) == 0 && !wish.Masquerades() {
		c.Drop(Table)
		return c.Flush()
	}
	if !st.exists || !st.sound || !slices.Equal(wish.MasqueradeFrom, st.balance.MasqueradeFrom) || wish.Masquerades() != st.balance.Masquerades() {
		return writeAll(c, wish)
	}
	touched, gone := map[lb.Front]bool{}, map[lb.Front]bool{}
	for _, op := range ops {
		if op.Kind == lb.RemoveService {
			gone[op.Service.Front] = true
		} else {
			touched[op.Service.Front] = true
		}
	}
	known := map[lb.Front]lb.Service{}
	for _, s := range st.balance.Services {
		known[s.Front] = s
	}
	for _, s := range wish.Services {
		if !touched[s.Front] {
			continue
		}
		had, there := known[s.Front]
		if err := writeService(c, wish.Namespace, s, !there, had.Sticky > 0); err != nil {
			return err
		}
	}
	for front := range gone {
		if err := dropService(c, known[front]); err != nil {
			return err
		}
	}
	return c.Flush()
}

// writeAll replaces the whole table.
func writeAll(c *netfilter.Conn, wish lb.Desired) error {
	if err := c.Replace(layout(wish.Masquerades(), wish.MasqueradeFrom)); err != nil {
		return err
	}
	for _, s := range wish.Services {
		if err := writeService(c, wish.Namespace, s, true, false); err != nil {
			return err
		}
	}
	return c.Flush()
}

// writeService queues a service's chain and map anew; fresh ones are made first
// and the front is led to them last. A service that kept its clients (sticks) and
// still does goes on with those it knows.
func writeService(c *netfilter.Conn, namespace string, s lb.Service, fresh, sticks bool) error {
	set, chain := serverMap(s.Front), chainOf(s.Front)
	if fresh {
		if err := c.AddSet(set, nil); err != nil {
			return fmt.Errorf("queue map %s: %w", set.Name, err)
		}
		c.AddChain(chain)
	} else {
		c.FlushChain(chain)
		c.FlushSet(set)
	}
	if err := writeSticky(c, s, sticks); err != nil {
		return fmt.Errorf("queue the clients of %s: %w", s.Front, err)
	}
	elements, slots := servers(namespace, s)
	if err := c.AddElements(set, elements); err != nil {
		return err
	}
	for _, r := range rules(s, slots) {
		c.Append(Table, chain.Name, r)
	}
	if !fresh {
		return nil
	}
	return c.AddElements(base.Set(frontMap(s.Front)), []nftables.SetElement{frontElement(s.Front)})
}

// dropService queues the removal of a front, then of what it led to.
func dropService(c *netfilter.Conn, s lb.Service) error {
	front := s.Front
	if err := c.SetDeleteElements(base.Set(frontMap(front)), []nftables.SetElement{frontElement(front)}); err != nil {
		return fmt.Errorf("queue removal of front %s: %w", front, err)
	}
	c.FlushChain(chainOf(front))
	c.DelChain(chainOf(front))
	c.DelSet(serverMap(front))
	return writeSticky(c, lb.Service{Front: front}, s.Sticky > 0)
}

func chainOf(front lb.Front) *nftables.Chain {
	return &nftables.Chain{Name: objectName(front), Table: base.TableOf()}
}
