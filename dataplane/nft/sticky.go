package nft

import (
	"hash/fnv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// What a service that keeps its clients has beside its map. A server is known by
// a number that does not change while others come and go, and that the flow's
// mark holds while the rules look for it. The rules themselves fill the map from
// clients to servers, and no change of the service empties it: what it says
// counts only while the server's number is one of those that take new flows, so
// that nobody needs to clean it when a server goes.
const (
	keptSuffix   = "-kept"   // client → mark of its server
	slotsSuffix  = "-slots"  // slot → mark
	serverSuffix = "-server" // mark → server that takes new flows
)

// clientsMax bounds the clients that are remembered for one front. Those beyond
// are balanced anew each time.
const clientsMax = 1 << 16

// opDelete is NFT_DYNSET_OP_DELETE of linux/netfilter/nf_tables.h.
const opDelete = 2

// numberMask are the bits of a flow's mark that a server's number may use.
const numberMask = balancedBit - 1

// stickySets returns the client map first, which is the one to be left alone.
func stickySets(front lb.Front) (kept, slots, server *nftables.Set) {
	s := serverMap(front)
	f := netfilter.FamilyOf(front.Addr)
	kept = &nftables.Set{Table: s.Table, Name: s.Name + keptSuffix, IsMap: true, KeyType: f.Addr, DataType: nftables.TypeMark,
		HasTimeout: true, Dynamic: true, Size: clientsMax}
	slots = &nftables.Set{Table: s.Table, Name: s.Name + slotsSuffix, IsMap: true, KeyType: s.KeyType,
		KeyByteOrder: binaryutil.NativeEndian, DataType: nftables.TypeMark}
	server = &nftables.Set{Table: s.Table, Name: s.Name + serverSuffix, IsMap: true, KeyType: nftables.TypeMark,
		KeyByteOrder: binaryutil.NativeEndian, DataType: s.DataType}
	return kept, slots, server
}

// serverMarks gives every backend its mark: what all flows of the service carry,
// and the hash of the server or the next number that is free.
func serverMarks(s lb.Service) map[string]uint32 {
	out, taken := map[string]uint32{}, map[uint32]bool{}
	for _, b := range s.Backends {
		value := serverValue(b)
		h := fnv.New32a()
		h.Write(value)
		n := h.Sum32() & numberMask
		for taken[n] {
			n = (n + 1) & numberMask
		}
		out[string(value)], taken[n] = n|markOf(s), true
	}
	return out
}

// stickyElements fill the maps of slots and of servers.
func stickyElements(s lb.Service) (slots, servers []nftables.SetElement) {
	marks := serverMarks(s)
	mark := func(b lb.Backend) []byte { return binaryutil.NativeEndian.PutUint32(marks[string(serverValue(b))]) }
	for i, b := range s.Slots() {
		slots = append(slots, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Val: mark(b)})
	}
	for _, b := range s.Eligible() {
		servers = append(servers, nftables.SetElement{Key: mark(b), Val: serverValue(b), Comment: netfilter.Clip(b.Task)})
	}
	return slots, servers
}

// stickyRules replace the rule that picks a server for whoever comes. Each ends at
// the first thing that it does not find:
//
//	a client that is known goes where it was, and is known longer
//	otherwise what is known of it is wrong
//	whoever comes gets a server, and is known from now on
//	whoever cannot be remembered goes to the server that was picked
//	whoever meets a change goes to the next server that there is
func stickyRules(s lb.Service, slots int) []netfilter.Rule {
	kept, picks, server := stickySets(s.Front)
	f := netfilter.FamilyOf(s.Addr)
	mark := func(register uint32) expr.Any { return &expr.Ct{Key: expr.CtKeyMARK, Register: register} }
	lookup := func(set *nftables.Set) expr.Any {
		return &expr.Lookup{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, IsDestRegSet: true, SetName: set.Name}
	}
	setMark := &expr.Ct{Key: expr.CtKeyMARK, Register: netfilter.Reg1, SourceRegister: true}
	client := append(f.Is(), f.LoadSource(netfilter.Reg1))
	dynamic := func(operation uint32) []expr.Any {
		e := &expr.Dynset{SrcRegKey: netfilter.Reg1, SrcRegData: netfilter.Reg2, SetName: kept.Name, Operation: operation}
		if operation == unix.NFT_DYNSET_OP_UPDATE {
			e.Timeout = s.Sticky
		}
		return netfilter.Join(client, []expr.Any{mark(netfilter.Reg2), e})
	}
	remember, forget := dynamic(unix.NFT_DYNSET_OP_UPDATE), dynamic(opDelete)
	send := netfilter.Join([]expr.Any{mark(netfilter.Reg1), lookup(server)}, translates(s))
	return []netfilter.Rule{
		{Comment: describe(s), Exprs: netfilter.Join(client, []expr.Any{lookup(kept), setMark}, remember, send)},
		{Comment: "its server takes nothing new", Exprs: forget},
		{Comment: "whoever comes", Exprs: netfilter.Join(number(f, s.Algorithm, slots), []expr.Any{lookup(picks), setMark}, remember, send)},
		{Comment: "whoever cannot be remembered", Exprs: send},
		{Comment: onceMore, Exprs: netfilter.Join(number(f, lb.RoundRobin, slots), []expr.Any{lookup(picks), setMark}, send)},
	}
}

// writeSticky queues what a service that keeps its clients has beside its map;
// had says that it is there. The rules of the service have been flushed.
func writeSticky(c *netfilter.Conn, s lb.Service, had bool) error {
	kept, slots, server := stickySets(s.Front)
	switch {
	case s.Sticky == 0 && had:
		c.DelSet(kept)
		c.DelSet(slots)
		c.DelSet(server)
		return nil
	case s.Sticky == 0:
		return nil
	case had:
		c.FlushSet(slots)
		c.FlushSet(server)
	default:
		for _, set := range []*nftables.Set{kept, slots, server} {
			if err := c.AddSet(set, nil); err != nil {
				return err
			}
		}
	}
	first, second := stickyElements(s)
	if err := c.AddElements(slots, first); err != nil {
		return err
	}
	return c.AddElements(server, second)
}

// objectNames are the names of the sets that a service has.
func objectNames(s lb.Service) []string {
	out := []string{objectName(s.Front)}
	if s.Sticky > 0 {
		kept, slots, server := stickySets(s.Front)
		out = append(out, kept.Name, slots.Name, server.Name)
	}
	return out
}

// stickyAsWished says whether the kernel's maps are the service's.
func stickyAsWished(c *netfilter.Conn, s lb.Service) (bool, error) {
	if s.Sticky == 0 {
		return true, nil
	}
	_, slots, server := stickySets(s.Front)
	wantSlots, wantServers := stickyElements(s)
	haveSlots, err := c.GetSetElements(slots)
	if err != nil || !sameElements(wantSlots, haveSlots) {
		return false, err
	}
	haveServers, err := c.GetSetElements(server)
	return err == nil && sameElements(wantServers, haveServers), err
}
