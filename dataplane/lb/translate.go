package lb

import (
	"context"
	"net/netip"
)

// Translation is the address translation one namespace needs besides balancing.
type Translation struct {
	Namespace string
	// Forwards send a port of any of the namespace's own addresses (fib type
	// local, loopback included) to one address: published ports into the
	// ingress namespace, host-mode ports to their task.
	Forwards []Forward
	// Masquerade hides these sources behind the namespace's own address when
	// their packets leave the given link (egress of tasks). Nothing that comes from
	// the link goes back by it but what a forwarded port leads there.
	Masquerade []Egress
	// Redirects rewrite what a process of the namespace sends to one address
	// and port (the name server at 127.0.0.11:53).
	Redirects []Redirect
	// Passing lists links of the namespace. What is forwarded in or out by one of
	// them meets the rules that people wrote for it, and TCP connections there
	// agree on segments that fit the routes both ways. A namespace with such
	// links keeps people's rules whatever else is translated.
	Passing []string
	// Inner are addresses that only the namespace itself and what is behind their
	// link may send to: what comes in by another link for one of them is dropped
	// before any port is forwarded. The sources of Masquerade are inner likewise.
	Inner []Inner
	// Closed is a link over which the namespace answers alone: nothing of its own
	// begins there. It is empty where all links are open.
	Closed string
	// Members are the only ones who may send to a port; nil lets everybody.
	Members *Members
	// Return sends replies back by the neighbour that their flow came from; nil
	// where there is nothing but routes to heed.
	Return *ReturnPath
}

// Members are those who may send datagrams to a UDP port of the namespace's own
// addresses; what comes from anyone else is dropped, and what comes in by a link of
// Passing, wherever it is sent to: no datagram of a task may pass for a member's.
type Members struct {
	Port  uint16
	Addrs []netip.Addr
}

// ReturnPath is how a namespace answers flows that came in by one link through
// one of several neighbours, each of which must see the replies of its own flows:
// the entry nodes of the routing mesh, which leave the client's address as it is.
//
// A neighbour is known by the last two bytes of its hardware address. They are
// kept with the flow and become the low bits of the replies' mark, by which the
// caller's policy routing sends them to the link; there they become the last two
// bytes of the destination's hardware address. Where two clients' flows look
// alike because they came by different neighbours, the later one's source port is
// translated, and nothing else ever.
type ReturnPath struct {
	// Interface is the link's name.
	Interface string
	// Neighbors are the first four bytes of the neighbours' hardware addresses.
	Neighbors [4]byte
	// Direct are the sources that are answered as the routes say.
	Direct []netip.Prefix
	// Mark is the mark of replies, its low 16 bits zero.
	Mark uint32
	// Datagrams are the addresses that sockets without a connection answer from when
	// the routes alone decide, at most one of each family; one is missing where it is
	// the link's own. Then nothing of that family but replies leaves the link for the
	// world outside.
	Datagrams []netip.Addr
}

// Forward is one port sent elsewhere.
type Forward struct {
	Protocol Protocol
	Port     uint16
	// At is the one address of the namespace that the port is taken at; invalid
	// is every address of To's family.
	At   netip.Addr
	To   netip.AddrPort
	Name string // for people
}

// TakenAt says whether the forward is there for an address of the namespace.
func (f Forward) TakenAt(a netip.Addr) bool { return !f.At.IsValid() || f.At == a }

// Egress is a source prefix whose packets are masqueraded unless they stay on
// the bridge they came from.
type Egress struct {
	Source netip.Prefix
	Bridge string
}

// Inner is a prefix of addresses behind a link of the namespace.
type Inner struct {
	Prefix netip.Prefix
	Link   string
}

// Redirect is one local destination replaced by another.
type Redirect struct {
	Protocol Protocol
	From, To netip.AddrPort
}

// Translator programs Translations; dataplane/nft has the one implementation.
type Translator interface {
	ReadTranslation(ctx context.Context, namespace string) (Translation, error)
	// Translate takes the whole wish for a namespace; all or nothing.
	Translate(ctx context.Context, t Translation) (changed int, err error)
}
