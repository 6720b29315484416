package nft

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// servicePrefix starts the names of what belongs to one service; the rest is its
// front, so that the names are readable, bounded (address, protocol, port) and
// need no memory.
const servicePrefix = "svc-"

// hashSeed is the same on every node: a client meets the same server wherever it enters.
const hashSeed = 0x5ea

// drainingFrom is the first number of servers that are never picked: the chain
// counts from zero to the number of slots.
const drainingFrom = 1 << 31

// objectName names a front's chain and its map.
func objectName(f lb.Front) string {
	name := servicePrefix + f.Addr.String()
	if f.Protocol != lb.Any {
		name += fmt.Sprintf("-%s-%d", f.Protocol, f.Port)
	}
	return strings.ReplaceAll(name, ":", "_")
}

// protocols are the numbers of IANA's registry.
var protocols = map[lb.Protocol]byte{lb.TCP: unix.IPPROTO_TCP, lb.UDP: unix.IPPROTO_UDP, lb.SCTP: unix.IPPROTO_SCTP}

func protocolOf(number byte) lb.Protocol {
	for p, n := range protocols {
		if n == number {
			return p
		}
	}
	return lb.Any
}

// frontMap returns the name of the map a front is an element of.
func frontMap(f lb.Front) string {
	if f.Protocol == lb.Any {
		return anyFronts + netfilter.FamilyOf(f.Addr).Suffix
	}
	return portFronts + netfilter.FamilyOf(f.Addr).Suffix
}

// frontElement leads a front to its chain.
func frontElement(f lb.Front) nftables.SetElement {
	key := f.Addr.AsSlice()
	if f.Protocol != lb.Any {
		key = append(append(key, netfilter.ProtoKey(protocols[f.Protocol])...), netfilter.PortKey(f.Port)...)
	}
	return nftables.SetElement{Key: key, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: objectName(f)}}
}

// parseFront is the inverse of frontElement.
func parseFront(f netfilter.Family, key []byte) (lb.Front, bool) {
	if len(key) != int(f.Bytes) && len(key) != int(f.Bytes)+8 {
		return lb.Front{}, false
	}
	addr, ok := netip.AddrFromSlice(key[:f.Bytes])
	if !ok || len(key) == int(f.Bytes) {
		return lb.Front{Addr: addr}, ok
	}
	rest := key[f.Bytes:]
	front := lb.Front{Addr: addr, Protocol: protocolOf(rest[0]), Port: binary.BigEndian.Uint16(rest[4:])}
	return front, front.Protocol != lb.Any && front.Port != 0
}

// serverMap is the service's numbered servers.
func serverMap(front lb.Front) *nftables.Set {
	f := netfilter.FamilyOf(front.Addr)
	data := []nftables.SetDatatype{f.Addr}
	if front.Protocol != lb.Any {
		data = append(data, nftables.TypeInetService)
	}
	return &nftables.Set{
		Table: base.TableOf(), Name: objectName(front), IsMap: true,
		KeyType: nftables.TypeMark, KeyByteOrder: binaryutil.NativeEndian, DataType: nftables.MustConcatSetType(data...),
	}
}

// turn is where a namespace starts to count. Without it every new client of a
// service would begin with the same server.
func turn(namespace string, s lb.Service, slots int) int {
	if slots == 0 || hashes(s.Algorithm) {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(namespace + "|" + s.Front.String()))
	return int(h.Sum32() % uint32(slots))
}

// servers returns the elements of the service's map, and how many can be picked.
func servers(namespace string, s lb.Service) (elements []nftables.SetElement, slots int) {
	table := s.Slots()
	first := turn(namespace, s, len(table))
	for i := range table {
		elements = append(elements, serverElement(uint32(i), table[(i+first)%len(table)]))
	}
	next := uint32(drainingFrom)
	for _, b := range s.Backends {
		if b.Draining {
			elements = append(elements, serverElement(next, b))
			next++
		}
	}
	return elements, len(table)
}

func serverElement(number uint32, b lb.Backend) nftables.SetElement {
	return nftables.SetElement{
		Key: binaryutil.NativeEndian.PutUint32(number), Val: serverValue(b),
		Comment: netfilter.Clip(fmt.Sprintf("weight=%d %s", b.Weight, b.Task)),
	}
}

// serverValue is a server as maps and sets hold it.
func serverValue(b lb.Backend) []byte {
	val := b.Addr.AsSlice()
	if b.Port != 0 {
		val = append(val, netfilter.PortKey(b.Port)...)
	}
	return val
}

// hashes says whether the algorithm picks by the client's address.
func hashes(a lb.Algorithm) bool { return a == lb.SourceHash || a == lb.Maglev }

// The words that may follow the algorithm in the comment of a service's first rule.
const (
	hidesWord  = "hides"   // its clients
	stickyWord = "sticky=" // for how long
)

// describe is the comment of a service's first rule: how it balances, and its name.
func describe(s lb.Service) string {
	words := string(s.Algorithm)
	if s.Masquerade {
		words += "/" + hidesWord
	}
	if s.Sticky > 0 {
		words += "/" + stickyWord + s.Sticky.String()
	}
	return words + " " + s.Name
}

// parseDescription is the inverse of describe.
func parseDescription(front lb.Front, comment string) (s lb.Service, ok bool) {
	words, name, _ := strings.Cut(comment, " ")
	algorithm, rest, more := strings.Cut(words, "/")
	s = lb.Service{Front: front, Name: name, Algorithm: lb.Algorithm(algorithm)}
	for word := ""; more; {
		word, rest, more = strings.Cut(rest, "/")
		duration, sticks := strings.CutPrefix(word, stickyWord)
		switch {
		case word == hidesWord:
			s.Masquerade = true
		case sticks:
			var err error
			if s.Sticky, err = time.ParseDuration(duration); err != nil {
				return s, false
			}
		default:
			return s, false
		}
	}
	return s, true
}

// rules are the chain of a service: pick a server, or refuse.
func rules(s lb.Service, slots int) []netfilter.Rule {
	if slots == 0 {
		tcp, other := netfilter.Refuse()
		return []netfilter.Rule{{Comment: describe(s), Exprs: tcp}, {Comment: "nobody is there", Exprs: other}}
	}
	if s.Sticky > 0 {
		return stickyRules(s, slots)
	}
	return []netfilter.Rule{
		{Comment: describe(s), Exprs: sends(s, s.Algorithm, slots)},
		{Comment: onceMore, Exprs: sends(s, lb.RoundRobin, slots)},
	}
}

// onceMore is the comment of the rule for packets that arrive in the moment of a
// change: they run through the chain as it was and may meet the map as it is, without
// the slot they picked, or one of whose elements the kernel takes the old away before
// it shows the new. The rule counts by itself, from the first slot, which there is
// before and after.
const onceMore = "once more, for who meets a change"

// sends picks a server by the algorithm and sends the flow there. Where the map has
// none the rule does nothing.
func sends(s lb.Service, a lb.Algorithm, slots int) []expr.Any {
	return netfilter.Join(
		netfilter.SetConnMark(markOf(s)), number(netfilter.FamilyOf(s.Addr), a, slots),
		[]expr.Any{&expr.Lookup{SourceRegister: netfilter.Reg1, DestRegister: netfilter.Reg1, IsDestRegSet: true, SetName: objectName(s.Front)}},
		translates(s))
}

// markOf is what the marks of the service's flows say.
func markOf(s lb.Service) uint32 {
	if s.Masquerade {
		return balancedBit | hiddenBit
	}
	return balancedBit
}

// translates sends the flow to the server in the first register.
func translates(s lb.Service) []expr.Any {
	f := netfilter.FamilyOf(s.Addr)
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.Proto), RegAddrMin: netfilter.Reg1}
	if s.Protocol != lb.Any {
		nat.RegProtoMin = f.Second
	}
	return []expr.Any{nat}
}

// number leaves the number of the chosen slot in the first register.
func number(f netfilter.Family, a lb.Algorithm, slots int) []expr.Any {
	if hashes(a) {
		return []expr.Any{f.LoadSource(netfilter.Reg2), &expr.Hash{
			SourceRegister: netfilter.Reg2, DestRegister: netfilter.Reg1, Length: f.Bytes,
			Modulus: uint32(slots), Seed: hashSeed, Type: expr.HashTypeJenkins}}
	}
	return []expr.Any{&expr.Numgen{Register: netfilter.Reg1, Modulus: uint32(slots), Type: unix.NFT_NG_INCREMENTAL}}
}
