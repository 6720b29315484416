package netview

import (
	"context"
	"net/netip"
	"time"
)

// DataPath is what the node's self-test knows of the ways to the other nodes.
type DataPath struct {
	// MTU is what a packet on an overlay network may have, in bytes;
	// SoftwareChecksums says that the kernel fills in the checksums of tunnelled packets.
	MTU               int
	SoftwareChecksums bool
	Ways              []Way
}

// Way is the way to one node.
type Way struct {
	Node string
	VTEP netip.Addr
	// Tested is when, zero for not yet. MTU is the largest packet that arrives
	// through the tunnel, in bytes.
	Tested time.Time
	MTU    int
	// Trouble says what is wrong and the way out, "" for nothing.
	Trouble string `json:",omitempty"`
}

// DataPath shows the self-test's results; with test it is made anew first.
func (s *Sources) DataPath(ctx context.Context, test bool) (DataPath, error) {
	if test {
		if err := s.Prober.Again(ctx); err != nil {
			return DataPath{}, err
		}
	}
	self := s.Fabric.Self()
	out := DataPath{MTU: self.OverlayMTU(), SoftwareChecksums: self.SoftwareChecksums, Ways: []Way{}}
	for _, w := range s.Prober.Status() {
		out.Ways = append(out.Ways, Way{Node: w.Name, VTEP: w.VTEP, Tested: w.Tested, MTU: w.MTU, Trouble: w.Trouble})
	}
	return out, nil
}
