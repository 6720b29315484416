package nft

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// ErrMissing is wrapped by the errors of Probe.
var ErrMissing = fmt.Errorf("nft is missing from this kernel")

// probeTable never outlives the transaction that makes it.
const probeTable = "shoal_probe"

// Probe returns nil, or why this kernel cannot do what the driver needs. It asks
// the kernel to take one of every rule and to drop them in the same transaction.
func Probe(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := netfilter.Open("")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	defer c.Close()
	l := layout(true, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	l.Table = probeTable
	if err := queueProbe(c, l); err != nil {
		return err
	}
	host := natLayout(lb.Translation{Passing: []string{"lo"}, Members: &lb.Members{Port: 1}})
	host.Table, host.People = probeTable, ""
	if err := c.Replace(host); err != nil {
		return err
	}
	c.Drop(probeTable)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return nil
}

func queueProbe(c *netfilter.Conn, l netfilter.Layout) error {
	if err := c.Replace(l); err != nil {
		return err
	}
	for i, algorithm := range []lb.Algorithm{lb.RoundRobin, lb.SourceHash} {
		s := lb.Service{Front: lb.Front{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}, Algorithm: algorithm, Sticky: time.Hour}
		kept, slots, server := stickySets(s.Front)
		chain := chainOf(s.Front)
		chain.Table = l.TableOf()
		for _, set := range []*nftables.Set{serverMap(s.Front), kept, slots, server} {
			set.Table = l.TableOf()
			if err := c.AddSet(set, nil); err != nil {
				return fmt.Errorf("queue set %s: %w", set.Name, err)
			}
		}
		c.AddChain(chain)
		for _, slots := range []int{0, 1} {
			for _, r := range rules(s, slots) {
				c.Append(probeTable, chain.Name, r)
			}
		}
	}
	c.Drop(probeTable)
	return nil
}
