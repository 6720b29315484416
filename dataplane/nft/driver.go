// Package nft balances and translates with nftables: lb.Driver "nft" and
// lb.Translator.
//
// Balancing lives in one table per namespace, "inet shoal_lb". The number of
// rules that a packet meets does not depend on the number of services: a front
// is an element of a verdict map that leads to the service's own chain, and that
// chain picks a server by number from the service's own map. A change of one
// backend is one small transaction that touches this service only; a table that
// is damaged in any way is replaced whole, in one transaction, while tracked
// flows go on.
//
// Translation lives in a second table, "inet shoal_nat", of the same make.
//
// The kernel is the only memory: whatever is needed to read the state back is in
// the elements, or in their comments where the kernel has no field for it.
package nft

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// Driver is lb.Driver and lb.Translator on nftables. Its methods may be called
// at the same time for different namespaces; calls for one are serialised.
type Driver struct {
	locks [lockStripes]sync.Mutex
}

// lockStripes bounds the locks: namespaces share them by hash.
const lockStripes = 64

// New returns a driver; Probe says whether the kernel can do what it needs.
func New() *Driver { return &Driver{} }

// Name is "nft".
func (d *Driver) Name() string { return "nft" }

// Supports returns nil for rr, wrr, sh and mh, and for the others why not.
func (d *Driver) Supports(a lb.Algorithm) error {
	switch a {
	case "", lb.RoundRobin, lb.WeightedRoundRobin, lb.SourceHash, lb.Maglev:
		return nil
	case lb.LeastConn, lb.WeightedLeastConn:
		return fmt.Errorf("nft cannot balance by %q: nftables does not count the connections of a server", a)
	}
	return fmt.Errorf("nft cannot balance by %q: no such algorithm", a)
}

// Read returns what the namespace's table balances. A table that misses a part
// of what makes it work balances nothing.
func (d *Driver) Read(ctx context.Context, namespace string) (lb.Desired, error) {
	defer d.lock(namespace)()
	c, err := netfilter.Open(namespace)
	if err != nil {
		return lb.Desired{}, err
	}
	defer c.Close()
	st, err := read(ctx, c, namespace)
	return st.balance, err
}

// Apply makes the namespace balance d and returns how many objects changed. What
// no longer fits is forgotten: flows to a server that is not among its front's
// any more are cut, those to a draining one are kept.
func (d *Driver) Apply(ctx context.Context, wish lb.Desired) (int, error) {
	wish, err := wish.Canonical()
	if err != nil {
		return 0, err
	}
	for _, s := range wish.Services {
		if err := d.Supports(s.Algorithm); err != nil {
			return 0, fmt.Errorf("balance %s: %w", s.Front, err)
		}
	}
	defer d.lock(wish.Namespace)()
	c, err := netfilter.Open(wish.Namespace)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	st, err := read(ctx, c, wish.Namespace)
	if err != nil {
		return 0, err
	}
	return apply(ctx, c, wish, st)
}

// apply is Apply once the state is known.
func apply(ctx context.Context, c *netfilter.Conn, wish lb.Desired, st state) (int, error) {
	for _, front := range wish.Forwarded() {
		if err := netfilter.Forward(wish.Namespace, netfilter.FamilyOf(front)); err != nil {
			return 0, err
		}
	}
	ops := lb.Plan(wish, st.balance)
	changed := len(ops)
	if st.exists && !st.sound {
		changed++
	}
	if changed == 0 {
		return 0, nil
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if st.exists && !st.sound {
		lb.Note(ctx, "replace table "+Table+", which is not as it was written")
	}
	lb.Note(ctx, ops...)
	if err := write(c, wish, st, ops); err != nil {
		return 0, fmt.Errorf("balance in namespace %q: %w", wish.Namespace, err)
	}
	if lb.HandsOver(ctx) {
		return changed, nil
	}
	return changed, forget(wish, ops)
}

// lock serialises the work on one namespace and returns how to end it.
func (d *Driver) lock(namespace string) (unlock func()) {
	h := fnv.New32a()
	h.Write([]byte(namespace))
	l := &d.locks[h.Sum32()%lockStripes]
	l.Lock()
	return l.Unlock
}
