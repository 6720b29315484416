package lb

import (
	"encoding/binary"
	"hash/fnv"
)

// MaglevSlots is the size of a Maglev table, a prime: with fifty backends of one
// weight, no share is more than a tenth larger than another. Every slot is an
// object that a kernel's table is read back by.
const MaglevSlots = 509

// maglev fills a table by the rule of Maglev (Eisenbud and others, NSDI 2016,
// section 3.4): every backend has an order of its own in which it would like the
// slots, and in turn each takes the first in its order that is free. A backend
// that comes or goes moves few slots of the others. A backend of weight w takes w
// slots where one of weight 1 takes one; with more backends than slots, those
// with the greatest addresses get none.
//
// The table depends on addresses, ports and weights alone: it is the same on
// every node.
func maglev(backends []Backend) []Backend {
	turns, _ := shares(backends)
	orders := make([]order, len(backends))
	for i, b := range backends {
		orders[i] = orderOf(b)
	}
	table := make([]Backend, MaglevSlots)
	taken := make([]bool, MaglevSlots)
	for left := MaglevSlots; left > 0; {
		for i, b := range backends {
			for n := turns[i]; n > 0 && left > 0; n-- {
				slot := orders[i].take(taken)
				table[slot], taken[slot] = b, true
				left--
			}
		}
	}
	return table
}

// order is how a backend likes the slots: from a first one in equal steps, which
// meets all of them because their number is a prime.
type order struct{ next, step int }

func orderOf(b Backend) order {
	h := fnv.New64a()
	h.Write(b.Addr.AsSlice())
	h.Write(binary.BigEndian.AppendUint16(nil, b.Port))
	sum := scatter(h.Sum64())
	return order{int(sum >> 32 % MaglevSlots), int(sum&0xffffffff%(MaglevSlots-1)) + 1}
}

// scatter lets each bit of a hash depend on all others (the finisher of
// MurmurHash3): addresses of neighbours differ in the last byte alone.
func scatter(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// take returns the next slot in the order that is free; one must be.
func (o *order) take(taken []bool) int {
	for {
		slot := o.next
		o.next = (o.next + o.step) % MaglevSlots
		if !taken[slot] {
			return slot
		}
	}
}
