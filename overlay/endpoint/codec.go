package endpoint

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
)

// The encoding is made for gossip packets: numbers are varints, texts carry their
// length, addresses and hexadecimal ids are packed. It is canonical, so equal
// records have equal encodings on every node and hashes of them can be compared.
//
// Nodes of several versions share one table while a cluster is upgraded. A value
// carries its length, and may grow at its end: a version that does not know what
// stands there keeps it and hands it on, so its hashes are those of the owner.

// textMax bounds one text in bytes.
const textMax = 1 << 16

// ErrCorrupt is wrapped by every error of the decoders.
var ErrCorrupt = errors.New("corrupt encoding")

func hashBytes(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b) // a hash's Write never fails
	return h.Sum64()
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendPacked writes a text, in half the bytes where it is lower-case hexadecimal.
func appendPacked(b []byte, s string) []byte {
	raw, err := hex.DecodeString(s)
	if err != nil || len(s) == 0 || hex.EncodeToString(raw) != s {
		return appendString(append(b, 0), s)
	}
	return appendString(append(b, 1), string(raw))
}

func appendMAC(b []byte, s string) []byte {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 || mac.String() != s {
		return appendString(append(b, 0), s)
	}
	return append(append(b, 1), mac...)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	a = a.WithZone("")
	raw := a.AsSlice()
	return append(append(b, byte(len(raw))), raw...)
}

func appendStrings(b []byte, ss []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(ss)))
	for _, s := range ss {
		b = appendString(b, s)
	}
	return b
}

// hidesClients is set beside the state in a value's first byte.
const hidesClients = 1 << 7

func appendValue(b []byte, v Value) []byte {
	first := byte(v.State)
	if v.HidesClients {
		first |= hidesClients
	}
	b = append(b, first)
	for _, s := range [...]string{v.ServiceID, v.ServiceName, v.TaskName, v.Hostname} {
		b = appendString(b, s)
	}
	b = appendPacked(b, v.ContainerID)
	b = binary.AppendVarint(b, int64(v.Slot))
	b = appendAddr(b, v.VTEP)
	b = binary.AppendUvarint(b, uint64(len(v.Ports)))
	for _, p := range v.Ports {
		b = appendString(appendString(b, p.Name), p.Protocol)
		b = binary.BigEndian.AppendUint16(b, p.Port)
	}
	b = binary.AppendUvarint(b, uint64(len(v.Attachments)))
	for _, a := range v.Attachments {
		b = appendMAC(appendString(b, a.NetworkID), a.MAC)
		b = binary.AppendUvarint(b, uint64(len(a.Addrs)))
		for _, addr := range a.Addrs {
			b = appendAddr(b, addr)
		}
		b = appendStrings(b, a.Aliases)
	}
	return append(b, v.Later...)
}

// appendBody writes a record without owner and epoch.
func appendBody(b []byte, r Record) []byte {
	b = binary.AppendUvarint(b, r.Seq)
	b = appendString(b, r.Key)
	if r.Deleted {
		return append(b, 1)
	}
	value := appendValue(nil, r.Value)
	return append(binary.AppendUvarint(append(b, 0), uint64(len(value))), value...)
}

func appendRecord(b []byte, r Record) []byte {
	b = binary.AppendUvarint(appendString(b, r.Owner), r.Epoch)
	return appendBody(b, r)
}

// AppendRecords appends a batch of records to b. Records of one owner and epoch
// share the words for them.
func AppendRecords(b []byte, records []Record) []byte {
	for len(records) > 0 {
		first := records[0]
		n := 1
		for n < len(records) && records[n].Owner == first.Owner && records[n].Epoch == first.Epoch {
			n++
		}
		b = binary.AppendUvarint(appendString(b, first.Owner), first.Epoch)
		b = binary.AppendUvarint(b, uint64(n))
		for _, r := range records[:n] {
			b = appendBody(b, r)
		}
		records = records[n:]
	}
	return b
}

// DecodeRecords reads what AppendRecords wrote.
func DecodeRecords(b []byte) ([]Record, error) {
	d := decoder{b: b}
	var out []Record
	for len(d.b) > 0 && d.err == nil {
		owner, epoch := d.text(), d.uint()
		for n := d.count(3); n > 0 && d.err == nil; n-- {
			r := d.body(owner, epoch)
			if d.err == nil {
				out = append(out, r)
			}
		}
	}
	if d.err != nil {
		return nil, fmt.Errorf("decode endpoint records: %w", d.err)
	}
	return out, nil
}

// AppendSet appends one set to b.
func AppendSet(b []byte, s Set) []byte {
	b = appendString(b, s.Owner)
	for _, n := range [...]uint64{s.Epoch, s.Done, s.Since} {
		b = binary.AppendUvarint(b, n)
	}
	b = appendRising(appendRising(b, s.Live), s.Ahead)
	b = binary.AppendUvarint(b, uint64(len(s.Records)))
	for _, r := range s.Records {
		b = appendBody(b, r)
	}
	return b
}

// appendRising writes ascending numbers as their differences.
func appendRising(b []byte, seqs []uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(seqs)))
	last := uint64(0)
	for _, seq := range seqs {
		b = binary.AppendUvarint(b, seq-last)
		last = seq
	}
	return b
}

// DecodeSet reads one set from the front of b and returns the rest.
func DecodeSet(b []byte) (Set, []byte, error) {
	d := decoder{b: b}
	s := Set{Owner: d.text(), Epoch: d.uint(), Done: d.uint(), Since: d.uint()}
	s.Live, s.Ahead = d.rising(), d.rising()
	for n := d.count(3); n > 0 && d.err == nil; n-- {
		s.Records = append(s.Records, d.body(s.Owner, s.Epoch))
	}
	if d.err != nil {
		return Set{}, nil, fmt.Errorf("decode endpoint set: %w", d.err)
	}
	return s, d.b, nil
}

// AppendDigest appends a digest to b.
func AppendDigest(b []byte, dg Digest) []byte {
	b = binary.AppendUvarint(b, uint64(len(dg)))
	for _, e := range dg {
		b = appendString(b, e.Owner)
		for _, n := range [...]uint64{e.Epoch, e.Done, e.Max, uint64(e.Live)} {
			b = binary.AppendUvarint(b, n)
		}
		b = binary.BigEndian.AppendUint64(b, e.Sum)
	}
	return b
}

// DecodeDigest reads one digest from the front of b and returns the rest.
func DecodeDigest(b []byte) (Digest, []byte, error) {
	d := decoder{b: b}
	var dg Digest
	for n := d.count(13); n > 0 && d.err == nil; n-- {
		e := DigestEntry{Owner: d.text(), Epoch: d.uint(), Done: d.uint(), Max: d.uint(), Live: int(min(d.uint(), 1<<31))}
		if raw := d.bytes(8); raw != nil {
			e.Sum = binary.BigEndian.Uint64(raw)
		}
		dg = append(dg, e)
	}
	if d.err != nil {
		return nil, nil, fmt.Errorf("decode endpoint digest: %w", d.err)
	}
	return dg, d.b, nil
}

// AppendWants appends wants to b.
func AppendWants(b []byte, wants []Want) []byte {
	b = binary.AppendUvarint(b, uint64(len(wants)))
	for _, w := range wants {
		b = binary.AppendUvarint(binary.AppendUvarint(appendString(b, w.Owner), w.Epoch), w.Since)
	}
	return b
}

// DecodeWants reads wants from the front of b and returns the rest.
func DecodeWants(b []byte) ([]Want, []byte, error) {
	d := decoder{b: b}
	var wants []Want
	for n := d.count(3); n > 0 && d.err == nil; n-- {
		wants = append(wants, Want{Owner: d.text(), Epoch: d.uint(), Since: d.uint()})
	}
	if d.err != nil {
		return nil, nil, fmt.Errorf("decode endpoint wants: %w", d.err)
	}
	return wants, d.b, nil
}

func cloneValue(v Value) Value {
	v.Ports = slices.Clone(v.Ports)
	v.Attachments = slices.Clone(v.Attachments)
	v.Later = slices.Clone(v.Later)
	v.VTEP = v.VTEP.WithZone("")
	for i := range v.Attachments {
		v.Attachments[i].Addrs = slices.Clone(v.Attachments[i].Addrs)
		v.Attachments[i].Aliases = slices.Clone(v.Attachments[i].Aliases)
	}
	return v
}
