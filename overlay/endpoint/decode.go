package endpoint

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// decoder reads from the front of b. After the first error it returns zero values.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", what, ErrCorrupt)
	}
	d.b = nil
}

func (d *decoder) uint() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.fail("number")
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) int() int64 {
	n, size := binary.Varint(d.b)
	if size <= 0 {
		d.fail("number")
		return 0
	}
	d.b = d.b[size:]
	return n
}

// count reads a number of items, each of which takes at least itemBytes: so it
// can never ask for more memory than the input is long.
func (d *decoder) count(itemBytes int) int {
	n := d.uint()
	if n > uint64(len(d.b)/itemBytes) {
		d.fail("count")
		return 0
	}
	return int(n)
}

func (d *decoder) bytes(n int) []byte {
	if d.err != nil || n > len(d.b) {
		d.fail("length")
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if raw := d.bytes(1); raw != nil {
		return raw[0]
	}
	return 0
}

func (d *decoder) text() string {
	n := d.uint()
	if n > textMax {
		d.fail("text length")
		return ""
	}
	return string(d.bytes(int(n)))
}

func (d *decoder) packed() string {
	switch d.byte() {
	case 0:
		return d.text()
	case 1:
		return hex.EncodeToString([]byte(d.text()))
	}
	d.fail("packing")
	return ""
}

func (d *decoder) mac() string {
	switch d.byte() {
	case 0:
		return d.text()
	case 1:
		return net.HardwareAddr(d.bytes(6)).String()
	}
	d.fail("mac packing")
	return ""
}

func (d *decoder) addr() netip.Addr {
	n := int(d.byte())
	if n == 0 {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(d.bytes(n))
	if !ok {
		d.fail("address")
	}
	return a
}

func (d *decoder) rising() []uint64 {
	var out []uint64
	last := uint64(0)
	for n := d.count(1); n > 0 && d.err == nil; n-- {
		next := last + d.uint()
		if next <= last {
			d.fail("sequence")
			return nil
		}
		out = append(out, next)
		last = next
	}
	return out
}

func (d *decoder) body(owner string, epoch uint64) Record {
	r := Record{Owner: owner, Epoch: epoch, Seq: d.uint(), Key: d.text()}
	switch d.byte() {
	case 0:
		r.Value = d.sized()
	case 1:
		r.Deleted = true
	default:
		d.fail("record kind")
	}
	return r
}

// sized reads a value and keeps what a later version wrote behind it.
func (d *decoder) sized() Value {
	size := d.count(1)
	in := decoder{b: slices.Clone(d.bytes(size)), err: d.err}
	v := in.value()
	if in.err != nil {
		d.b, d.err = nil, in.err
	}
	if len(in.b) > 0 {
		v.Later = in.b
	}
	return v
}

func (d *decoder) value() Value {
	first := d.byte()
	v := Value{State: State(first &^ hidesClients), HidesClients: first&hidesClients != 0}
	v.ServiceID, v.ServiceName, v.TaskName, v.Hostname = d.text(), d.text(), d.text(), d.text()
	v.ContainerID = d.packed()
	v.Slot = int(d.int())
	v.VTEP = d.addr()
	for n := d.count(4); n > 0 && d.err == nil; n-- {
		p := Port{Name: d.text(), Protocol: d.text()}
		if raw := d.bytes(2); raw != nil {
			p.Port = binary.BigEndian.Uint16(raw)
		}
		v.Ports = append(v.Ports, p)
	}
	for n := d.count(5); n > 0 && d.err == nil; n-- {
		v.Attachments = append(v.Attachments, d.attachment())
	}
	return v
}

func (d *decoder) attachment() Attachment {
	a := Attachment{NetworkID: d.text(), MAC: d.mac()}
	for n := d.count(1); n > 0 && d.err == nil; n-- {
		a.Addrs = append(a.Addrs, d.addr())
	}
	for n := d.count(1); n > 0 && d.err == nil; n-- {
		a.Aliases = append(a.Aliases, d.text())
	}
	return a
}
