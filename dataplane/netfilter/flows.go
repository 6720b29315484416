package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
)

// Tracked is a tracked flow with what went over it.
type Tracked struct {
	Flow
	// Sent went the way of the flow's first packet, Received the other way. They
	// stay zero for flows that began before the namespace accounted.
	Sent, Received Traffic
	// Zone is what tells flows apart that otherwise look alike.
	Zone uint16
	// Ended says that a TCP connection is over, and only remembered.
	Ended bool
}

// Traffic counts packets, and bytes with their IP headers.
type Traffic struct{ Packets, Bytes uint64 }

// The attributes of a flow (enum ctattr_type and the like of
// linux/netfilter/nfnetlink_conntrack.h).
const (
	ctaOriginal, ctaReply, ctaProtoInfo        = 1, 2, 4
	ctaCountersOriginal, ctaCountersReply      = 9, 10
	ctaID, ctaZone                             = 12, 18
	ctaTupleIP, ctaTupleProto, ctaTupleZone    = 1, 2, 3
	ctaSource4, ctaDest4, ctaSource6, ctaDest6 = 1, 2, 3, 4
	ctaProtoNumber, ctaSourcePort, ctaDestPort = 1, 2, 3
	ctaPackets, ctaBytes                       = 1, 2
	ctaTCP, ctaTCPState                        = 1, 1

	ctGet, ctDelete                 = 1, 2    // IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE
	tcpLastAck, tcpTimeWait, tcpEnd = 6, 7, 8 // enum tcp_conntrack
)

// Flows returns the tracked flows of a namespace, both families, in one reading
// of the table. A table without flows costs no reading.
func Flows(namespace string) (out []Tracked, err error) {
	err = withFlows(namespace, func(_ *netlink.Conn, messages []netlink.Message) error {
		out = make([]Tracked, 0, len(messages))
		for _, m := range messages {
			if t, err := parseFlow(m.Data); err == nil {
				out = append(out, t)
			}
		}
		return nil
	})
	return out, err
}

// withFlows calls f with the messages of the namespace's flows, unless it has
// none, and with a connection to the table.
func withFlows(namespace string, f func(*netlink.Conn, []netlink.Message) error) error {
	if n, err := flowCount(namespace); err != nil || n == 0 {
		return err
	}
	config := &netlink.Config{}
	if namespace != "" {
		ns, err := os.Open(namespace)
		if err != nil {
			return fmt.Errorf("open network namespace: %w", err)
		}
		defer ns.Close()
		config.NetNS = int(ns.Fd())
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return fmt.Errorf("open conntrack in namespace %q: %w", namespace, err)
	}
	defer conn.Close()
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | ctGet, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return fmt.Errorf("list flows in namespace %q: %w", namespace, err)
	}
	return f(conn, messages)
}

// flowCount is how many flows the namespace has, 0 where flows are not tracked.
func flowCount(namespace string) (n int, err error) {
	err = netns.Do(namespace, func() error {
		raw, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count flows in namespace %q: %w", namespace, err)
	}
	return n, nil
}

// errShort is the refusal of a message that is cut off.
var errShort = errors.New("a flow's message is too short")

const attributeHeader = 4 // struct nlattr

// attributes calls f with the data of each attribute of a message; false when it
// is cut off.
func attributes(b []byte, f func(kind uint16, data []byte)) bool {
	return wholeAttributes(b, func(kind uint16, whole []byte) {
		f(kind, whole[attributeHeader:binary.NativeEndian.Uint16(whole)])
	})
}

// wholeAttributes is attributes with header and padding.
func wholeAttributes(b []byte, f func(kind uint16, whole []byte)) bool {
	const align = 3 // what a length is rounded up to
	for len(b) >= attributeHeader {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < attributeHeader || size > len(b) {
			return false
		}
		padded := min((size+align)&^align, len(b))
		f(kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[:padded])
		b = b[padded:]
	}
	return len(b) == 0
}

// parseFlow reads one message. It is called for each of perhaps a hundred
// thousand flows, so nothing is allocated.
func parseFlow(msg []byte) (t Tracked, err error) {
	const header = 4 // struct nfgenmsg
	if len(msg) < header {
		return t, errShort
	}
	var original, reply tuple
	whole := attributes(msg[header:], func(kind uint16, data []byte) {
		switch kind {
		case ctaOriginal:
			original.parse(data)
		case ctaReply:
			reply.parse(data)
		case ctaCountersOriginal:
			t.Sent.parse(data)
		case ctaCountersReply:
			t.Received.parse(data)
		case ctaZone:
			t.Zone = number16(data)
		case ctaProtoInfo:
			t.Ended = ended(data)
		}
	})
	if !whole {
		return t, errShort
	}
	if original.zone != 0 {
		t.Zone = original.zone
	}
	t.Flow = Flow{Protocol: original.protocol, Source: original.source(), Dest: original.dest(), Server: reply.source()}
	return t, nil
}

// tuple is one direction of a flow.
type tuple struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
	protocol         byte
	zone             uint16
}

func (t *tuple) source() netip.AddrPort { return netip.AddrPortFrom(t.src, t.srcPort) }
func (t *tuple) dest() netip.AddrPort   { return netip.AddrPortFrom(t.dst, t.dstPort) }

func (t *tuple) parse(b []byte) {
	attributes(b, func(kind uint16, data []byte) {
		switch kind {
		case ctaTupleIP:
			attributes(data, func(kind uint16, data []byte) {
				a, _ := netip.AddrFromSlice(data)
				switch kind {
				case ctaSource4, ctaSource6:
					t.src = a
				case ctaDest4, ctaDest6:
					t.dst = a
				}
			})
		case ctaTupleProto:
			attributes(data, func(kind uint16, data []byte) {
				switch kind {
				case ctaProtoNumber:
					t.protocol = number8(data)
				case ctaSourcePort:
					t.srcPort = number16(data)
				case ctaDestPort:
					t.dstPort = number16(data)
				}
			})
		case ctaTupleZone:
			t.zone = number16(data)
		}
	})
}

func (t *Traffic) parse(b []byte) {
	attributes(b, func(kind uint16, data []byte) {
		switch {
		case len(data) != 8:
		case kind == ctaPackets:
			t.Packets = binary.BigEndian.Uint64(data)
		case kind == ctaBytes:
			t.Bytes = binary.BigEndian.Uint64(data)
		}
	})
}

// ended says whether a TCP connection is over (enum tcp_conntrack).
func ended(b []byte) (over bool) {
	attributes(b, func(kind uint16, data []byte) {
		if kind != ctaTCP {
			return
		}
		attributes(data, func(kind uint16, data []byte) {
			if kind == ctaTCPState {
				state := number8(data)
				over = state == tcpLastAck || state == tcpTimeWait || state == tcpEnd
			}
		})
	})
	return over
}

// number8 and number16 read numbers, 0 where there is none of that size.
func number8(b []byte) byte {
	if len(b) != 1 {
		return 0
	}
	return b[0]
}

func number16(b []byte) uint16 {
	if len(b) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
